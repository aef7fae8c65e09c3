"""How far an answer is, how long it goes on, and how much room the model has for it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable

import pytest
from PySide6.QtWidgets import QApplication

from bh_studio.engine.records.terms import FinishReason, GenerationParameters
from bh_studio.ui.compare.time_left import TimeLeft
from tests.fake_engine import MODEL
from tests.ui.conftest import Desk

WORDS = [f" word{number}" for number in range(200)]


def said_while(moments: Iterable[tuple[int, float]], most: int) -> list[int | None]:
    left, said = TimeLeft(), []
    for tokens, now in moments:
        left.note(tokens, now)
        said.append(left.seconds(most))
    return said


def steady(most: int, seconds_a_token: float) -> list[tuple[int, float]]:
    return [(tokens, 7.0 + tokens * seconds_a_token) for tokens in range(most + 1)]


def test_nothing_is_said_before_it_can_be_known() -> None:
    said = said_while(steady(128, 0.1), 128)
    assert said[:11] == [None] * 11
    assert said[11] == 12
    assert said[127:] == [1, None]


@pytest.mark.parametrize("pace", [0.02, 0.1, 0.9, 7.0])
def test_what_is_said_only_falls_and_is_right(pace: float) -> None:
    said = [value for value in said_while(steady(300, pace), 300) if value is not None]
    assert said == sorted(said, reverse=True)
    for index, value in enumerate(reversed(said), start=1):
        assert abs(value - index * pace) <= 1 + 1e-6


def test_what_is_said_does_not_jump_about() -> None:
    uneven = [(n, 0.1 * n + 0.08 * math.sin(n)) for n in range(1, 200)]
    said = [value for value in said_while(uneven, 200) if value is not None]
    assert said == sorted(said, reverse=True)


def test_a_slower_pace_is_said() -> None:
    moments = [(n, 0.05 * n) for n in range(1, 100)]
    moments += [(100 + n, 5 + 0.5 * n) for n in range(30)]
    said = said_while(moments, 200)
    assert said[98] == 6
    last = said[-1]
    assert last is not None
    assert abs(last - 71 * 0.5) < 2


def test_an_answer_says_how_far_it_is(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("bh_studio.ui.compare.answer_panel.monotonic", lambda: now[0])
    desk.start(generation=GenerationParameters(128))
    desk.page.clock.flush()
    values = desk.second.numbers.values
    assert (values["Tokens"], values["Time left"]) == ("0 of 128", "")
    for word in WORDS[:37]:
        now[0] += 0.05
        desk.say([word])
    values = desk.second.numbers.values
    assert (values["Tokens"], values["Time left"]) == ("37 of 128", "5 s left")
    assert desk.second.numbers.text().startswith("37 of 128 · 5 s left · ")
    # Three tokens of the prompt, as the fake engine reads it.
    assert values["Context"] == "context 40 of 1,024"
    assert "context 40 of 1,024" in desk.second.numbers.toolTip()
    desk.engine.finish()
    desk.page.clock.flush()
    values = desk.second.numbers.values
    assert (values["Tokens"], values["Time left"]) == ("37 tok", "")
    assert values["Context"] == "context 40 of 1,024"
    # Another answer begins with nothing known.
    desk.start()
    desk.say(WORDS[:2])
    assert desk.second.numbers.values["Time left"] == ""


def test_too_little_room_is_said_loudly(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(show=True, answering=dataclasses.replace(MODEL, context_length=23))
    desk.load()
    desk.start(generation=GenerationParameters(128))
    assert not desk.second.room.isVisible()
    desk.say(WORDS[:5])
    assert desk.second.numbers.values["Tokens"] == "5 of 20"
    for panel in (desk.first, desk.second):
        assert panel.room.isVisible()
        assert panel.room.text() == "Only 20 of 128 tokens fit"
        assert panel.room.property("role") == "problem"
        assert "23 tokens in all" in panel.room.toolTip()
    desk.window.resize(1024, 640)
    QApplication.processEvents()
    assert desk.window.width() == 1024
    desk.engine.finish_side(0, FinishReason.END_OF_TEXT)
    desk.say([], [])
    desk.engine.finish_side(1, FinishReason.CONTEXT_LENGTH)
    desk.page.clock.flush()
    assert not desk.first.room.isVisible()
    assert desk.second.room.isVisible()


def test_an_answer_for_which_there_is_room_says_nothing_of_it(desk: Desk) -> None:
    desk.start(generation=GenerationParameters(128))
    desk.say(WORDS[:5])
    assert not desk.first.room.isVisible()
    desk.engine.finish()
    assert not desk.first.room.isVisible()
