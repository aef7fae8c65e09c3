"""What a screen reader says by itself: that a run began, how it ended, what went wrong."""

from __future__ import annotations

import pytest
from PySide6.QtGui import QAccessible, QAccessibleAnnouncementEvent

from bh_studio.engine.protocol.events import Failed
from bh_studio.engine.records.terms import FinishReason
from bh_studio.engine.rules.parameters import Mode, RuleParameters
from bh_studio.ui.widgets import announcement
from tests.ui.conftest import Desk

POLITE = QAccessible.AnnouncementPoliteness.Polite
URGENT = QAccessible.AnnouncementPoliteness.Assertive
Said = list[tuple[str, QAccessible.AnnouncementPoliteness]]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    heard: Said = []

    class Heard:
        AnnouncementPoliteness = QAccessible.AnnouncementPoliteness

        @staticmethod
        def updateAccessibility(event: QAccessibleAnnouncementEvent) -> None:  # noqa: N802
            assert event.type() is QAccessible.Event.Announcement
            heard.append((event.message(), event.politeness()))

    monkeypatch.setattr(announcement, "QAccessible", Heard)
    return heard


def test_a_run_is_heard_from_its_beginning_to_its_numbers(said: Said, desk: Desk) -> None:
    desk.finished_run(8)
    mean = desk.second.numbers.values["Mean experts"].removesuffix(" experts")
    assert said == [
        ("The run has begun with 2 sides.", POLITE),
        (
            "The run has ended. Side A: 8 tokens, 8.00 experts a token and layer. Side B: 8 "
            f"tokens, {mean} experts a token and layer, another token than A at 5.",
            POLITE,
        ),
    ]


def test_a_run_that_was_stopped_and_only_counted_says_so(said: Said, desk: Desk) -> None:
    desk.start("Once", RuleParameters(mode=Mode.ANALYZE))
    desk.say([" a"])
    desk.engine.finish(FinishReason.STOPPED)
    assert said[-1][0].startswith("The run was stopped. Side A: 1 token, 8.00 experts a token")
    assert said[-1][0].endswith(" experts a token and layer counted.")


def test_a_failure_is_said_at_once_wherever_it_comes_from(said: Said, desk: Desk) -> None:
    desk.start("Once")
    desk.say([" a"])
    failure = desk.engine.fail("The weights are damaged.")
    assert said[-1] == (f"{failure.message} {failure.advice}", URGENT)
    desk.window.report(Failed("The disk is full.", "", ""))
    assert said[-1] == ("The disk is full.", URGENT)
    desk.window.kept_strip.show_failure(Failed("A run was cut off.", "It is kept.", ""))
    assert said[-1] == ("A run was cut off. It is kept.", URGENT)


def test_what_the_line_below_says_for_a_moment_is_said(said: Said, desk: Desk) -> None:
    desk.window.status.notify("Saved to a.bhsession")
    assert said == [("Saved to a.bhsession", POLITE)]
