"""The page that compares answers: a prompt, the settings, the sides, numbers, charts.

Knows the models behind it; menus, the status line and the dialogs are the frame's.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Qt, Signal, Slot
from PySide6.QtGui import QKeyEvent, QResizeEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from bh_studio.engine.files.text import is_text
from bh_studio.engine.protocol.events import Failed
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.records.session import Session
from bh_studio.engine.rules import RuleParameters, format_rule
from bh_studio.engine.rules.sides import side_letter
from bh_studio.ui.compare.answers import Answers, new_splitter
from bh_studio.ui.compare.chart_row import ChartRow
from bh_studio.ui.compare.difference_line import DifferenceLine
from bh_studio.ui.compare.prompt_bar import PromptBar
from bh_studio.ui.compare.reading.text_opening import TextOpening
from bh_studio.ui.compare.run_strip import RunStrip
from bh_studio.ui.compare.settings_panel import SettingsPanel
from bh_studio.ui.compare.side_strip import SideStrip
from bh_studio.ui.place import Place
from bh_studio.ui.session_files import SessionFiles
from bh_studio.ui.state.conversation_model import ConversationModel
from bh_studio.ui.state.difference_stops import next_difference, no_difference_words
from bh_studio.ui.state.engine_model import EngineModel, EngineState
from bh_studio.ui.state.frame_clock import FIGURES_MS, TEXT_MS, FrameClock
from bh_studio.ui.state.inspection.inspection_model import InspectionModel
from bh_studio.ui.state.inspection.null_fits import NullFits
from bh_studio.ui.state.reading.kl_stops import next_kl_stop, no_kl_words
from bh_studio.ui.state.reading.written_kl import WrittenKl
from bh_studio.ui.state.session_model import RunState, SessionModel
from bh_studio.ui.state.tints.tinting import Tinting
from bh_studio.ui.state.words import misfit_words, waiting_words
from bh_studio.ui.widgets.theme import GAP, GAP_SMALL, Theme

if TYPE_CHECKING:
    from bh_studio.ui.inspector.token_inspector import TokenInspector

# From this height of the window on, a long notice may have more than one line.
_ROOMY_LINES = 43
# What charts have in each layout, where answers and numbers have 1000; none are folded.
READING, BALANCED, CHARTS = 0, 350, 2000
FOLDED_WORDS = "The charts have folded; F10 shows them."
# Below this height of the window the charts leave their room to the answers, unless they are asked
# for, in lines of text.
_FOLDED_LINES = 45
_MOST_OF_WIDTH = 0.42
# What the answers need beside each other, and while a token is inspected.
_LEAST_LETTERS, _LEAST_INSPECTED = 40, 96
# Of the page itself, in letters and lines.
_LEAST_WIDTH, _LEAST_HEIGHT = 48, 14


class ComparePage(Place):
    """A place of the window: reads the session model, changes it only through its commands.

    changed: something that a frame asks of it is another now. failed: with what to tell.
    settled: what was told before is no matter any more.
    charts_shown: whether they are on screen now.
    notified: something was done that cannot be seen. inspector_wanted: whether a person wants to
    see it. wants_charts: whether a person wants to see them; None leaves it to the room there is.
    settings_shown: whether the settings are on screen now.
    """

    changed = Signal()
    failed = Signal(object)
    settled = Signal()
    notified = Signal(str)
    inspector_wanted = Signal(bool)
    charts_shown = Signal(bool)
    settings_shown = Signal(bool)

    def __init__(
        self,
        engine: EngineModel,
        session: SessionModel,
        files: SessionFiles,
        theme: Theme,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._engine = engine
        self._session = session
        self._files = files
        self._theme = theme
        self.clock = FrameClock(self, TEXT_MS, FIGURES_MS)
        self.conversation = ConversationModel(session, self)
        self.prompt = PromptBar(theme)
        self.texts = TextOpening(engine.jobs, files.folder, self)
        self.runs = RunStrip(files.prompt_runs)
        self.settings_panel = SettingsPanel(theme)
        self.side_strip = SideStrip(self.settings_panel.side_list, theme)
        self.side_strip.hide()
        self.written_kl = WrittenKl(session, self)
        self.tinting = Tinting(session.sides, self.written_kl, self)
        self.answers = Answers(session.sides, self.tinting, theme)
        self.differences = DifferenceLine(session.sides, self.tinting, theme)
        self.nulls = NullFits(engine, self)
        self.charts = ChartRow(session.sides, self.nulls, self.written_kl, session.selection, theme)
        self.inspection = InspectionModel(engine, session.sides, session.selection, self)
        self._inspector: TokenInspector | None = None
        self.wants_settings = True
        self._settings_give_way = True
        self._is_narrow = False
        self.wants_charts: bool | None = None
        self._unfolded: list[int] = []
        self._lay_out()
        self._connect()
        theme.changed.connect(self._give_room)
        # Larger text leaves fewer lines in the same height.
        theme.changed.connect(self._fold_charts)
        self._paint_texts()
        self._paint_figures()
        self._sync()

    def _lay_out(self) -> None:
        upper = QWidget()
        above = QVBoxLayout(upper)
        above.setContentsMargins(0, 0, 0, 0)
        above.setSpacing(GAP_SMALL)
        above.addWidget(self.answers, 1)
        above.addWidget(self.differences)
        self._rows = rows = new_splitter(Qt.Orientation.Vertical, upper, self.charts.splitter)
        rows.setSizes([1000, BALANCED])
        self.splitters = {
            "answers": self.answers.splitter,
            "charts": self.charts.splitter,
            "rows": rows,
        }
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(GAP_SMALL)
        column.addWidget(self.prompt)
        column.addWidget(self.runs)
        column.addWidget(self.charts.over(rows), 1)
        # Where even its parts at their smallest have no room, nothing of it is out of reach.
        self._scrolled = QScrollArea()
        self._scrolled.setProperty("role", "sidebar")
        self._scrolled.setWidgetResizable(True)
        self._scrolled.setFrameShape(QFrame.Shape.NoFrame)
        self._scrolled.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._scrolled.setWidget(content)
        self._row = row = QHBoxLayout(self)
        row.setContentsMargins(GAP, 0, GAP, GAP_SMALL)
        row.setSpacing(GAP)
        row.addWidget(self.settings_panel)
        row.addWidget(self.side_strip)
        row.addWidget(self._scrolled, 1)
        mode = self.prompt.mode
        order = (mode.write_button, mode.read_button, self.prompt.editor, self.prompt.run_button,
                 self.prompt.stop_button, self.prompt.open_button, self.prompt.new_button,
                 self.prompt.examples)  # fmt: skip
        for before, after in itertools.pairwise(order):
            QWidget.setTabOrder(before, after)

    def _connect(self) -> None:
        session, engine = self._session, self._engine
        session.state_changed.connect(self._sync)
        session.session_changed.connect(self._sync)
        session.content_changed.connect(self.clock.mark)
        self.written_kl.changed.connect(self.clock.mark)
        engine.state_changed.connect(self._sync)
        engine.jobs.changed.connect(self._sync)
        engine.model_changed.connect(self._take_model)
        self.clock.frame.connect(self._paint_texts)
        self.clock.figures.connect(self._paint_figures)
        self.conversation.changed.connect(self._sync)
        self.conversation.message_taken.connect(self.prompt.drop)
        self.conversation.message_returned.connect(self.prompt.bring_back)
        self._files.changed.connect(self._sync)
        self._files.opened.connect(self._take_parameters)
        self._files.text_opened.connect(self._take_text)
        self.texts.read.connect(self.prompt.set_text)
        self.texts.failed.connect(self.failed)
        self.prompt.open_wanted.connect(self.texts.ask)
        self.prompt.mode.changed.connect(self.settings_panel.show_same_text)
        session.text_read.connect(self.answers.show_start)
        self._files.prompt_runs.shown.connect(self.answers.show_start)
        self.runs.settings_wanted.connect(self._take_settings)
        self.prompt.edited.connect(self._sync)
        self.prompt.run_button.clicked.connect(self.start)
        self.prompt.stop_button.clicked.connect(self.stop)
        self.prompt.new_button.clicked.connect(self.start_over)
        self.settings_panel.edited.connect(self._sync)
        self.side_strip.chosen.connect(self._show_side)
        for side, panel in enumerate(self.answers.panels):
            panel.difference_chosen.connect(partial(self.show_difference, side))
            panel.text.token_chosen.connect(partial(self._select, side))
            panel.text.token_opened.connect(partial(self._open, side))
            panel.text.token_hovered.connect(self.charts.point_at_token)
        self.tinting.changed.connect(self._sync)
        self.charts.failed.connect(self.failed)
        self.charts.opened.connect(partial(self.inspector_wanted.emit, True))
        session.selection.changed.connect(self._show_selection)
        self.settings_panel.side_list.changed.connect(self._show_sides)

    # --- what a frame asks of it ---

    @property
    def title(self) -> str:
        """What to call what is shown; empty if there is nothing."""
        return self._files.title

    @property
    def is_unsaved(self) -> bool:
        """Whether there is something that was not saved yet."""
        return self._files.can_save

    @property
    def is_busy(self) -> bool:
        """Whether something is in flight, whose end would come before another's beginning."""
        return self._session.is_busy

    @property
    def can_stop(self) -> bool:
        """Whether there is work in flight that was not asked to stop yet."""
        return self._session.can_stop or self._engine.can_cancel_load

    @property
    def can_start_over(self) -> bool | None:
        """Whether there is a conversation to leave; None where there are no conversations."""
        return self.conversation.can_start_over if self.settings_panel.is_chat else None

    def obstacle(self) -> str:
        """Why a run cannot start now, a sentence; empty if it can, or can wait for its model."""
        match self._session.state:
            case RunState.WAITING:
                return waiting_words(self._session.awaited)
            case RunState.RUNNING:
                if self._session.is_reading:
                    return "Reading: each side reads the whole text, one after the other."
                return "Running: the sides take turns, token by token."
            case RunState.CANCELLING:
                return "Stopping…"
        match self._engine.state:
            case EngineState.LOADING if not self._engine.can_cancel_load:
                return "The load is being cancelled."
            case EngineState.NO_MODEL:
                return "No model is loaded; choose one in the Model menu."
            case EngineState.UNLOADING:
                return "The model is being unloaded."
        is_same_text = self.prompt.mode.is_same_text
        what = "text" if is_same_text else "message" if self.settings_panel.is_chat else "prompt"
        if not self.prompt.prompt.strip():
            if is_same_text:
                return "Type or open a text first."
            return f"Type a {what} first."
        precedes = self.settings_panel.precedes(self.conversation.turns)
        system = precedes.system if precedes is not None else ""
        for name, text in ((what, self.prompt.prompt), ("system prompt", system)):
            if not is_text(text):
                return (
                    f"The {name} has half a character in it, which no model can read; take it out."
                )
        turns = precedes.turns if precedes is not None else ()
        return misfit_words(turns, len(self.settings_panel.sides())) or self.settings_panel.problem

    @Slot()
    def start(self) -> None:
        """Answer the prompt with the settings as they are, or have all sides read the text, if that
        is possible now."""
        if self.obstacle():
            return
        self.settled.emit()
        panel = self.settings_panel
        if self.prompt.mode.is_same_text:
            self._session.read(self.prompt.text, panel.sides())
            return
        precedes = panel.precedes(self.conversation.turns)
        self._session.run(self.prompt.prompt, panel.sides(), panel.generation(), precedes)

    def read_text(self, text: Text) -> None:
        """Have all sides read `text`, in place of what is in the editor."""
        self.prompt.set_text(text)
        self.start()

    @Slot()
    def start_reseeded(self) -> None:
        """Answer the prompt with a new seed, if that is possible now."""
        if not self.obstacle() and self.settings_panel.is_sampling:
            self.settings_panel.draw_seed()
            self.start()

    @Slot()
    def stop(self) -> None:
        """Ask for the end of the run; if there is none, of the load."""
        if self._session.can_stop:
            self._session.stop()
        else:
            self._engine.cancel_load()

    @Slot()
    def start_over(self) -> None:
        """Begin a new conversation."""
        self.conversation.start_over()

    def refresh(self) -> None:
        """Paint what changed, if anything did, without waiting for the next frame."""
        self.clock.flush()

    def sizes(self) -> dict[str, list[int]]:
        """The sizes of its splitters; while the charts are folded, the rows' as they were before,
        if they were on screen then."""
        sizes = super().sizes()
        if self.charts.splitter.isHidden():
            del sizes["rows"]
            if self._unfolded:
                sizes["rows"] = self._unfolded
        return sizes

    def take_focus(self) -> None:
        """Let typing begin where it begins here."""
        self.prompt.editor.setFocus()
        self._scrolled.ensureWidgetVisible(self.prompt)

    def minimumSizeHint(self) -> QSize:
        # Whatever is shown: what has no room then folds, and then scrolls.
        metrics = self.fontMetrics()
        return QSize(
            _LEAST_WIDTH * metrics.averageCharWidth(), _LEAST_HEIGHT * metrics.lineSpacing()
        )

    # --- its own affairs ---

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        has_room = self._lines() >= _ROOMY_LINES
        self.differences.notice.setWordWrap(has_room)
        self._give_room()
        self._fold_charts()

    @Slot(bool)
    def show_settings(self, is_wanted: bool) -> None:
        """Show the settings, or hide them; who asks for them where they made room gets them."""
        self.wants_settings = is_wanted
        self._settings_give_way = not self._is_narrow
        self._give_room()

    def focus_side(self, side: int) -> None:
        """Let keys go to the answer of `side`, if it is on screen."""
        self.answers.focus_side(side)
        self._scrolled.ensureWidgetVisible(self.answers.panels[side])

    @Slot(int)
    def _show_side(self, side: int) -> None:
        self.show_settings(True)
        self.settings_panel.side_list.choose(side)
        self.settings_panel.side_list.rows[side].button.setFocus()

    @Slot(bool)
    def show_charts(self, is_wanted: bool | None) -> None:
        """Show the charts, or leave their room to the answers; None where there is little room."""
        self.wants_charts = is_wanted
        self._fold_charts()

    @Slot(bool)
    def scroll_together(self, is_wanted: bool) -> None:
        """Scroll all answers with the one that is scrolled by hand, or each by itself."""
        self.answers.scrolls_together = is_wanted
        self.changed.emit()

    @Slot(bool)
    def tell_scrolling(self, is_together: bool) -> None:
        """Say how answers scroll from now on: nothing on screen shows it until one is scrolled."""
        how = "Answers scroll together." if is_together else "Each answer scrolls by itself."
        self.notified.emit(how)

    def give_charts(self, share: int) -> None:
        """Lay the page out with this share of its height for the charts."""
        self.charts.bring_back()
        self.show_charts(share > 0)
        if share:
            self._rows.setSizes([1000, share])

    @Slot()
    def reset_layout(self) -> None:
        """Lay the page out as at the first start."""
        self.charts.reset()
        self.answers.share_equally()
        self.give_charts(BALANCED)
        self.show_charts(None)
        self.inspector_wanted.emit(False)
        self.wants_settings = self._settings_give_way = True
        self._give_room()

    def _lines(self) -> float:
        """How many lines of text the window is high: no error above the page folds anything."""
        return self.window().height() / self.fontMetrics().lineSpacing()

    @property
    def lacks_height(self) -> bool:
        """Whether the charts have folded by themselves, for want of height."""
        return self.wants_charts is None and self.charts.splitter.isHidden()

    @Slot()
    def _fold_charts(self) -> None:
        has_room = self._lines() >= _FOLDED_LINES
        is_shown = has_room if self.wants_charts is None else self.wants_charts
        if is_shown == self.charts.splitter.isHidden():
            if not is_shown and self.wants_charts is None and self.isVisible():
                self.notified.emit(FOLDED_WORDS)
            if not is_shown and self._rows.isVisible():
                self._unfolded = self._rows.sizes()
            self.charts.splitter.setVisible(is_shown)
            if is_shown:
                self.charts.refresh()
        self.charts_shown.emit(is_shown)

    @property
    def inspector(self) -> TokenInspector:
        """Made when it is first asked for: the first frame of the window does not wait for it."""
        if self._inspector is None:
            from bh_studio.ui.inspector.token_inspector import TokenInspector

            made = TokenInspector(
                self.inspection, self._session.sides, self._session.selection, self._theme
            )
            made.hide()
            made.closed.connect(partial(self.inspector_wanted.emit, False))
            made.use_rule.connect(self._use_rule)
            made.add_rule.connect(self._add_rule)
            self._inspector = made
            self._row.addWidget(made)
            self._show_sides()
        return self._inspector

    @property
    def is_inspecting(self) -> bool:
        """Whether the inspector is open."""
        return self._inspector is not None and not self._inspector.isHidden()

    @Slot(bool)
    def show_inspector(self, is_wanted: bool) -> None:
        """Show what is known of the selected token, of the newest one if none is; or hide it."""
        runs = self._session.sides.runs
        if is_wanted and self._session.selection.place is None and runs and runs[-1].token_count:
            self._session.selection.select(len(runs) - 1, runs[-1].token_count - 1)
        if is_wanted or self._inspector is not None:
            place, focused = self._session.selection.place, self.window().focusWidget()
            if not is_wanted and place is not None and self.inspector.isAncestorOf(focused):
                # Qt would hand the keys on to whatever is next in the window.
                self.answers.focus_side(place.side)
            self.inspector.setVisible(is_wanted)
        self._settings_give_way = True
        self.inspection.watch(is_wanted)
        self._give_room()
        if is_wanted:
            self.inspector.refresh()

    @Slot()
    def _give_room(self) -> None:
        """Let the inspector and the settings leave room to the answers, and the settings fold where
        these would have too little."""
        most = round(self.width() * _MOST_OF_WIDTH)
        taken, least = self.settings_panel.sizeHint().width(), _LEAST_LETTERS
        self.settings_panel.setFixedWidth(min(taken, most))
        if self.is_inspecting:
            width = min(self.inspector.sizeHint().width(), most)
            self.inspector.setFixedWidth(width)
            taken, least = taken + width, _LEAST_INSPECTED
        self._is_narrow = self.width() - taken < least * self.fontMetrics().averageCharWidth()
        self._settings_give_way |= not self._is_narrow
        is_shown = self.wants_settings and not (self._is_narrow and self._settings_give_way)
        self.settings_panel.setVisible(is_shown)
        self.side_strip.setVisible(self.wants_settings and not is_shown)
        self.settings_shown.emit(is_shown)

    def _select(self, side: int, token: int) -> None:
        self._session.selection.select(side, token)

    def _open(self, side: int, token: int) -> None:
        self._select(side, token)
        self.inspector_wanted.emit(True)

    @Slot()
    def _show_selection(self) -> None:
        place = self._session.selection.place
        self.answers.show_token(-1 if place is None else place.token)

    def _use_rule(self, side: int, rule: RuleParameters) -> None:
        self.settings_panel.side_list.give(side, rule)
        self.notified.emit(f"Side {side_letter(side)} of the next run: {format_rule(rule)}")

    def _add_rule(self, rule: RuleParameters) -> None:
        side_list = self.settings_panel.side_list
        side_list.append(rule)
        letter = side_letter(side_list.current)
        self.notified.emit(f"Side {letter} of the next run: {format_rule(rule)}")

    @Slot()
    def _show_sides(self) -> None:
        if self._inspector is not None:
            sides = self.settings_panel.side_list.sides
            self._inspector.what_if.show_sides(len(sides))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        # While there is something to stop, the key is the menu's.
        if event.key() == Qt.Key.Key_Escape and self.charts.is_maximised:
            self.charts.bring_back()
            return
        if event.key() == Qt.Key.Key_Escape and self.answers.find_bar.isVisible():
            self.answers.find_bar.dismiss()
            return
        super().keyPressEvent(event)

    def show_difference(self, side: int) -> None:
        """Mark the first token in which `side` differs from the first side, in both panels."""
        token = self._session.sides.partings[side].token
        if token is not None:
            self._show_stop(side, token)

    def _show_stop(self, side: int, token: int) -> None:
        self._select(side, token)
        self.answers.panels[0].show_token(token)
        self.answers.panels[side].show_token(token)

    @Slot()
    def open_find_bar(self) -> None:
        """Ask what to find in the answers."""
        if self.charts.is_maximised:
            self.charts.bring_back()
        self.answers.find_bar.open()

    @Slot()
    def show_next_difference(self) -> None:
        """Mark the next token in which a side parts from the first; in a text that all have read,
        that with the next smaller KL."""
        self._step_to_difference(backwards=False)

    @Slot()
    def show_previous_difference(self) -> None:
        """Mark the previous token in which a side parts from the first; in a text that all have
        read, that with the next larger KL."""
        self._step_to_difference(backwards=True)

    def _step_to_difference(self, *, backwards: bool) -> None:
        sides, place = self._session.sides, self._session.selection.place
        token = place.token if place else None
        if (text := sides.same_text) is not None:
            stop, none = next_kl_stop(text, token, backwards=backwards), no_kl_words(text)
        else:
            stop = next_difference(sides, token, backwards=backwards)
            none = no_difference_words(sides)
        if stop is None:
            self.notified.emit(none)
            return
        for side in reversed(stop.sides):
            self._show_stop(side, stop.token)
        self.notified.emit(stop.words)

    @Slot()
    def _paint_texts(self) -> None:
        self.answers.refresh_texts()
        if (place := self._session.selection.place) is not None:
            # The others may have come to this token by now.
            self.answers.mark_token(place.token)

    @Slot()
    def _paint_figures(self) -> None:
        self.answers.refresh_numbers()
        self.differences.refresh()
        self.charts.refresh()
        if self.is_inspecting:
            self.inspector.refresh()

    @Slot()
    def _sync(self) -> None:
        prompt, panel = self.prompt, self.settings_panel
        prompt.show_obstacle(self.obstacle())
        self.answers.expect(len(panel.sides()), is_same_text=prompt.mode.is_same_text)
        prompt.stop_button.setEnabled(self.can_stop)
        prompt.show_chat(panel.is_chat, bool(self.conversation.turns))
        prompt.new_button.setEnabled(bool(self.can_start_over))
        self.changed.emit()

    @Slot()
    def _take_model(self) -> None:
        panel = self.settings_panel
        panel.set_model(self._engine.model)
        if (conversation := panel.precedes(self.conversation.turns)) is not None:
            self._session.take_as_message(conversation)

    @Slot(object)
    def _take_parameters(self, session: Session) -> None:
        self.prompt.mode.choose(False)
        # A message that has been answered is part of the conversation; the editor is for the next.
        is_part = session.continued != session.conversation
        self.prompt.set_prompt("" if is_part else session.prompt)
        self.settings_panel.show_conversation(session)
        self.answers.show_start()
        self.settled.emit()
        self._show_settings_of(session)

    @Slot()
    def _take_settings(self) -> None:
        if self._session.session is not None:
            self._show_settings_of(self._session.session)

    def _show_settings_of(self, session: Session) -> None:
        panel = self.settings_panel
        panel.show_sides(session.sides)
        panel.show_generation(session.generation)
        difference = panel.difference(session.sides, session.generation)
        if difference:
            self.failed.emit(
                Failed(difference, "The numbers on screen are those of the session.", "")
            )

    @Slot()
    def show_earlier_run(self) -> None:
        """Show the run of this prompt before the one on screen."""
        self._step_to_run(-1, "There is no earlier run of this prompt.")

    @Slot()
    def show_later_run(self) -> None:
        """Show the run of this prompt after the one on screen."""
        self._step_to_run(1, "There is no later run of this prompt.")

    def _step_to_run(self, by: int, otherwise: str) -> None:
        if not self._session.is_busy and not self._files.prompt_runs.step(by):
            self.notified.emit(otherwise)

    @Slot(object)
    def _take_text(self, result: SameTextResult) -> None:
        panel = self.settings_panel
        text = Text(result.text_name, "".join(result.token_texts))
        if text.sha256 == result.text_sha256:
            self.prompt.set_text(text)
        self.prompt.mode.choose(True)
        panel.show_sides(result.sides)
        self.answers.show_start()
        self.settled.emit()
        difference = panel.difference(result.sides)
        if difference:
            self.failed.emit(Failed(difference, "The numbers on screen are those of the file.", ""))
