"""A failure above the answers goes with its cause, or when it is dismissed."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from bh_studio.engine.protocol.events import Failed
from tests.ui.conftest import Desk

FAILED = Failed("Out of memory.", "Close other programs.", "")


def test_a_refused_run_is_told_until_it_is_asked_again_and_begins(desk: Desk) -> None:
    errors = desk.window.errors
    desk.page.prompt.set_prompt("Once")
    desk.window.actions_.run.trigger()
    failure = desk.engine.fail("The prompt is too long.")
    assert errors.failure == failure
    desk.window.actions_.run.trigger()
    assert errors.failure == failure
    desk.engine.begin()
    assert not errors.isVisible()


def test_a_failed_load_is_told_until_a_model_is_loaded(desk: Desk) -> None:
    desk.model.load("folder")
    desk.engine.load_failure = FAILED
    desk.engine.finish_load()
    assert desk.window.errors.failure == FAILED
    desk.model.load("embedded")
    desk.engine.load_failure = None
    assert desk.window.errors.failure == FAILED
    desk.engine.finish_load()
    assert desk.window.errors.failure is None


@pytest.mark.parametrize("form", ["session", "statistics"])
def test_what_could_not_be_written_is_told_until_it_is(
    form: str, desk: Desk, tmp_path: Path
) -> None:
    errors = desk.window.errors
    desk.finished_run(5)
    (tmp_path / "file").write_text("")
    assert not desk.save(tmp_path / "file" / "run.bhsession")
    failure = errors.failure
    assert failure is not None
    # Another run is no reason to believe that the file is there.
    desk.finished_run(5)
    assert errors.failure == failure
    if form == "session":
        assert desk.save(tmp_path / "run.bhsession")
    else:
        desk.window.actions_.export_json.trigger()
        dialog = desk.window.files.dialog
        assert dialog is not None
        dialog.fileSelected.emit(str(tmp_path / "run.json"))
        dialog.reject()
        desk.settle()
    assert errors.failure is None


def test_a_loaded_model_does_not_settle_what_was_not_written(desk: Desk, tmp_path: Path) -> None:
    desk.finished_run(5)
    (tmp_path / "file").write_text("")
    assert not desk.save(tmp_path / "file" / "run.bhsession")
    desk.load()
    assert desk.window.errors.failure is not None


def test_escape_closes_it_once_there_is_nothing_to_stop(desk: Desk, qtbot: QtBot) -> None:
    errors, editor = desk.window.errors, desk.page.prompt.editor
    desk.start("Once")
    desk.say([" a"])
    desk.window.report(FAILED)
    qtbot.keyClick(editor, Qt.Key.Key_Escape)
    assert desk.engine.is_run_cancelled
    assert errors.isVisible()
    desk.engine.finish()
    qtbot.keyClick(editor, Qt.Key.Key_Escape)
    assert not errors.isVisible()
    assert errors.failure is None


def test_escape_closes_it_wherever_the_focus_is(desk: Desk, qtbot: QtBot) -> None:
    panel = desk.page.settings_panel
    desk.finished_run(5)
    for widget in (
        panel.rule_form.level, panel.rule_form.mode, panel.seed, desk.second.text,
        desk.heat_map.plot,
        desk.window.errors.copy_button,
    ):  # fmt: skip
        desk.window.report(FAILED)
        widget.setFocus()
        qtbot.keyClick(widget, Qt.Key.Key_Escape)
        assert desk.window.errors.failure is None, widget.accessibleName()
