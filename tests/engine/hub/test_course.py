"""Speed and remaining time of a download."""

from __future__ import annotations

import pytest

from bh_studio.engine.hub.course import DownloadRate


def test_speed_is_that_of_the_last_seconds() -> None:
    rate = DownloadRate()
    for second in range(20):
        rate.add(second, 1000 * second)
    for second in range(20, 31):
        rate.add(second, 19_000 + 5000 * (second - 19))
    assert rate.bytes_per_second == pytest.approx(5000)
    assert rate.seconds_left(100_000) == pytest.approx((100_000 - 74_000) / 5000)


def test_nothing_is_said_before_there_is_something_to_measure() -> None:
    rate = DownloadRate()
    assert rate.bytes_per_second is None
    rate.add(0.0, 100)
    rate.add(0.1, 200)
    assert rate.bytes_per_second is None
    assert rate.seconds_left(1000) is None
    rate.add(1.0, 1100)
    assert rate.bytes_per_second == pytest.approx(1000)


def test_a_pause_lowers_the_speed_and_lost_bytes_start_it_anew() -> None:
    rate = DownloadRate()
    rate.add(0.0, 0)
    rate.add(1.0, 1000)
    rate.add(11.0, 1100)
    assert rate.bytes_per_second == pytest.approx(10)
    rate.add(12.0, 0)
    assert rate.bytes_per_second is None
