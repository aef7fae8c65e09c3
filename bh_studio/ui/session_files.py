"""Saving, opening and exporting what is on screen, with dialogs that never block.

Reads and writes no file itself: the engine does, in a thread of its own.
"""

from __future__ import annotations

import dataclasses
import logging
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PySide6.QtCore import QObject, Signal, Slot
from PySide6.QtWidgets import QFileDialog, QWidget

from bh_studio import paths
from bh_studio.engine.errors import as_sentence
from bh_studio.engine.protocol.events import Failed, JobCancelled, ResultRead, SessionRead
from bh_studio.engine.protocol.requests import WriteResult, WriteSession
from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.records.session import SUFFIX, Session
from bh_studio.settings import Settings
from bh_studio.ui.state.file_jobs import FileJobs
from bh_studio.ui.state.prompt_runs import PromptRuns
from bh_studio.ui.state.session_model import SessionModel
from bh_studio.ui.widgets.file_name import fitting, name_from

_log = logging.getLogger(__name__)

_SESSIONS = f"BH Studio sessions (*{SUFFIX})"
# What all sides made of a text is a result, as the terminal's.
_RESULT_SUFFIX = ".json"
_RESULTS = f"BH Studio results (*{_RESULT_SUFFIX})"
_OPENED = f"Sessions and texts that were read (*{SUFFIX} *{_RESULT_SUFFIX})"


class _Seen(NamedTuple):
    """What was on screen when somebody asked to save it: while a dialog is open, a run that has
    waited may begin. As SessionModel has it."""

    session: Session | None
    text: SameTextResult | None
    document: dict[str, Any] | None


class SessionFiles(QObject):
    """Knows which file belongs to what is on screen, a session or a text that all sides have read,
    and whether the user has saved it.

    write_failed: what the user asked for could not be written; failed: anything else. written: it
    is. opened: a session is; text_opened: what sides made of a text is. settled: what was asked for
    is done: nothing is being opened or written any more.
    """

    changed = Signal()
    failed = Signal(object)
    write_failed = Signal(object)
    written = Signal()
    notified = Signal(str)
    opened = Signal(object)
    text_opened = Signal(object)
    settled = Signal()

    def __init__(self, session: SessionModel, settings: Settings, window: QWidget) -> None:
        super().__init__(window)
        self._session = session
        self._window = window
        self.dialog: QFileDialog | None = None
        self._jobs = FileJobs(session.engine.jobs, self)
        self._is_showing = False
        self._closes_window = False
        self.settings = settings
        self.path: Path | None = None
        self.is_saved = False
        session.session_changed.connect(self._forget_path)
        session.state_changed.connect(self._give_way_to_run)
        session.run_broken_off.connect(self.show_broken_off)
        self.prompt_runs = PromptRuns(session, self._jobs, self)
        self.prompt_runs.shown.connect(self._take_shown)
        self.prompt_runs.failed.connect(self.failed)
        self._jobs.write_failed.connect(self._take_write_failure)
        # In this order: whoever waits for what is under way finds the window still open.
        self._jobs.settled.connect(self.settled)
        self._jobs.settled.connect(self._close_awaited)

    @property
    def is_under_way(self) -> bool:
        """Whether a file is being opened or written."""
        return self._jobs.is_under_way

    @property
    def can_save(self) -> bool:
        """Whether there is something that the user has not saved."""
        return self.can_export and not self.is_saved

    @property
    def can_export(self) -> bool:
        """Whether there is something to save: of a text that was stopped, what the sides before
        made of it, which its file says."""
        screen = self._session
        return screen.session is not None or screen.document is not None

    @property
    def obstacle(self) -> str:
        """Why there is nothing to save, a sentence; empty if there is."""
        if self.can_export:
            return ""
        if self._session.is_busy:
            return "A run is in flight; it can be saved at its end."
        if self._session.sides.is_same_text:
            return "No side has read the text, so there is nothing to save."
        return "There is nothing to save yet."

    @property
    def title(self) -> str:
        """What to call what is on screen."""
        if self.path is not None:
            return self.path.name
        if self._session.document is not None:
            return "Unsaved text"
        return "Unsaved run" if self._session.session is not None else ""

    @Slot()
    def save(self) -> None:
        """Save to its own file; ask for one the first time."""
        if not self.can_export:
            return
        if self.path is None:
            self.save_as()
        elif self.is_saved:
            self.notified.emit(f"Already saved in {self.path.name}.")
        else:
            self.save_to(self.path)

    @Slot()
    def save_as(self) -> None:
        """Ask for a file and save to it."""
        if not self.can_export:
            return
        if self._session.session is None:
            dialog = self._new_dialog("Save text", _RESULTS, _RESULT_SUFFIX)
        else:
            dialog = self._new_dialog("Save session", _SESSIONS, SUFFIX)
        dialog.fileSelected.connect(partial(self._save_chosen, self._seen()))
        dialog.open()

    def save_to(self, path: Path) -> None:
        """Save what is on screen now to `path`."""
        self._save(self._seen(), path)

    def _seen(self) -> _Seen:
        screen = self._session
        return _Seen(screen.session, screen.sides.same_text, screen.document)

    def _save(self, seen: _Seen, path: Path) -> None:
        form = _RESULT_SUFFIX if seen.session is None else SUFFIX
        saved = seen.session or seen.document
        self._write(seen, path, form, partial(self._take_saved, saved, path))

    def _write(self, seen: _Seen, path: Path, form: str, done: Callable[[], None]) -> None:
        """Have `seen` written in one of its forms; `done` is called once it is there."""
        session, text, document = seen
        if session is not None:
            self._jobs.write(WriteSession(session, path, form), done)
        elif text is not None and document is not None:
            self._jobs.write(WriteResult(text, document, path, form), done)

    @Slot()
    def open(self) -> None:
        """Ask for a file and show it."""
        if self._session.is_busy:
            return
        dialog = self._new_dialog("Open", _OPENED, "")
        dialog.fileSelected.connect(self._open_chosen)
        dialog.open()

    def open_path(self, path: Path) -> None:
        """Show what is in `path`, a file or the folder of a run, once it is read, as soon as there
        is an engine that can.

        A bad file changes nothing. Of several files asked for, the last is shown; none is while a
        run is in flight, or when one begins before it is read.
        """
        if self._session.is_busy:
            advice = "A run is in flight; open it again after the run."
            self.failed.emit(Failed(f"{path.name} was not opened.", advice, ""))
        else:
            self._jobs.read(path, partial(self._take_read, path))

    @Slot(object)
    def show_broken_off(self, folder: Path) -> None:
        """Show what a run had said that an error has ended, so that it can be saved."""
        self._jobs.read(folder, partial(self._take_broken_off, folder))

    def delay_closing(self) -> bool:
        """Whether files are still being written; the window is closed when all of them are, and
        stays if one cannot be."""
        self._closes_window = self._jobs.is_writing
        if self._closes_window:
            self.notified.emit("Saving, then closing…")
        return self._closes_window

    @Slot()
    def export_json(self) -> None:
        """Ask for a file and write the statistics to it as JSON."""
        self._ask_to_export("JSON (*.json)", ".json")

    @Slot()
    def export_csv(self) -> None:
        """Ask for a file and write every expert count to it as CSV."""
        self._ask_to_export("CSV (*.csv)", ".csv")

    @Slot()
    def export_experts(self) -> None:
        """Ask for a file and write which experts ran to it, as arrays."""
        self._ask_to_export("NumPy (*.npz)", ".npz")

    def _ask_to_export(self, words: str, form: str) -> None:
        if not self.can_export:
            return
        dialog = self._new_dialog("Export statistics", words, form)
        # The menu's item decides what is written; the name of the file is the user's affair.
        dialog.fileSelected.connect(partial(self._export_chosen, self._seen(), form))
        dialog.open()

    def _new_dialog(self, title: str, words: str, suffix: str) -> QFileDialog:
        if self.dialog is not None:
            self.dialog.deleteLater()
        dialog = QFileDialog(self._window, title, str(self.folder()), words)
        if suffix:
            dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
            dialog.setDefaultSuffix(suffix.removeprefix("."))
            dialog.selectFile(self._suggested_name(suffix))
        else:
            dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        self.dialog = dialog
        return dialog

    def _save_chosen(self, seen: _Seen, name: str) -> None:
        self._save(seen, Path(name))

    @Slot(str)
    def _open_chosen(self, name: str) -> None:
        self.open_path(Path(name))

    def _export_chosen(self, seen: _Seen, form: str, name: str) -> None:
        self._write(seen, Path(name), form, partial(self._take_exported, Path(name)))

    def _take_read(
        self, path: Path, event: SessionRead | ResultRead | Failed | JobCancelled
    ) -> None:
        match event:
            case SessionRead(session):
                self._show(path, partial(self._session.show_session, session))
            case ResultRead(result, document):
                self._show(path, partial(self._session.show_text, result, document))
            case Failed():
                self.failed.emit(event)
                if _is_missing(path):
                    self._drop_recent(path)

    def _take_broken_off(
        self, folder: Path, event: SessionRead | ResultRead | Failed | JobCancelled
    ) -> None:
        # What went wrong is told already.
        if isinstance(event, SessionRead) and not self._session.is_busy:
            self._session.show_session(event.session)
            self.prompt_runs.note_opened(event.session, folder, None)
            self.notified.emit("What was answered before the error is kept, and can be saved.")

    def _show(self, path: Path, show: Callable[[], None]) -> None:
        self._is_showing = True
        try:
            show()
        except (ValueError, TypeError, OverflowError) as error:
            advice = f"{as_sentence(error)} Nothing was changed."
            self._fail(f"{path.name} could not be opened.", advice, error)
            return
        finally:
            self._is_showing = False
        is_kept = _is_kept(path)
        # What is kept has no name of the user's yet.
        self.path, self.is_saved = (None, False) if is_kept else (path, True)
        if not is_kept:
            self._remember(path)
        session = self._session.session
        if session is not None:
            self.prompt_runs.note_opened(session, path, self.path)
        self.changed.emit()
        if session is not None:
            self.opened.emit(session)
        else:
            self.text_opened.emit(self._session.sides.same_text)
        self.notified.emit("Opened a kept run" if is_kept else f"Opened {path}")

    @Slot()
    def _give_way_to_run(self) -> None:
        """What a run writes is not replaced by a file that was asked for before it."""
        path = self._jobs.give_up_reading() if self._session.is_busy else None
        if path is not None:
            advice = "A run began before it was read; open it again after the run."
            self.failed.emit(Failed(f"{path.name} was not opened.", advice, ""))

    def _take_saved(self, saved: object, path: Path) -> None:
        if saved is (self._session.session or self._session.document):
            self.path, self.is_saved = path, True
            self.prompt_runs.note_saved(path)
        self._remember(path)
        self.changed.emit()
        self.written.emit()
        self.notified.emit(f"Saved to {path}")

    @Slot(object)
    def _take_shown(self, saved: Path | None) -> None:
        self.path, self.is_saved = saved, saved is not None
        self.changed.emit()

    def _take_exported(self, path: Path) -> None:
        self.written.emit()
        self.notified.emit(f"Exported to {path}")

    @Slot(object)
    def _take_write_failure(self, failure: Failed) -> None:
        # What could not be written is still on screen.
        self._closes_window = False
        self.write_failed.emit(failure)

    @Slot()
    def _close_awaited(self) -> None:
        if self._closes_window:
            self._closes_window = False
            self._window.close()

    @Slot()
    def _forget_path(self) -> None:
        if not self._is_showing:
            self.path, self.is_saved = None, False
            self.changed.emit()

    def _remember(self, path: Path) -> None:
        settings = self.settings.with_recent(path.absolute())
        self.settings = dataclasses.replace(settings, session_folder=str(path.parent.absolute()))

    def _drop_recent(self, path: Path) -> None:
        gone = {str(path), str(path.absolute())}
        kept = tuple(other for other in self.settings.recent_sessions if other not in gone)
        if kept != self.settings.recent_sessions:
            self.settings = dataclasses.replace(self.settings, recent_sessions=kept)
            self.changed.emit()

    def folder(self) -> Path:
        """Where the user is likely to look for a file."""
        chosen = Path(self.settings.session_folder) if self.settings.session_folder else None
        try:
            if chosen is not None and chosen.is_dir():
                return chosen
        except OSError as error:
            _log.warning("The remembered folder cannot be used: %s", error)
        try:
            folder = paths.data_dir() / "sessions"
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            _log.warning("The sessions' folder cannot be made: %s", error)
            return Path.home()
        return folder

    def _suggested_name(self, suffix: str) -> str:
        if self.path is not None:
            return fitting(self.path.stem, suffix)
        session, text = self._session.session, self._session.sides.same_text
        if text is not None:
            return fitting(name_from(Path(text.text_name).stem, "text"), suffix)
        turns = session.conversation.turns if session and session.conversation else ()
        prompt = turns[0].prompt if turns else session.prompt if session else ""
        # Each turn has counts of its own, so a later one should not replace it unasked.
        ending = f" - turn {len(turns) + 1}{suffix}" if turns else suffix
        return fitting(name_from(prompt, "session"), ending)

    def _fail(self, message: str, advice: str, error: Exception) -> None:
        # A folder that is missing or refused is explained by its sentence.
        details = "" if isinstance(error, OSError) else "".join(traceback.format_exception(error))
        _log.error("%s %s", message, advice, exc_info=error)
        self.failed.emit(Failed(message, advice, details))


def _is_kept(path: Path) -> bool:
    """Whether `path` is a run that nobody has saved: a folder, which is no session file wherever it
    lies, or one of the files of earlier versions."""
    return path.is_dir() or path.resolve().is_relative_to(paths.autosave_dir().resolve())


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False
