"""Ratios and shares are taken round by round."""

from __future__ import annotations

import pytest

from bh_studio.engine.records.benchmark.document import document
from bh_studio.engine.records.benchmark.result import BASELINE, BH_MEAN, STOCK, Spread, spread
from tests.bench_results import contender, result


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    # The machine was three times as slow in the second round, for both.
    found = result(
        contenders=(
            contender(STOCK, decode=(2.0, 6.0, 2.2)),
            contender(BASELINE, decode=(1.0, 3.0, 2.0)),
        )
    )
    assert found.speed_ratio(BASELINE, STOCK) == spread([2.0, 2.0, 1.1])
    assert found.speed_ratio(BASELINE, STOCK).median == 2.0  # of medians it would be 1.1


def test_speeds_count_what_came_after_the_first_token() -> None:
    found = contender(BASELINE, tokens=11, decode=(2.0,), first=(0.5,))
    assert found.tokens_per_second == Spread(5.0, 5.0, 5.0)
    assert found.answer_tokens_per_second.median == pytest.approx(11 / 2.5)


def test_a_share_of_the_limit_compares_within_a_round() -> None:
    found = result()
    limits = found.memory_limit.bytes_per_second if found.memory_limit else ()
    baseline = found.contender(BASELINE)
    shares = [
        baseline.token_bytes / step / limit
        for step, limit in zip(baseline.step_seconds, limits, strict=True)
    ]
    assert found.share_of_limit(baseline) == pytest.approx(sorted(shares)[1])


def test_the_document_has_a_pair_over_both_alone() -> None:
    found = result()
    both = document(found)["both_sides"]
    steps = zip(
        found.pair_step_seconds or (),
        found.contender(BASELINE).step_seconds,
        found.contender(BH_MEAN).step_seconds,
        strict=True,
    )
    rounds = list(steps)
    assert both["pair / (2 x baseline step)"]["median"] == pytest.approx(
        sorted(pair / (2 * baseline) for pair, baseline, _ in rounds)[1]
    )
    assert both["pair / (baseline step + BH step)"]["median"] == pytest.approx(
        sorted(pair / (baseline + bh) for pair, baseline, bh in rounds)[1]
    )
