"""Saving, opening and exporting through the window."""

from __future__ import annotations

import csv
import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QFileDialog
from pytestqt.qtbot import QtBot

from bh_studio import paths
from bh_studio.engine.execution import opening
from bh_studio.engine.protocol.events import Failed
from bh_studio.engine.records.runs.reader import load_run, open_session
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.session_file import SESSION_WRITERS, load_session, save_session
from bh_studio.engine.rules import RuleParameters
from bh_studio.settings import Settings
from bh_studio.ui.engine_thread import Engine
from bh_studio.ui.widgets.theme import DARK
from tests.ui.conftest import Desk

pytestmark = pytest.mark.usefixtures("collected")

BIG = 2_000
RULE = RuleParameters()


def answer_dialog(desk: Desk, path: Path) -> QFileDialog:
    """Choose `path` in the dialog that is open."""
    dialog = desk.window.files.dialog
    assert dialog is not None
    assert dialog.isVisible()
    dialog.fileSelected.emit(str(path))
    dialog.close()
    desk.settle()
    return dialog


def test_a_session_survives_saving_and_opening(
    desk: Desk, make_desk: Callable[..., Desk], tmp_path: Path
) -> None:
    session = desk.finished_run(20)
    path = tmp_path / "run.bhsession"
    assert desk.window.isWindowModified()
    desk.window.actions_.save.trigger()
    dialog = answer_dialog(desk, path)
    assert dialog.acceptMode() is QFileDialog.AcceptMode.AcceptSave
    assert dialog.defaultSuffix() == "bhsession"
    assert not desk.window.isWindowModified()
    assert desk.window.windowTitle() == "run.bhsession[*] – BH Studio"
    assert not desk.page.is_unsaved

    other = make_desk(show=True)
    other.window.actions_.open.trigger()
    answer_dialog(other, path)
    other.page.clock.flush()
    opened = other.session.session
    assert opened is not None
    assert np.array_equal(opened.records[1].expert_counts, session.records[1].expert_counts)
    for panel, side in ((other.second, 1), (other.first, 0)):
        assert panel.text.toPlainText() == session.prompt + session.records[side].text
        assert panel.numbers.values["Tokens"] == "20 tok"
    assert other.second.text.tint_of(3) == desk.second.text.tint_of(3)
    assert other.page.differences.lines[0].text() == desk.page.differences.lines[0].text()
    assert other.second.difference.text() == "Differs from A at 5"
    assert other.page.prompt.prompt == session.prompt
    assert other.page.settings_panel.sides() == session.sides
    assert other.window.files.settings.recent_sessions == (str(path),)


def test_a_session_is_opened_at_its_beginning(desk: Desk, tmp_path: Path) -> None:
    desk.finished_run(900)
    assert desk.save(tmp_path / "run.bhsession")
    bars = [panel.text.verticalScrollBar() for panel in desk.page.answers.shown]
    assert all(bar.value() == bar.maximum() > 0 for bar in bars)
    assert desk.open(tmp_path / "run.bhsession")
    assert [bar.value() for bar in bars] == [0, 0]
    assert not desk.first.text.is_following
    desk.window.resize(1100, 760)
    desk.page.clock.flush()
    assert [bar.value() for bar in bars] == [0, 0]
    # A run is followed as before.
    desk.finished_run(900)
    assert all(bar.value() == bar.maximum() for bar in bars)


def test_save_asks_only_the_first_time_and_never_for_an_older_run(
    desk: Desk, tmp_path: Path
) -> None:
    path = tmp_path / "run.bhsession"
    desk.finished_run()
    assert desk.save(path)
    first = path.read_bytes()
    desk.finished_run(8)
    assert desk.window.files.path is None
    desk.window.actions_.save.trigger()
    dialog = desk.window.files.dialog
    assert dialog is not None
    assert dialog.isVisible()
    dialog.reject()
    assert path.read_bytes() == first
    assert desk.window.actions_.save.isEnabled()


def test_what_is_saved_already_is_told_to_be(desk: Desk, tmp_path: Path, qtbot: QtBot) -> None:
    save, status = desk.window.actions_.save, desk.window.status
    assert save.toolTip() == "There is nothing to save yet."
    path = tmp_path / "run.bhsession"
    desk.start()
    assert not save.isEnabled()
    assert save.toolTip() == "A run is in flight; it can be saved at its end."
    desk.say([" a"])
    desk.engine.finish()
    desk.settle()
    assert save.toolTip() == "Save what is on screen (Ctrl+S)"
    assert desk.save(path)
    written = path.stat().st_mtime_ns
    qtbot.keyClick(desk.window, Qt.Key.Key_S, Qt.KeyboardModifier.ControlModifier)
    desk.settle()
    assert status.notice == "Already saved in run.bhsession."
    assert path.stat().st_mtime_ns == written
    assert desk.window.files.dialog is None


def test_a_run_is_not_replaced_by_a_file_asked_for_before_it(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "run.bhsession"
    desk.finished_run(5)
    assert desk.save(path)
    desk.window.files.open_path(path)
    later = desk.finished_run(6)
    assert desk.session.session is later
    failure = desk.window.errors.failure
    assert failure is not None
    assert failure.message == "run.bhsession was not opened."
    assert "A run began before it was read" in failure.advice
    assert desk.open(path)


def test_of_several_files_the_last_is_shown(desk: Desk, tmp_path: Path) -> None:
    for tokens in (5, 6, 7):
        desk.finished_run(tokens)
        assert desk.save(tmp_path / f"{tokens}.bhsession")
    opened: list[Session] = []
    desk.window.files.opened.connect(opened.append)
    for tokens in (5, 6):
        desk.window.files.open_path(tmp_path / f"{tokens}.bhsession")
    assert desk.open(tmp_path / "6.bhsession")
    assert [len(session.records[1].token_ids) for session in opened] == [6]
    assert desk.window.files.path == tmp_path / "6.bhsession"


def test_what_is_written_is_what_was_on_screen_when_it_was_asked_for(
    desk: Desk, tmp_path: Path
) -> None:
    path = tmp_path / "run.bhsession"
    desk.finished_run(5)
    desk.window.files.save_to(path)
    assert desk.window.files.can_save
    desk.start("Later")
    desk.say([" a"])
    desk.engine.finish()
    desk.settle()
    assert len(load_session(path).records[1].token_ids) == 5
    # The later run is not in that file, whose name is remembered all the same.
    assert desk.window.files.path is None
    assert desk.window.files.can_save
    assert desk.window.files.settings.recent_sessions == (str(path),)


def test_a_window_closes_once_its_files_are_written(
    desk: Desk, tmp_path: Path, qtbot: QtBot
) -> None:
    desk.finished_run(5)
    desk.window.files.save_to(tmp_path / "run.bhsession")
    for _ in range(2):
        desk.window.close()
        assert desk.window.isVisible()
    qtbot.waitUntil(lambda: not desk.window.isVisible())
    assert load_session(tmp_path / "run.bhsession").prompt == "Once"


def test_a_window_stays_if_a_file_cannot_be_written(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    desk.finished_run(5)
    desk.window.files.save_to(tmp_path / "file" / "run.bhsession")
    desk.window.close()
    desk.settle()
    assert desk.window.isVisible()
    assert desk.window.errors.isVisible()
    desk.window.close()
    assert not desk.window.isVisible()


def test_a_window_that_waited_for_a_run_stays_too_if_a_file_cannot_be_written(
    desk: Desk, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    desk.finished_run(5)
    desk.window.files.save_to(tmp_path / "file" / "run.bhsession")
    desk.start("Twice")
    desk.window.close()
    desk.engine.finish()
    desk.settle()
    assert desk.window.errors.failure is not None
    assert desk.window.isVisible()


@pytest.mark.parametrize("form", ["save_as", "export_json", "export_csv"])
def test_what_is_written_is_what_was_on_screen_when_the_dialog_came(
    make_desk: Callable[..., Desk], tmp_path: Path, form: str
) -> None:
    desk = make_desk(show=True)
    desk.load()
    session = desk.finished_run(5)
    desk.model.load("embedded")
    desk.page.prompt.set_prompt("Twice")
    desk.window.actions_.run.trigger()
    getattr(desk.window.actions_, form).trigger()
    # Where the person decides, the run that has waited begins.
    desk.engine.finish_load()
    desk.engine.begin()
    answer_dialog(desk, tmp_path / "run")
    expected = tmp_path / "expected"
    suffix = {"save_as": ".bhsession", "export_json": ".json", "export_csv": ".csv"}[form]
    SESSION_WRITERS[suffix](session, expected)
    assert (tmp_path / "run").read_bytes() == expected.read_bytes()
    assert not desk.window.files.is_saved
    desk.engine.finish()
    desk.settle()


def test_a_file_that_is_asked_for_during_a_run_is_told_to_wait(desk: Desk, tmp_path: Path) -> None:
    desk.finished_run(5)
    desk.save(tmp_path / "run.bhsession")
    desk.start("Twice")
    desk.window.files.open_path(tmp_path / "run.bhsession")
    assert desk.window.errors.failure is not None
    assert desk.window.errors.failure.message == "run.bhsession was not opened."
    assert "after the run" in desk.window.errors.failure.advice
    desk.engine.finish()
    desk.settle()


def test_files_keep_no_question_about_a_model_waiting(desk: Desk, tmp_path: Path) -> None:
    desk.finished_run(5)
    desk.window.files.save_to(tmp_path / "run.bhsession")
    assert desk.window.files.is_under_way
    assert desk.model.is_idle


def test_a_big_session_is_read_and_written_in_another_thread(
    make_desk: Callable[..., Desk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_desk(show=True)
    desk.load()
    path, copy = tmp_path / "big.bhsession", tmp_path / "copy.bhsession"
    save_session(big_session(desk.finished_run(5)), path)
    threads: dict[str, Thread] = {}

    def reading(source: Path) -> Session:
        threads["reading"] = threading.current_thread()
        return open_session(source)

    def writing(session: Session, target: Path) -> None:
        threads["writing"] = threading.current_thread()
        save_session(session, target)

    monkeypatch.setattr(opening, "open_session", reading)
    monkeypatch.setitem(SESSION_WRITERS, ".bhsession", writing)
    engine = Engine()
    engine.reported.connect(desk.model.jobs.apply)
    engine.start()
    desk.model.jobs.attach(engine)
    try:
        assert desk.open(path)
        assert desk.session.sides.all_runs[1].token_count == BIG
        assert desk.save(copy)
        assert np.array_equal(
            load_session(copy).records[0].raw_counts, load_session(path).records[0].raw_counts
        )
    finally:
        engine.shutdown()
    assert set(threads) == {"reading", "writing"}
    assert threading.main_thread() not in threads.values()
    assert not any(thread.is_alive() for thread in threads.values())


def big_session(session: Session) -> Session:
    """The same with BIG tokens of each side, by a model that can read so many."""
    random = np.random.default_rng(3)
    layers = session.model.layers
    counts = random.integers(1, 65, (2, 2, BIG, layers), dtype=np.uint8)
    records = tuple(
        dataclasses.replace(
            record,
            text=" a" * BIG,
            token_ids=tuple(range(BIG)),
            token_texts=(" a",) * BIG,
            expert_counts=used,
            raw_counts=raw,
            token_seconds=np.arange(BIG) / 8,
        )
        for record, (used, raw) in zip(session.records, counts, strict=True)
    )
    model = dataclasses.replace(session.model, context_length=2 * BIG)
    return dataclasses.replace(session, records=records, model=model)


def test_every_finished_run_is_kept(desk: Desk) -> None:
    desk.engine.history = paths.history_dir()
    runs = [desk.finished_run(5), desk.finished_run(6)]
    kept = [load_run(folder) for folder in paths.history_dir().glob("*/*/*")]
    kept.sort(key=lambda session: len(session.records[1].token_ids))
    assert [session.to_json() for session in kept] == [session.to_json() for session in runs]


@pytest.mark.parametrize("is_former", [False, True])
def test_a_kept_run_has_no_name_yet(desk: Desk, is_former: bool) -> None:
    desk.engine.history = paths.history_dir()
    session = desk.finished_run(5)
    (path,) = paths.history_dir().glob("*/*/*")
    if is_former:
        paths.autosave_dir().mkdir()
        path = paths.autosave_dir() / "2025-01-02 03-04-05-006.bhsession"
        save_session(session, path)
    assert desk.open(path)
    assert desk.window.files.can_save
    assert desk.window.files.settings.recent_sessions == ()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 broken"])
def test_a_bad_file_changes_nothing(desk: Desk, tmp_path: Path, content: bytes) -> None:
    session = desk.finished_run(5)
    desk.save(tmp_path / "good.bhsession")
    title, text = desk.window.windowTitle(), desk.second.text.toPlainText()
    bad = tmp_path / "bad.bhsession"
    bad.write_bytes(content)
    assert not desk.open(bad)
    desk.page.clock.flush()
    failure = desk.window.errors.failure
    assert failure is not None
    assert failure.message == "bad.bhsession could not be opened."
    assert "not a BH Studio session" in failure.advice
    assert desk.session.session is session
    assert desk.window.windowTitle() == title
    assert desk.second.text.toPlainText() == text
    assert desk.window.files.settings.recent_sessions == (str(tmp_path / "good.bhsession"),)


def test_a_missing_file_is_named(desk: Desk, tmp_path: Path) -> None:
    assert not desk.open(tmp_path / "gone.bhsession")
    failure = desk.window.errors.failure
    assert failure is not None
    assert "No such file" in failure.advice


def test_a_disk_that_refuses_is_told(desk: Desk, tmp_path: Path) -> None:
    desk.finished_run(5)
    (tmp_path / "file").write_text("")
    assert not desk.save(tmp_path / "file" / "run.bhsession")
    failure = desk.window.errors.failure
    assert failure is not None
    assert failure.message == "run.bhsession could not be written."
    assert desk.window.files.can_save


def test_statistics_are_exported(desk: Desk, tmp_path: Path) -> None:
    session = desk.finished_run(5)
    desk.window.actions_.export_json.trigger()
    answer_dialog(desk, tmp_path / "run.json")
    document = json.loads((tmp_path / "run.json").read_text())
    assert document == json.loads(json.dumps(session.to_json()))
    desk.window.actions_.export_csv.trigger()
    answer_dialog(desk, tmp_path / "run.csv")
    with (tmp_path / "run.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 5 * 16
    assert rows[-1]["experts"] == str(session.records[1].expert_counts[-1, -1])


@pytest.mark.parametrize("name", ["a.txt", "a.JSON", "v1.2", "x", "a.csv"])
def test_the_menu_decides_what_is_exported(desk: Desk, tmp_path: Path, name: str) -> None:
    desk.finished_run(5)
    desk.window.actions_.export_json.trigger()
    answer_dialog(desk, tmp_path / name)
    assert "sides" in json.loads((tmp_path / name).read_text())
    desk.window.actions_.export_csv.trigger()
    answer_dialog(desk, tmp_path / name)
    assert (tmp_path / name).read_text().count("\n") == 2 * 5 * 16 + 1


def test_folders_that_cannot_be_used(
    make_desk: Callable[..., Desk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    desk = make_desk(Settings(session_folder="/" + "a" * 5000), show=True)
    desk.window.actions_.open.trigger()
    dialog = desk.window.files.dialog
    assert dialog is not None
    assert dialog.directory().absolutePath() == str(Path.home())
    dialog.reject()


def test_the_suggested_name_is_a_file_name(desk: Desk) -> None:
    desk.start("../../etc: a <strange> beginning of a long, long text")
    desk.say([" a"])
    desk.engine.finish()
    desk.window.actions_.save_as.trigger()
    dialog = desk.window.files.dialog
    assert dialog is not None
    assert Path(dialog.selectedFiles()[0]).name == "etc a strange beginning of a.bhsession"
    dialog.reject()


def test_a_missing_recent_session_leaves_the_menu(desk: Desk, tmp_path: Path) -> None:
    desk.finished_run(5)
    for name in ("a.bhsession", "b.bhsession"):
        desk.save(tmp_path / name)
    (tmp_path / "b.bhsession").unlink()
    desk.window.actions_.recent_menu.actions()[0].trigger()
    desk.settle()
    failure = desk.window.errors.failure
    assert failure is not None
    assert failure.details == ""
    names = [action.text() for action in desk.window.actions_.recent_menu.actions()]
    assert names == ["a.bhsession"]


def test_a_session_that_cannot_be_shown_changes_nothing(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = desk.finished_run(5)
    path = tmp_path / "run.bhsession"
    desk.save(path)
    wrong = dataclasses.replace(session, model=dataclasses.replace(session.model, layers=3))
    monkeypatch.setattr(opening, "open_session", lambda _: wrong)
    assert not desk.open(path)
    assert desk.session.session is session
    assert desk.window.files.path == path
    # A later run is again a run without a file.
    desk.finished_run(6)
    assert desk.window.files.path is None


def test_parameters_that_do_not_fit_are_told(desk: Desk, tmp_path: Path) -> None:
    rule = RuleParameters(level=1e-7, temperature=0.12345, max_k=64)
    desk.start("Used", rule)
    desk.say([" a"])
    session = desk.engine.finish()
    assert session.sides == (None, rule)
    desk.save(tmp_path / "run.bhsession")
    assert desk.open(tmp_path / "run.bhsession")
    assert desk.window.errors.failure is None or not desk.window.errors.isVisible()
    rule = dataclasses.replace(rule, temperature=2e-7)
    desk.window.files.opened.emit(dataclasses.replace(session, sides=(None, rule)))
    failure = desk.window.errors.failure
    assert failure is not None
    assert failure.message == (
        "The controls cannot hold every value: temperature 2e-07 became 1e-06."
    )


def test_recent_sessions_open_from_the_menu(desk: Desk, tmp_path: Path, qtbot: QtBot) -> None:
    desk.finished_run(5)
    path = tmp_path / "a&b.bhsession"
    desk.save(path)
    desk.finished_run(7)
    desk.window.actions_.recent_menu.actions()[0].trigger()
    desk.settle()
    assert desk.window.files.path == path
    assert desk.session.sides.all_runs[1].token_count == 5


def test_opening_restores_the_parameters_that_were_used(desk: Desk, tmp_path: Path) -> None:
    desk.start("Used", RuleParameters(level=0.001, min_k=2))
    desk.say([" a"])
    desk.engine.finish()
    desk.save(tmp_path / "run.bhsession")
    desk.page.prompt.set_prompt("Other")
    desk.page.settings_panel.show_sides((None, RuleParameters()))
    desk.open(tmp_path / "run.bhsession")
    assert desk.page.prompt.prompt == "Used"
    assert desk.page.settings_panel.sides() == (None, RuleParameters(level=0.001, min_k=2))


def test_a_session_opens_at_its_beginning_and_stays_there(
    desk: Desk, make_desk: Callable[..., Desk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.finished_run(800)
    assert desk.save(tmp_path / "long.bhsession")
    other = make_desk(show=True)
    other.load()
    # What was on screen before was read at its end, and a token of it was looked at.
    other.finished_run(600)
    other.session.selection.select(1, 599)
    other.settle()
    assert other.open(tmp_path / "long.bhsession")
    bars = [panel.text.verticalScrollBar() for panel in (other.first, other.second)]

    def is_at_start() -> bool:
        other.page.clock.mark()
        other.page.clock.flush()
        QApplication.processEvents()
        return all(bar.maximum() > 0 and bar.value() == 0 for bar in bars)

    assert is_at_start()
    for size in ((1024, 640), (1600, 1000), (1280, 800)):
        other.window.resize(*size)
        assert is_at_start(), size
    other.theme.set_text_percent(110)
    assert is_at_start()
    monkeypatch.setattr(other.theme, "_system_colors", lambda: DARK)
    other.theme.follow_system()
    assert is_at_start()
    other.page.tinting.choose("rank")
    assert is_at_start()
    other.window.actions_.charts.trigger()
    other.window.actions_.settings.trigger()
    assert is_at_start()
    other.page.prompt.set_prompt("Another one")
    other.window.report(Failed("Something else went wrong.", "", ""))
    assert is_at_start()


def test_a_session_that_is_opened_before_the_window_is_shown_begins_at_its_beginning(
    desk: Desk, make_desk: Callable[..., Desk], tmp_path: Path
) -> None:
    desk.finished_run(800)
    assert desk.save(tmp_path / "long.bhsession")
    other = make_desk()
    assert other.open(tmp_path / "long.bhsession")
    other.window.show()
    other.qtbot.waitExposed(other.window)
    other.page.clock.flush()
    QApplication.processEvents()
    for panel in (other.first, other.second):
        bar = panel.text.verticalScrollBar()
        assert bar.maximum() > 0
        assert bar.value() == 0
