"""Every run is kept: the window lists them, offers one that was cut off, shows one that failed."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from pytestqt.qtbot import QtBot

from bh_studio import paths
from bh_studio.engine.records.runs.kept import KeptRun
from bh_studio.engine.records.runs.lines import EVENTS
from bh_studio.engine.records.runs.reader import load_run
from bh_studio.engine.records.session_file import load_session, save_session
from bh_studio.engine.records.terms import Conversation, FinishReason
from bh_studio.settings import Settings
from bh_studio.ui.history import rows
from bh_studio.ui.history.page import HistoryPage
from bh_studio.ui.history.rows import surplus_words
from tests.fake_engine import CHAT_MODEL
from tests.ui.conftest import Desk


@pytest.fixture
def keeping(desk: Desk) -> Desk:
    desk.engine.history = paths.history_dir()
    return desk


def the_folder() -> Path:
    (folder,) = paths.history_dir().glob("*/*/*")
    return folder


def cut_off(folder: Path) -> None:
    """Leave `folder` as a program that was killed does."""
    lines = (folder / EVENTS).read_bytes().splitlines(keepends=True)
    (folder / EVENTS).write_bytes(b"".join(lines[:-4]) + lines[-4][:20])
    (folder / f".{EVENTS}.lock").write_bytes(b"")


def test_a_run_that_fails_can_be_saved_and_exported(keeping: Desk, tmp_path: Path) -> None:
    desk = keeping
    desk.start("Once")
    desk.say([" upon", " a", " time"])
    failure = desk.engine.fail()
    desk.settle()
    assert desk.window.errors.failure == failure
    assert desk.second.numbers.values["Status"] == "Broken off"
    assert desk.second.text.toPlainText() == "Once upon a time"
    assert desk.page.prompt.prompt == "Once"
    assert desk.window.files.can_save
    assert desk.save(tmp_path / "a.bhsession")
    record = load_session(tmp_path / "a.bhsession").records[1]
    assert record.finish_reason is FinishReason.BROKEN_OFF
    assert record.text == " upon a time"
    desk.finished_run(3)
    assert desk.window.errors.failure is None


def test_a_run_that_fails_before_its_first_token_leaves_nothing(keeping: Desk) -> None:
    keeping.start("Once")
    keeping.engine.begin()
    keeping.engine.fail()
    keeping.settle()
    assert keeping.session.session is None
    assert not paths.history_dir().exists()


def test_a_message_whose_answer_broke_off_is_to_be_asked_again(
    make_desk: Callable[..., Desk],
) -> None:
    desk = make_desk(answering=CHAT_MODEL)
    desk.engine.history = paths.history_dir()
    desk.load()
    desk.page.prompt.set_prompt("Who are you?")
    desk.page.start()
    desk.say([" I", " am"])
    desk.engine.fail()
    desk.settle()
    assert desk.page.prompt.prompt == "Who are you?"
    assert desk.page.conversation.turns == ()
    session = desk.session.session
    assert session is not None
    assert session.conversation == Conversation()
    assert desk.open(the_folder())
    assert desk.page.prompt.prompt == "Who are you?"


def look_through(desk: Desk) -> None:
    """Have the window look, and wait for the answer."""
    desk.window.kept.look_through()
    desk.qtbot.waitUntil(lambda: not desk.engine.has_files_left)


def shown(page: HistoryPage) -> list[list[str]]:
    model = page.table.model()
    return [
        [model.index(row, column).data() for column in range(model.columnCount())]
        for row in range(model.rowCount())
    ]


def listed(desk: Desk) -> None:
    desk.qtbot.waitUntil(lambda: not desk.window.kept.is_listing)


def open_page(desk: Desk) -> HistoryPage:
    desk.window.actions_.history.trigger()
    listed(desk)
    page = desk.window.history
    assert page is not None
    assert page.isVisible()
    return page


def test_the_kept_runs_are_listed_found_and_opened(keeping: Desk, qtbot: QtBot) -> None:
    desk = keeping
    desk.start("Once upon\na time")
    desk.say([" there"])
    former = desk.engine.finish()
    desk.start("Another prompt")
    desk.say([" a"])
    desk.engine.finish(FinishReason.STOPPED)
    paths.autosave_dir().mkdir(parents=True)
    older = dataclasses.replace(former, prompt="Older", started_at="2020-01-02T03:04:05+00:00")
    save_session(older, paths.autosave_dir() / "2020-01-02 03-04-05-006.bhsession")
    page = open_page(desk)
    lines = shown(page)
    assert sorted(row[1] for row in lines[:2]) == ["Another prompt", "Once upon↵a time"]
    assert lines[2][1:] == ["Older", "bh:0.05", "olmoe-nano", "Complete"]
    assert {row[4] for row in lines} == {"Complete", "Stopped"}
    assert page.count.text() == f"3 runs in {paths.history_dir()}"
    qtbot.keyClicks(page.wanted, "UPON")
    ((_, prompt, *_),) = shown(page)
    assert prompt == "Once upon↵a time"
    qtbot.keyClick(page.wanted, Qt.Key.Key_Return)
    desk.settle()
    assert desk.session.session is not None
    assert desk.session.session.to_json() == former.to_json()
    assert desk.window.files.can_save
    page.wanted.clear()
    assert len(shown(page)) == 3
    desk.start("A third")
    desk.window.actions_.history.trigger()
    assert not page.open_button.isEnabled()
    desk.say([" a"])
    desk.engine.finish()
    listed(desk)
    assert len(shown(page)) == 4
    assert page.open_button.isEnabled()


def test_the_list_follows_each_run_while_it_is_on_screen(keeping: Desk) -> None:
    desk = keeping
    desk.finished_run(3)
    page = open_page(desk)
    desk.start("Once")
    open_page(desk)
    desk.say([" upon"])
    desk.engine.fail()
    listed(desk)
    assert sorted(row[4] for row in shown(page)) == ["Complete", "Failed"]
    desk.window.actions_.compare.trigger()
    desk.finished_run(3)
    # Nobody sees it, and to list a thousand runs takes a while.
    assert not desk.window.kept.is_listing
    assert len(shown(open_page(desk))) == 3


def test_the_words_of_a_row_are_made_once(keeping: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        keeping.finished_run(3)
    made: list[KeptRun] = []

    def counted(run: KeptRun) -> tuple[str, ...]:
        made.append(run)
        return real(run)

    real = rows._cells
    monkeypatch.setattr(rows, "_cells", counted)
    page = open_page(keeping)
    page.wanted.setText("o")
    page.table.sortByColumn(1, Qt.SortOrder.AscendingOrder)
    page.wanted.clear()
    assert len(shown(page)) == len(made) == 5


@pytest.mark.parametrize("way", ["copied", "linked"])
def test_the_folder_of_a_run_is_nobodys_file_wherever_it_lies(
    keeping: Desk, tmp_path: Path, way: str
) -> None:
    keeping.finished_run(3)
    folder = tmp_path / "elsewhere"
    if way == "copied":
        shutil.copytree(the_folder(), folder)
    else:
        folder.symlink_to(the_folder())
    assert keeping.open(folder)
    files = keeping.window.files
    assert files.path is None
    assert files.can_save
    assert files.title == "Unsaved run"
    assert folder.absolute() not in map(Path, files.settings.recent_sessions)


def test_without_runs_the_list_says_so(desk: Desk) -> None:
    page = open_page(desk)
    assert page.count.text() == "No run has been kept yet."
    assert not page.open_button.isEnabled()


def test_a_run_that_was_cut_off_is_offered_once(
    keeping: Desk, make_desk: Callable[..., Desk], qtbot: QtBot
) -> None:
    keeping.start("Once upon\na time")
    keeping.say([" there", " was", " a", " cat"])
    keeping.engine.finish()
    cut_off(the_folder())
    desk = make_desk(show=True)
    look_through(desk)
    strip = desk.window.kept_strip
    assert strip.failure is not None
    assert strip.failure.message.endswith(
        " was cut off by the end of the program: “Once upon↵a time”"
    )
    # A load says nothing against it.
    desk.load()
    assert strip.isVisible()
    qtbot.mouseClick(strip.remedy_button, Qt.MouseButton.LeftButton)
    desk.settle()
    assert not strip.isVisible()
    session = desk.session.session
    assert session is not None
    assert session.to_json() == load_run(the_folder()).to_json()
    assert session.records[0].finish_reason is FinishReason.BROKEN_OFF
    assert desk.page.prompt.prompt == "Once upon\na time"
    again = make_desk()
    look_through(again)
    assert again.window.kept_strip.failure is None


def test_escape_takes_the_offer_away(desk: Desk, qtbot: QtBot) -> None:
    desk.engine.history = paths.history_dir()
    desk.finished_run(4)
    cut_off(the_folder())
    desk.window.show()
    look_through(desk)
    assert desk.window.kept_strip.isVisible()
    qtbot.keyClick(desk.window, Qt.Key.Key_Escape)
    assert desk.window.kept_strip.failure is None


def test_more_than_is_wanted_is_told_and_removed_when_a_person_says_so(
    make_desk: Callable[..., Desk], qtbot: QtBot
) -> None:
    desk = make_desk(Settings(most_history_gb=5e-6), show=True)
    desk.engine.history = paths.history_dir()
    desk.load()
    for tokens in (8, 9, 10):
        desk.finished_run(tokens)
    look_through(desk)
    strip = desk.window.kept_strip
    assert strip.failure is not None
    assert strip.failure.message.startswith("Kept runs take ")
    assert strip.failure.message.endswith(" kB; the settings want at most 5.0 kB.")
    qtbot.mouseClick(strip.remedy_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not desk.engine.has_files_left)
    page = desk.window.history
    assert page is not None
    assert page.surplus.text() == surplus_words(desk.window.kept)
    size = desk.window.kept.size
    assert size is not None
    assert 1 <= size.surplus <= 3
    for answer in ("Cancel", "Remove"):
        assert len(list(paths.history_dir().glob("*/*/*"))) == 3
        qtbot.mouseClick(page.remove_button, Qt.MouseButton.LeftButton)
        assert page.question is not None
        (button,) = (b for b in page.question.buttons() if b.text().replace("&", "") == answer)
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: not desk.engine.has_files_left)
    listed(desk)
    assert len(shown(page)) == 3 - size.surplus
    assert not page.remove_button.isVisible()
    assert not strip.isVisible()
