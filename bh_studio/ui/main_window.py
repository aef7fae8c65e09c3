"""The window: puts the panels in their places and connects them. No logic of its own."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Slot
from PySide6.QtGui import QCloseEvent
from PySide6.QtWidgets import (
    QHBoxLayout,
    QMainWindow,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from bh_studio.engine.protocol.events import Failed, LoadProgress, LoadRefused
from bh_studio.engine.records.session import Session
from bh_studio.settings import Settings
from bh_studio.ui.actions import Actions
from bh_studio.ui.charts.heat_map import HeatMap
from bh_studio.ui.charts.layer_chart import LayerChart
from bh_studio.ui.compare.answer_panel import AnswerPanel
from bh_studio.ui.compare.prompt_bar import PromptBar
from bh_studio.ui.compare.settings_panel import SettingsPanel
from bh_studio.ui.compare.statistics_strip import StatisticsStrip
from bh_studio.ui.error_strip import ErrorStrip, Remedy
from bh_studio.ui.help_dialogs import about_dialog, reading_dialog
from bh_studio.ui.models.model_commands import ModelCommands
from bh_studio.ui.session_files import SessionFiles
from bh_studio.ui.state.conversation_model import ConversationModel
from bh_studio.ui.state.downloads import Downloads
from bh_studio.ui.state.frame_clock import FrameClock
from bh_studio.ui.state.session_model import SessionModel, State
from bh_studio.ui.status_line import StatusLine
from bh_studio.ui.widgets.icons import window_icon
from bh_studio.ui.widgets.theme import GAP, GAP_SMALL, Theme

if TYPE_CHECKING:
    from bh_studio.ui.state.hub_statuses import HubStatuses

_FIRST_SIZE = (1280, 800)


class MainWindow(QMainWindow):
    """Everything the user sees. Reads the session model; changes it only through its commands."""

    def __init__(
        self,
        model: SessionModel,
        theme: Theme,
        settings: Settings,
        downloads: Downloads | None = None,
        statuses: HubStatuses | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.theme = theme
        self._closing = False
        self.setWindowIcon(window_icon())
        self.clock = FrameClock(self)
        self.conversation = ConversationModel(model, self)
        self.files = SessionFiles(model, settings, self)
        self.models = ModelCommands(model, theme, settings, self, downloads, statuses)
        self.actions_ = Actions(self)
        self.prompt = PromptBar(theme)
        self.settings_panel = SettingsPanel(theme)
        self.errors = ErrorStrip(theme)
        self.baseline = AnswerPanel(
            model.baseline, theme, "The answer with the model's own routing will appear here."
        )
        self.bh = AnswerPanel(
            model.bh, theme, "The answer with Benjamini-Hochberg routing will appear here."
        )
        self.statistics = StatisticsStrip(model.baseline, model.bh, theme)
        self.layers = LayerChart(model.bh, theme)
        self.heat_map = HeatMap(model.bh, theme)
        self.status = StatusLine(self)
        self.setStatusBar(self.status)
        self._lay_out()
        self._connect_model()
        self._connect_actions()
        self.resize(*_FIRST_SIZE)
        self.refresh()
        self._sync()

    # --- layout ---

    def _lay_out(self) -> None:
        answers = _splitter(Qt.Orientation.Horizontal, self.baseline, self.bh)
        charts = _splitter(Qt.Orientation.Horizontal, self.layers, self.heat_map)
        lower = QWidget()
        below = QVBoxLayout(lower)
        below.setContentsMargins(0, 0, 0, 0)
        below.setSpacing(GAP_SMALL)
        below.addWidget(self.statistics)
        below.addWidget(charts, 1)
        rows = _splitter(Qt.Orientation.Vertical, answers, lower)
        rows.setSizes([1000, 1050])
        self.splitters = {"answers": answers, "charts": charts, "rows": rows}
        main = QWidget()
        column = QVBoxLayout(main)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(GAP_SMALL)
        column.addWidget(self.prompt)
        column.addWidget(self.errors)
        column.addWidget(rows, 1)
        body = QWidget()
        row = QHBoxLayout(body)
        row.setContentsMargins(GAP, GAP, GAP, GAP_SMALL)
        row.setSpacing(GAP)
        row.addWidget(self.settings_panel)
        row.addWidget(main, 1)
        self.setCentralWidget(body)
        order = (self.prompt.editor, self.prompt.run_button, self.prompt.stop_button,
                 self.prompt.new_button, self.prompt.examples)  # fmt: skip
        for before, after in itertools.pairwise(order):
            QWidget.setTabOrder(before, after)
        self.prompt.editor.setFocus()

    # --- wiring ---

    def _connect_model(self) -> None:
        self.model.state_changed.connect(self._sync)
        self.model.model_changed.connect(self._show_model)
        self.model.session_changed.connect(self._sync)
        self.model.load_progressed.connect(self._show_progress)
        self.model.content_changed.connect(self.clock.mark)
        self.model.load_refused.connect(self._show_refusal)
        self.model.failed.connect(self.errors.show_failure)
        self.models.failed.connect(self.errors.show_failure)
        self.models.notified.connect(self.status.notify)
        self.models.downloads.changed.connect(self._show_downloads)
        self.status.download_chosen.connect(self.models.open_dialog)
        self.clock.frame.connect(self.refresh)
        self.conversation.changed.connect(self._sync)
        self.conversation.message_taken.connect(self.prompt.drop)
        self.conversation.message_returned.connect(self.prompt.bring_back)
        self.files.changed.connect(self._sync)
        self.files.failed.connect(self.errors.show_failure)
        self.files.notified.connect(self.status.notify)
        self.files.opened.connect(self._take_parameters)

    def _connect_actions(self) -> None:
        actions = self.actions_
        for action, slot in (
            (actions.run, self.start_run),
            (actions.stop, self.model.stop),
            (actions.new_conversation, self.conversation.start_over),
            (actions.open, self.files.open),
            (actions.open_autosaved, self.files.open_autosaved),
            (actions.save, self.files.save),
            (actions.save_as, self.files.save_as),
            (actions.export_json, self.files.export_json),
            (actions.export_csv, self.files.export_csv),
            (actions.quit, self.close),
            (actions.models, self.models.open_dialog),
            (actions.load_embedded, self.models.load_embedded),
            (actions.load_folder, self.models.ask_for_folder),
            (actions.unload, self.model.unload),
            (actions.save_calibration, self.models.ask_where_to_save),
            (actions.enlarge, self.theme.enlarge_text),
            (actions.shrink, self.theme.shrink_text),
            (actions.reset_text, self.theme.reset_text),
            (actions.reading, self._show_reading),
            (actions.about, self._show_about),
        ):
            action.triggered.connect(slot)
        actions.settings.toggled.connect(self.settings_panel.setVisible)
        actions.recent_chosen.connect(self._open_recent)
        self.prompt.run_button.clicked.connect(actions.run.trigger)
        self.prompt.stop_button.clicked.connect(actions.stop.trigger)
        self.prompt.new_button.clicked.connect(actions.new_conversation.trigger)
        self.prompt.edited.connect(self._sync)
        self.settings_panel.edited.connect(self._sync)
        self.baseline.difference_chosen.connect(self.show_difference)
        self.bh.difference_chosen.connect(self.show_difference)
        self.bh.text.token_hovered.connect(self.heat_map.point_at_token)

    # --- what the user asks for ---

    @Slot()
    def start_run(self) -> None:
        """Answer the prompt with the settings as they are, if that is possible now."""
        if self.obstacle():
            return
        self.errors.dismiss()
        panel = self.settings_panel
        precedes = panel.precedes(self.conversation.turns)
        self.model.run(self.prompt.prompt, panel.rule(), panel.generation(), precedes)

    @Slot()
    def show_difference(self) -> None:
        """Mark the first token in which the texts differ, in both panels."""
        index = self.model.first_difference
        if index is not None:
            self.baseline.show_token(index)
            self.bh.show_token(index)

    @Slot()
    def refresh(self) -> None:
        """Paint what changed since the last frame."""
        for panel in (self.baseline, self.bh):
            panel.refresh(self.model.first_difference, self.model.compared_tokens)
        self.statistics.refresh()
        self.layers.refresh()
        self.heat_map.refresh()

    def closeEvent(self, event: QCloseEvent) -> None:
        if self.model.is_busy:
            # What has been written so far is kept: the engine ends the run, then the window closes,
            # however often it was asked to.
            self._closing = True
            self.model.stop()
            self.status.notify("Ending the run, then closing…")
            event.ignore()
            return
        event.setAccepted(not self.files.delay_closing())

    # --- keeping in step ---

    @Slot()
    def _sync(self) -> None:
        model, actions, state = self.model, self.actions_, self.model.state
        obstacle = self.obstacle()
        has_session = model.session is not None
        actions.run.setEnabled(not obstacle)
        actions.stop.setEnabled(model.can_stop)
        actions.save.setEnabled(self.files.can_save)
        for action in (actions.save_as, actions.export_json, actions.export_csv):
            action.setEnabled(has_session)
        for action in (actions.open, actions.open_autosaved):
            action.setEnabled(not model.is_busy)
        for action in (actions.load_embedded, actions.load_folder):
            action.setEnabled(model.is_settled)
        for action in (actions.unload, actions.save_calibration):
            action.setEnabled(state is State.READY)
        actions.show_recent(self.files.settings.recent_sessions if not model.is_busy else ())
        self.prompt.run_button.setEnabled(not obstacle)
        self.prompt.run_button.setToolTip(obstacle or actions.run.toolTip())
        self.prompt.stop_button.setEnabled(model.can_stop)
        is_chat = self.settings_panel.is_chat
        actions.new_conversation.setVisible(is_chat)
        actions.new_conversation.setEnabled(is_chat and self.conversation.can_start_over)
        self.prompt.show_chat(is_chat, bool(self.conversation.turns))
        self.prompt.new_button.setEnabled(actions.new_conversation.isEnabled())
        if state is State.LOADING:
            self.errors.withdraw_remedy()
            if not model.can_stop:
                self.status.show_progress(LoadProgress("Cancelling the load…"))
        else:
            self.status.show_state(obstacle or "Ready")
        title = self.files.title
        self.setWindowTitle(f"{title}[*] – BH Studio" if title else "BH Studio[*]")
        self.setWindowModified(self.files.can_save)
        if self._closing and not model.is_busy:
            self.close()

    def obstacle(self) -> str:
        """Why a run cannot start now, a sentence; empty if it can."""
        state = self.model.state
        if state is State.LOADING:
            return "The model is loading."
        if state is State.NO_MODEL:
            return "No model is loaded; choose one in the Model menu."
        if state is State.UNLOADING:
            return "The model is being unloaded."
        if state is State.RUNNING:
            return "Running: the sides take turns, token by token."
        if state is State.CANCELLING:
            return "Stopping…"
        if not self.prompt.prompt.strip():
            what = "message" if self.settings_panel.is_chat else "prompt"
            return f"Type a {what} first."
        return self.settings_panel.problem

    @Slot(object)
    def _show_progress(self, progress: LoadProgress) -> None:
        self.status.show_progress(progress)

    @Slot()
    def _show_model(self) -> None:
        self.status.show_model(self.model.model)
        self.settings_panel.set_model(self.model.model)

    @Slot(object)
    def _show_refusal(self, refused: LoadRefused) -> None:
        self.errors.show_failure(
            Failed(refused.message, refused.advice, ""),
            Remedy(
                "Load anyway",
                "Load although the memory seems too small: the system may slow down or end "
                "programs",
                partial(self.model.load_anyway, refused),
            ),
        )

    @Slot()
    def _show_downloads(self) -> None:
        self.status.show_downloads(self.models.downloads.running)

    @Slot(object)
    def _take_parameters(self, session: Session) -> None:
        # The message of a chat has been answered; what the editor is for is the next one.
        self.prompt.set_prompt("" if session.conversation is not None else session.prompt)
        self.settings_panel.show_conversation(session)
        self.settings_panel.show_rule(session.rule)
        self.settings_panel.show_generation(session.generation)
        self.errors.dismiss()
        difference = self.settings_panel.difference(session.rule, session.generation)
        if difference:
            self.errors.show_failure(
                Failed(difference, "The numbers on screen are those of the session.", "")
            )

    @Slot(object)
    def _open_recent(self, path: Path) -> None:
        self.files.open_path(path)

    @Slot()
    def _show_reading(self) -> None:
        reading_dialog(self).show()

    @Slot()
    def _show_about(self) -> None:
        about_dialog(self, self.model.model).show()

    @Slot(object)
    def report(self, failure: Failed) -> None:
        """Show a failure that did not come from the engine."""
        self.errors.show_failure(failure)


def _splitter(orientation: Qt.Orientation, *widgets: QWidget) -> QSplitter:
    splitter = QSplitter(orientation)
    splitter.setChildrenCollapsible(False)
    splitter.setHandleWidth(GAP_SMALL)
    for widget in widgets:
        splitter.addWidget(widget)
        splitter.setStretchFactor(splitter.count() - 1, 1)
    # Equal shares; Qt scales them to the room there is.
    splitter.setSizes([1000] * splitter.count())
    return splitter
