"""Saving, opening, exporting and autosaving sessions, with dialogs that never block."""

from __future__ import annotations

import dataclasses
import logging
import re
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from PySide6.QtCore import QObject, Signal, Slot
from PySide6.QtWidgets import QFileDialog, QWidget

from bh_studio import paths
from bh_studio.engine.protocol.events import Failed
from bh_studio.engine.records.session import Session, SessionError
from bh_studio.engine.records.session_file import (
    SUFFIX,
    export_csv,
    export_json,
    load_session,
    save_session,
)
from bh_studio.settings import Settings
from bh_studio.ui.state.session_model import SessionModel

_log = logging.getLogger(__name__)

_MOST_AUTOSAVED = 100
_AUTOSAVED = re.compile(r"\d{4}-\d\d-\d\d \d\d-\d\d-\d\d-\d{3}" + re.escape(SUFFIX))
_SESSIONS = f"BH Studio sessions (*{SUFFIX})"


def autosave_dir() -> Path:
    """Where every finished run is kept, saved by the user or not."""
    return paths.data_dir() / "autosave"


class SessionFiles(QObject):
    """Knows which file the session on screen belongs to, and whether the user has saved it."""

    changed = Signal()
    failed = Signal(object)
    notified = Signal(str)
    opened = Signal(object)

    def __init__(self, session: SessionModel, settings: Settings, window: QWidget) -> None:
        super().__init__(window)
        self._session = session
        self._window = window
        self.dialog: QFileDialog | None = None
        self._is_opening = False
        self.settings = settings
        self.path: Path | None = None
        self.is_saved = False
        session.session_changed.connect(self._forget_path)
        session.run_finished.connect(self.autosave)

    @property
    def can_save(self) -> bool:
        """Whether there is a session that the user has not saved."""
        return self._session.session is not None and not self.is_saved

    @property
    def title(self) -> str:
        """What to call the session on screen."""
        if self.path is not None:
            return self.path.name
        return "Unsaved run" if self._session.session is not None else ""

    @Slot()
    def save(self) -> None:
        """Save to the session's own file; ask for one the first time."""
        if self._session.session is None:
            return
        if self.path is None:
            self.save_as()
        else:
            self.save_to(self.path)

    @Slot()
    def save_as(self) -> None:
        """Ask for a file and save to it."""
        if self._session.session is None:
            return
        dialog = self._new_dialog("Save session", _SESSIONS, SUFFIX)
        dialog.fileSelected.connect(self._save_chosen)
        dialog.open()

    def save_to(self, path: Path) -> bool:
        """Save to `path`; whether it worked."""
        session = self._session.session
        if session is None or not self._write(save_session, session, path):
            return False
        self._remember(path)
        self.notified.emit(f"Saved to {path}")
        return True

    @Slot()
    def open(self) -> None:
        """Ask for a session file and show it."""
        self._open_from(self._folder())

    @Slot()
    def open_autosaved(self) -> None:
        """Ask for one of the runs that were kept without being saved."""
        try:
            folder = autosave_dir()
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._fail(
                "The folder of autosaved runs cannot be opened.",
                f"{_reason(error)} Open session looks in every other folder.",
                error,
            )
            return
        self._open_from(folder)

    def open_path(self, path: Path) -> bool:
        """Show the session in `path`; a bad file changes nothing. Whether it worked."""
        if self._session.is_busy:
            return False
        try:
            session = load_session(path)
            self._is_opening = True
            self._session.show_session(session)
        except (SessionError, OSError, ValueError, TypeError, OverflowError) as error:
            self._fail(
                f"{path.name} could not be opened.", f"{_reason(error)} Nothing was changed.", error
            )
            if isinstance(error, FileNotFoundError):
                self._drop_recent(path)
            return False
        finally:
            self._is_opening = False
        if path.parent == autosave_dir():
            # Autosaved files have no name of the user's yet.
            self.path, self.is_saved = None, False
            self.changed.emit()
        else:
            self._remember(path)
        self.opened.emit(session)
        self.notified.emit(f"Opened {path}")
        return True

    @Slot()
    def export_json(self) -> None:
        """Ask for a file and write the statistics to it as JSON."""
        dialog = self._new_export_dialog("JSON (*.json)", ".json")
        if dialog is not None:
            dialog.fileSelected.connect(self._export_json_chosen)
            dialog.open()

    @Slot()
    def export_csv(self) -> None:
        """Ask for a file and write every expert count to it as CSV."""
        dialog = self._new_export_dialog("CSV (*.csv)", ".csv")
        if dialog is not None:
            dialog.fileSelected.connect(self._export_csv_chosen)
            dialog.open()

    @Slot(object)
    def autosave(self, session: Session) -> None:
        """Keep a finished run, so that nothing has to be asked before it leaves the screen."""
        if not any(record.token_ids for record in session.records):
            return
        stamp = datetime.now().astimezone().strftime("%Y-%m-%d %H-%M-%S-%f")[:-3]
        if self._write(save_session, session, autosave_dir() / f"{stamp}{SUFFIX}"):
            _remove_oldest(autosave_dir())

    def _open_from(self, folder: Path) -> None:
        if self._session.is_busy:
            return
        dialog = self._new_dialog("Open session", _SESSIONS, "")
        dialog.setDirectory(str(folder))
        dialog.fileSelected.connect(self._open_chosen)
        dialog.open()

    def _new_export_dialog(self, words: str, suffix: str) -> QFileDialog | None:
        if self._session.session is None:
            return None
        return self._new_dialog("Export statistics", words, suffix)

    def _new_dialog(self, title: str, words: str, suffix: str) -> QFileDialog:
        if self.dialog is not None:
            self.dialog.deleteLater()
        dialog = QFileDialog(self._window, title, str(self._folder()), words)
        if suffix:
            dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
            dialog.setDefaultSuffix(suffix.removeprefix("."))
            dialog.selectFile(self._suggested_name() + suffix)
        else:
            dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        self.dialog = dialog
        return dialog

    @Slot(str)
    def _save_chosen(self, name: str) -> None:
        self.save_to(Path(name))

    @Slot(str)
    def _open_chosen(self, name: str) -> None:
        self.open_path(Path(name))

    @Slot(str)
    def _export_json_chosen(self, name: str) -> None:
        self._export_to(Path(name), export_json)

    @Slot(str)
    def _export_csv_chosen(self, name: str) -> None:
        self._export_to(Path(name), export_csv)

    def _export_to(self, path: Path, writer: Callable[[Session, Path], None]) -> None:
        # The menu's item decides what is written; the name of the file is the user's affair.
        session = self._session.session
        if session is not None and self._write(writer, session, path):
            self.notified.emit(f"Exported to {path}")

    @Slot()
    def _forget_path(self) -> None:
        if not self._is_opening:
            self.path, self.is_saved = None, False
            self.changed.emit()

    def _remember(self, path: Path) -> None:
        self.path, self.is_saved = path, True
        settings = self.settings.with_recent(path.absolute())
        self.settings = dataclasses.replace(settings, session_folder=str(path.parent.absolute()))
        self.changed.emit()

    def _drop_recent(self, path: Path) -> None:
        gone = {str(path), str(path.absolute())}
        kept = tuple(other for other in self.settings.recent_sessions if other not in gone)
        if kept != self.settings.recent_sessions:
            self.settings = dataclasses.replace(self.settings, recent_sessions=kept)
            self.changed.emit()

    def _folder(self) -> Path:
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

    def _suggested_name(self) -> str:
        if self.path is not None:
            return self.path.stem
        session = self._session.session
        turns = session.conversation.turns if session and session.conversation else ()
        prompt = turns[0].prompt if turns else session.prompt if session else ""
        plain = " ".join(prompt.split()[:6])
        name = "".join(letter for letter in plain if letter.isalnum() or letter in " -_").strip()
        # Each turn has counts of its own, so a later one should not replace it unasked.
        return (name[:48] or "session") + (f" - turn {len(turns) + 1}" if turns else "")

    def _write(self, writer: Callable[[Session, Path], None], session: Session, path: Path) -> bool:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            writer(session, path)
        except OSError as error:
            advice = f"{_reason(error)} The run stays on screen; save it elsewhere."
            self._fail(f"{path.name} could not be written.", advice, error)
            return False
        return True

    def _fail(self, message: str, advice: str, error: Exception) -> None:
        # A file that is missing or refused is explained by its sentence.
        is_explained = isinstance(error, OSError | SessionError)
        details = "" if is_explained else "".join(traceback.format_exception(error))
        _log.error("%s %s", message, advice, exc_info=error)
        self.failed.emit(Failed(message, advice, details))


def _remove_oldest(folder: Path) -> None:
    """Keep the newest autosaved runs in `folder`; their names are the times they were made."""
    try:
        names = sorted(path.name for path in folder.iterdir() if _AUTOSAVED.fullmatch(path.name))
        for name in names[:-_MOST_AUTOSAVED]:
            (folder / name).unlink(missing_ok=True)
            _log.info("Removed the autosaved run %s; the newest %d stay.", name, _MOST_AUTOSAVED)
    except OSError as error:
        _log.warning("Old autosaved runs could not be removed: %s", error)


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text if text.endswith((".", "!", "?")) else text + "."
