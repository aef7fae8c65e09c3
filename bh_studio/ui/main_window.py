"""The window: menus, the status line, errors and dialogs around a stack of places. No logic."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QSignalBlocker, QSize, Qt, Slot
from PySide6.QtGui import QAction, QCloseEvent, QGuiApplication, QKeyEvent, QKeySequence
from PySide6.QtWidgets import (
    QHBoxLayout,
    QMainWindow,
    QStackedWidget,
    QStyle,
    QVBoxLayout,
    QWidget,
)

from bh_studio import paths
from bh_studio.engine.protocol.events import Failed, LoadProgress, LoadRefused, TextRefused
from bh_studio.engine.rules.sides import MOST_SIDES
from bh_studio.settings import Settings
from bh_studio.ui.actions import Actions
from bh_studio.ui.compare.page import BALANCED, CHARTS, FOLDED_WORDS, READING, ComparePage
from bh_studio.ui.error_strip import Cause, ErrorStrip, Remedy
from bh_studio.ui.help_dialogs import about_dialog, reading_dialog
from bh_studio.ui.models.model_commands import ModelCommands
from bh_studio.ui.place import Place
from bh_studio.ui.rail import Rail
from bh_studio.ui.session_files import SessionFiles
from bh_studio.ui.state.engine_model import EngineModel, EngineState
from bh_studio.ui.state.kept_runs import KeptRuns
from bh_studio.ui.state.models.downloads import Downloads
from bh_studio.ui.state.run_words import began_words, ended_words
from bh_studio.ui.state.session_model import SessionModel
from bh_studio.ui.status_line import StatusLine
from bh_studio.ui.widgets.announcement import announce
from bh_studio.ui.widgets.icons import window_icon
from bh_studio.ui.widgets.theme import GAP, GAP_SMALL, Theme

if TYPE_CHECKING:
    from bh_studio.engine.protocol.experiments import Comparison
    from bh_studio.engine.records.runs.kept import KeptRun
    from bh_studio.ui.history.page import HistoryPage
    from bh_studio.ui.state.models.hub_statuses import HubStatuses

_FIRST_SIZE = QSize(1280, 800)


class MainWindow(QMainWindow):
    """The frame of what the user sees. place: what is in it now. history: once it was looked at."""

    def __init__(
        self,
        engine: EngineModel,
        session: SessionModel,
        theme: Theme,
        settings: Settings,
        downloads: Downloads | None = None,
        statuses: HubStatuses | None = None,
    ) -> None:
        super().__init__()
        self.engine = engine
        self.session = session
        self.theme = theme
        self._closing = False
        self.setWindowIcon(window_icon())
        self.files = SessionFiles(session, settings, self)
        self.models = ModelCommands(engine, theme, settings, self, downloads, statuses)
        self.actions_ = Actions(self)
        self.errors = ErrorStrip(theme)
        self.kept_strip = ErrorStrip(theme)
        self.kept = KeptRuns(
            engine.jobs,
            paths.history_dir(),
            paths.autosave_dir(),
            int(settings.most_history_gb * 1e9),
            self,
        )
        self.rail = Rail(self.actions_.places, theme)
        self.compare = ComparePage(engine, session, self.files, theme)
        self.history: HistoryPage | None = None
        self.place: Place = self.compare
        self.status = StatusLine(self)
        self.setStatusBar(self.status)
        self._lay_out()
        self._keep_size()
        theme.changed.connect(self._keep_size)
        self.place.take_focus()
        self._connect_models()
        self._connect_compare()
        self._connect_actions()
        self.resize(_FIRST_SIZE.boundedTo(self._room()))
        self._sync()

    def _lay_out(self) -> None:
        self._stack = QStackedWidget()
        self._stack.addWidget(self.compare)
        messages = QVBoxLayout()
        messages.setContentsMargins(GAP, 0, GAP, 0)
        messages.setSpacing(GAP_SMALL)
        messages.addWidget(self.kept_strip)
        messages.addWidget(self.errors)
        column = QVBoxLayout()
        column.setContentsMargins(0, GAP, 0, 0)
        column.setSpacing(GAP_SMALL)
        column.addLayout(messages)
        column.addWidget(self._stack, 1)
        self._frame = QWidget()
        row = QHBoxLayout(self._frame)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self.rail)
        row.addLayout(column, 1)
        self.setCentralWidget(self._frame)

    # --- wiring ---

    def _connect_models(self) -> None:
        self.engine.state_changed.connect(self._sync)
        self.engine.jobs.changed.connect(self._sync)
        self.engine.model_changed.connect(self._show_model)
        self.engine.load_progressed.connect(self._show_progress)
        self.engine.load_refused.connect(self._show_refusal)
        self.engine.failed.connect(self._show_model_failure)
        self.engine.calibration_saved.connect(self._settle_model)
        self.session.failed.connect(self._show_run_failure)
        self.session.run_accepted.connect(self._take_accepted)
        self.session.run_finished.connect(self._tell_finished)
        self.session.text_read.connect(self._tell_finished)
        self.models.failed.connect(self.errors.show_failure)
        self.models.notified.connect(self.status.notify)
        self.models.downloads.changed.connect(self._show_downloads)
        self.status.download_chosen.connect(self.show_models)
        self.files.failed.connect(self.errors.show_failure)
        self.files.write_failed.connect(self._show_write_failure)
        self.files.written.connect(self._settle_writing)
        self.files.opened.connect(self._take_opened)
        self.files.text_opened.connect(self._take_opened)
        self.compare.texts.read.connect(self._bring_compare_back)
        self.files.notified.connect(self.status.notify)
        self.files.prompt_runs.changed.connect(self._sync)
        self.kept.failed.connect(self.errors.show_failure)
        self.kept.cut_off.connect(self._offer_cut_off)
        self.kept.exceeded.connect(self._offer_room)

    def _connect_compare(self) -> None:
        self.compare.changed.connect(self._sync)
        self.compare.prompt.edited.connect(self._withdraw_beginning)
        self.compare.failed.connect(self.errors.show_failure)
        self.compare.settled.connect(self._settle_former)

    def _connect_actions(self) -> None:
        actions = self.actions_
        for action, slot in (
            (actions.compare, self.show_compare),
            (actions.history, self.show_history),
            (actions.models, self.show_models),
            (actions.run, self._start),
            (actions.stop, self.compare.stop),
            (actions.new_conversation, self.compare.start_over),
            (actions.reseed, self.compare.start_reseeded),
            (actions.earlier_run, self.compare.show_earlier_run),
            (actions.later_run, self.compare.show_later_run),
            (actions.add_side, self.compare.settings_panel.side_list.add),
            (actions.remove_side, self.compare.settings_panel.side_list.remove_current),
            (actions.open, self.files.open),
            (actions.open_text, self.compare.texts.ask),
            (actions.save, self.files.save),
            (actions.save_as, self.files.save_as),
            (actions.export_json, self.files.export_json),
            (actions.export_csv, self.files.export_csv),
            (actions.export_experts, self.files.export_experts),
            (actions.quit, self.close),
            (actions.find, self.compare.open_find_bar),
            (actions.next_difference, self.compare.show_next_difference),
            (actions.previous_difference, self.compare.show_previous_difference),
            (actions.load_embedded, self.models.load_embedded),
            (actions.load_folder, self.models.ask_for_folder),
            (actions.unload, self.engine.unload),
            (actions.save_calibration, self.models.ask_where_to_save),
            (actions.layout_reading, partial(self.compare.give_charts, READING)),
            (actions.layout_balanced, partial(self.compare.give_charts, BALANCED)),
            (actions.layout_charts, partial(self.compare.give_charts, CHARTS)),
            (actions.layout_reset, self.compare.reset_layout),
            (actions.enlarge, self.theme.enlarge_text),
            (actions.shrink, self.theme.shrink_text),
            (actions.reset_text, self.theme.reset_text),
            (actions.reading, self._show_reading),
            (actions.about, self._show_about),
        ):
            action.triggered.connect(slot)
        actions.same_text.toggled.connect(self.compare.prompt.mode.choose)
        actions.same_text.triggered.connect(self._edit_prompt)
        self.compare.prompt.mode.changed.connect(actions.show_same_text)
        actions.view_menu.insertMenu(actions.scroll_together, self.compare.differences.tint_menu)
        actions.scroll_together.toggled.connect(self.compare.scroll_together)
        # Not at the start, when it is only set as it was.
        actions.scroll_together.triggered.connect(self.compare.tell_scrolling)
        actions.settings.toggled.connect(self.compare.show_settings)
        for side, action in enumerate(actions.sides):
            action.triggered.connect(partial(self.compare.focus_side, side))
        # Not when it is only kept in step with what the page does by itself.
        actions.charts.triggered.connect(self.compare.show_charts)
        self.compare.charts_shown.connect(actions.charts.setChecked)
        self.compare.charts_shown.connect(self._show_folding)
        self.status.charts_wanted.connect(actions.charts.trigger)
        actions.inspector.toggled.connect(self.compare.show_inspector)
        self.compare.settings_shown.connect(self._note_settings)
        self.compare.inspector_wanted.connect(actions.inspector.setChecked)
        self.compare.notified.connect(self.status.notify)
        actions.recent_chosen.connect(self._open_recent)

    # --- its size ---

    def _room(self) -> QSize:
        """The largest size with which the whole window is on the screen."""
        if QGuiApplication.platformName() == "offscreen":
            # Qt makes up a screen of 800 by 800, which says nothing of a picture of the window.
            return QSize(_FIRST_SIZE)
        bar = self.style().pixelMetric(QStyle.PixelMetric.PM_TitleBarHeight)
        return self.screen().availableSize() - QSize(0, bar)

    @Slot()
    def _keep_size(self) -> None:
        """Let no number, notice or error make the window larger than the person has made it, and
        no size of text larger than the screen."""
        least = self.compare.minimumSizeHint() + QSize(self.rail.width(), 0)
        bars = self.menuBar().sizeHint().height() + self.status.sizeHint().height()
        self._frame.setMinimumSize(least.boundedTo(self._room() - QSize(0, bars)))

    # --- what the user asks for ---

    @Slot()
    def show_compare(self) -> None:
        """Go to the answers."""
        self._go_to(self.compare, self.actions_.compare)

    @Slot()
    def show_history(self) -> None:
        """Go to the runs that are kept."""
        if self.history is None:
            # Not at the top: the window's first frame shows nothing of it.
            from bh_studio.ui.history.page import HistoryPage

            self.history = HistoryPage(self.kept)
            self.history.chosen.connect(self._open_recent)
            self.history.show_busy(self.compare.is_busy)
            self.session.run_finished.connect(self._refresh_history)
            self.session.run_lost.connect(self._refresh_history)
        self._go_to(self.history, self.actions_.history)

    @Slot()
    def show_models(self) -> None:
        """Go to the models."""
        self._go_to(self.models.page, self.actions_.models)

    def _go_to(self, place: Place, action: QAction) -> None:
        action.setChecked(True)
        if self._stack.indexOf(place) < 0:
            self._stack.addWidget(place)
        self._stack.setCurrentWidget(place)
        self.place = place
        # Elsewhere it goes back to Compare, and ends nothing that is not to be seen.
        keys = QKeySequence("Esc") if place is self.compare else QKeySequence()
        self.actions_.stop.setShortcut(keys)
        place.take_focus()
        self._show_folding()
        self._sync()

    @Slot()
    def _edit_prompt(self) -> None:
        """What is typed next is meant for what the prompt is now."""
        self._bring_compare_back()
        self.compare.prompt.editor.setFocus()

    @Slot()
    def _start(self) -> None:
        self._bring_compare_back()
        self.compare.start()

    @Slot()
    def _bring_compare_back(self) -> None:
        if self.place is not self.compare:
            self.show_compare()

    @Slot(object)
    def _open_recent(self, path: Path) -> None:
        self.files.open_path(path)

    @Slot()
    def _refresh_history(self) -> None:
        if self.place is self.history:
            self.kept.refresh()

    @Slot(object)
    def _offer_cut_off(self, runs: tuple[KeptRun, ...]) -> None:
        from bh_studio.ui.history.rows import cut_off_words

        show = partial(self.files.open_path, runs[0].path)
        self.kept_strip.show_failure(
            Failed(cut_off_words(runs), "What had been answered by then is kept.", ""),
            Remedy("Show it", "Show the run as far as it came", show),
        )

    @Slot()
    def _offer_room(self) -> None:
        from bh_studio.ui.history.rows import surplus_words

        # What was cut off goes first, and who looks at the runs is told there.
        if self.kept_strip.failure is None and self.place is not self.history:
            self.kept_strip.show_failure(
                Failed(surplus_words(self.kept), "Nothing is removed unless you say so.", ""),
                Remedy("Look at them", "Go to the kept runs", self.show_history),
            )

    @Slot()
    def _show_reading(self) -> None:
        reading_dialog(self).show()

    @Slot()
    def _show_about(self) -> None:
        about_dialog(self, self.engine.model).show()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        # While there is something to stop, the key is the menu's.
        strips = (strip for strip in (self.errors, self.kept_strip) if strip.failure is not None)
        if event.key() == Qt.Key.Key_Escape and (strip := next(strips, None)) is not None:
            strip.dismiss()
            return
        if event.key() == Qt.Key.Key_Escape and self.place is not self.compare:
            self._bring_compare_back()
            return
        if event.key() == Qt.Key.Key_Escape and self.actions_.inspector.isChecked():
            self.actions_.inspector.setChecked(False)
            return
        super().keyPressEvent(event)

    def closeEvent(self, event: QCloseEvent) -> None:
        if self.compare.is_busy:
            self.compare.stop()
        # What has only waited is gone by now.
        if self.compare.is_busy:
            # What has been written so far is kept: the engine ends the run, then the window closes,
            # however often it was asked to.
            self._closing = True
            self.status.notify("Ending the run, then closing…")
            event.ignore()
            return
        # Files that cannot be written keep it open, until it is asked again.
        self._closing = False
        event.setAccepted(not self.files.delay_closing())

    # --- keeping in step ---

    @Slot(bool)
    def _note_settings(self, are_shown: bool) -> None:
        # The page has made room; that is no wish of a person, who would be asked to repeat it.
        with QSignalBlocker(self.actions_.settings):
            self.actions_.settings.setChecked(are_shown)

    @Slot()
    def _show_folding(self) -> None:
        is_seen = self.place is self.compare
        self.status.show_folded(is_seen and self.compare.lacks_height)
        if not self.compare.lacks_height and self.status.notice == FOLDED_WORDS:
            self.status.clear_notice()

    @Slot()
    def _sync(self) -> None:
        page, engine, actions = self.compare, self.engine, self.actions_
        can_run, sides = not page.obstacle(), len(page.settings_panel.sides())
        actions.run.setEnabled(can_run)
        is_seen = self.place is page
        for action in actions.of_compare:
            action.setEnabled(is_seen)
        actions.reseed.setEnabled(is_seen and can_run and page.settings_panel.is_sampling)
        for action in (actions.earlier_run, actions.later_run):
            action.setEnabled(is_seen and self.files.prompt_runs.can_change)
        actions.add_side.setEnabled(is_seen and sides < MOST_SIDES)
        actions.remove_side.setEnabled(is_seen and sides > 1)
        for side, action in enumerate(actions.sides):
            action.setVisible(side < len(page.answers.shown))
        actions.stop.setEnabled(page.can_stop)
        actions.new_conversation.setVisible(page.can_start_over is not None)
        actions.new_conversation.setEnabled(is_seen and bool(page.can_start_over))
        # What is saved already is told to be; the key would say nothing of an action at rest.
        actions.give_saving(self.files.obstacle)
        # Which experts ran is not kept of a text that all sides have read.
        actions.export_experts.setEnabled(self.session.session is not None)
        actions.open.setEnabled(not page.is_busy)
        if self.history is not None:
            self.history.show_busy(page.is_busy)
        actions.show_recent(() if page.is_busy else self.files.settings.recent_sessions)
        for action in (actions.load_embedded, actions.load_folder):
            action.setEnabled(engine.is_settled)
        for action in (actions.unload, actions.save_calibration):
            action.setEnabled(engine.is_ready)
        if engine.state is EngineState.LOADING:
            self.errors.withdraw_remedy()
            if not engine.can_cancel_load:
                self.status.show_progress(LoadProgress("Cancelling the load…"))
            elif engine.load_progress is not None:
                self._show_progress(engine.load_progress)
        else:
            self.status.show_state(page.obstacle() or "Ready")
        self.setWindowTitle(f"{page.title}[*] – BH Studio" if page.title else "BH Studio[*]")
        self.setWindowModified(page.is_unsaved)
        if self._closing and not page.is_busy:
            self.close()

    @Slot(object)
    def _show_progress(self, progress: LoadProgress) -> None:
        if self.compare.is_busy:
            # Nothing can be in flight while a model loads but what waits for it.
            words = f"{progress.stage}  ·  {self.compare.obstacle()}"
            progress = LoadProgress(words, progress.fraction)
        self.status.show_progress(progress)

    @Slot()
    def _show_model(self) -> None:
        self.status.show_model(self.engine.model)
        if self.engine.model is not None:
            self._settle_model()
            if self.models.is_on_screen:
                self._bring_compare_back()

    @Slot(object)
    def _show_refusal(self, refused: LoadRefused) -> None:
        self.errors.show_failure(
            Failed(refused.message, refused.advice, ""),
            Remedy(
                "Load anyway",
                "Load although the memory seems too small: the system may slow down or end "
                "programs",
                partial(self.engine.load_anyway, refused),
            ),
            Cause.MODEL,
        )

    @Slot(object)
    def _show_model_failure(self, failure: Failed) -> None:
        self.errors.show_failure(failure, cause=Cause.MODEL)

    @Slot(object)
    def _show_run_failure(self, failure: Failed) -> None:
        remedy = None
        if isinstance(failure, TextRefused):
            remedy = Remedy(
                "Read its beginning",
                "Put as much of the text as fits in its place, and have all sides read that; "
                "Ctrl+Z in the text brings it all back",
                partial(self._read_beginning, failure),
            )
        self.errors.show_failure(failure, remedy, Cause.RUN)

    def _read_beginning(self, refused: TextRefused) -> None:
        self._bring_compare_back()
        if obstacle := self.compare.obstacle():
            self._show_run_failure(refused)
            self.status.notify(obstacle)
            return
        self.compare.read_text(refused.beginning)

    @Slot()
    def _withdraw_beginning(self) -> None:
        """What was refused is not what stands there any more."""
        if isinstance(self.errors.failure, TextRefused):
            self.errors.dismiss()

    @Slot(object)
    def _show_write_failure(self, failure: Failed) -> None:
        self.errors.show_failure(failure, cause=Cause.WRITING)

    @Slot()
    def _settle_model(self) -> None:
        self.errors.settle(Cause.MODEL)

    @Slot()
    def _settle_writing(self) -> None:
        self.errors.settle(Cause.WRITING)

    @Slot()
    def _settle_run(self) -> None:
        self.errors.settle(Cause.RUN)

    @Slot(object)
    def _take_accepted(self, run: Comparison) -> None:
        self._settle_run()
        announce(self, began_words(len(run.sides)))

    @Slot()
    def _tell_finished(self) -> None:
        announce(self, ended_words(self.session.sides))

    @Slot()
    def _take_opened(self) -> None:
        self._settle_run()
        self._bring_compare_back()

    @Slot()
    def _settle_former(self) -> None:
        # What could not be written still is not, and a run that was refused may be again.
        self.errors.settle(Cause.MODEL, Cause.OTHER)

    @Slot()
    def _show_downloads(self) -> None:
        self.status.show_downloads(self.models.downloads.running)

    @Slot(object)
    def report(self, failure: Failed) -> None:
        """Show a failure that did not come from the engine."""
        self.errors.show_failure(failure)
