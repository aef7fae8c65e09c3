"""What the command line asks of a chat in the window, on a fake engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtWidgets import QApplication

from bh_studio import __main__ as program
from bh_studio.app import WindowOptions, run_window
from bh_studio.engine.records.session_file import load_session
from bh_studio.engine.records.terms import Conversation, ModelInfo, Turn
from bh_studio.settings import Settings, save_settings
from tests.fake_engine import CHAT_MODEL, MODEL, FakeEngine

WORDS = [" a", " fox"]
Make = Callable[[ModelInfo], FakeEngine]


@pytest.fixture
def make(qapp: QApplication) -> Iterator[Make]:
    def engine(model: ModelInfo) -> FakeEngine:
        engine = FakeEngine(model)
        engine.loads_at_once = True
        engine.script = {0: WORDS, 1: WORDS}
        return engine

    font = qapp.font()
    yield engine
    qapp.setStyleSheet("")
    qapp.setFont(font)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Conversation("Remembered.")),
        ({"chat": True}, Conversation("Remembered.")),
        ({"chat": False}, None),
        ({"system": "Be brief."}, Conversation("Be brief.")),
        ({"system": ""}, Conversation()),
    ],
)
def test_a_prompt_is_taken_as_asked(
    make: Make, options: dict[str, object], expected: Conversation | None
) -> None:
    save_settings(Settings(system_prompt="Remembered."))
    engine = make(CHAT_MODEL)
    wanted = WindowOptions(prompt="Who?", run=True, quit=True, **options)  # type: ignore[arg-type]
    assert run_window(wanted, lambda: engine) == 0
    assert engine.run.conversation == expected


@pytest.mark.parametrize("options", [{"chat": True}, {"system": "Be brief."}])
def test_a_base_model_cannot_be_asked_to_chat(
    make: Make, options: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    engine = make(MODEL)
    wanted = WindowOptions(prompt="Who?", run=True, quit=True, **options)  # type: ignore[arg-type]
    assert run_window(wanted, lambda: engine) == 1
    assert capsys.readouterr().err == (
        "olmoe-nano continues texts; it has no chat template. Load an instruct model to chat.\n"
    )
    assert len(engine.requests) == 1  # the load


def test_a_conversation_goes_on_from_the_command_line(make: Make, tmp_path: Path) -> None:
    first, second = tmp_path / "1.bhsession", tmp_path / "2.bhsession"
    engine = make(CHAT_MODEL)
    options = WindowOptions(prompt="Who?", system="Be brief.", run=True, save=first, quit=True)
    assert run_window(options, lambda: engine) == 0
    again = make(CHAT_MODEL)
    options = WindowOptions(session=first, prompt="Why?", run=True, save=second, quit=True)
    assert run_window(options, lambda: again) == 0
    expected = Conversation("Be brief.", (Turn("Who?", (" a fox", " a fox")),))
    assert load_session(second).conversation == expected


def test_a_system_prompt_without_a_chat_is_a_usage_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(["--system", "Be brief.", "--no-chat"])
    assert ended.value.code == 2
    assert "leave out --no-chat" in capsys.readouterr().err
