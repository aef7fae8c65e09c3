"""One answer with its numbers. Observes a run and does not know which side it is."""

from __future__ import annotations

from time import monotonic

from PySide6.QtCore import QEvent, QObject, Qt, Signal, Slot
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QStackedLayout,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from bh_studio.engine.records.terms import FinishReason
from bh_studio.ui.compare.time_left import TimeLeft
from bh_studio.ui.compare.token_text import TokenText
from bh_studio.ui.state.models.words import format_duration
from bh_studio.ui.state.reading.side_numbers import kl_words, limit_words, perplexity_words
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.state.run_sides import Parting
from bh_studio.ui.state.tints.tinting import Tinting
from bh_studio.ui.widgets.elided_controls import ElidedButton
from bh_studio.ui.widgets.elided_label import ElidedLabel
from bh_studio.ui.widgets.icons import icon
from bh_studio.ui.widgets.number_line import NumberLine
from bh_studio.ui.widgets.theme import GAP, GAP_SMALL, GAP_TINY, Theme
from bh_studio.ui.widgets.visible_text import plain_tooltip

_HEADER_HEIGHT = 28
_LEAST_LETTERS, _LEAST_LINES = 12, 3
_TOKENS, _LEFT, _SPEED, _EXPERTS = "Tokens", "Time left", "Speed", "Mean experts"
_FIRST, _STATUS, _CONTEXT = "First token", "Status", "Context"
_PERPLEXITY, _KL, _LIMITS = "Perplexity", "KL to A", "Limits"
_DIFFERENCE_MEANING = (
    "Show and mark the first token in which this answer differs from that of side A, in both "
    "panels. Tokens are counted from 0."
)
_ENDINGS = {
    FinishReason.END_OF_TEXT: "End of text",
    FinishReason.MAX_NEW_TOKENS: "Token limit",
    FinishReason.CONTEXT_LENGTH: "Context full",
    FinishReason.STOPPED: "Stopped",
    FinishReason.BROKEN_OFF: "Broken off",
}


class AnswerPanel(QFrame):
    """The text of a run, its routing in words, and its speed, length and ending."""

    difference_chosen = Signal()

    def __init__(
        self, run: RunModel, tinting: Tinting, theme: Theme, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._run = run
        self._theme = theme
        self._left = TimeLeft()
        self._timed_epoch = run.epoch
        self.setProperty("role", "card")
        self._title = QLabel(run.name)
        self._title.setProperty("role", "title")
        self._routing = ElidedLabel("muted")
        self._note = QLabel()
        self._note.setProperty("role", "note")
        self._note.setWordWrap(True)
        self._note.hide()
        self.text = TokenText(run, tinting, theme)
        self.text.setAccessibleName(f"Answer of side {run.name}")
        self.text.setAccessibleDescription("What was said before, then the tokens of the answer")
        self._empty = QLabel()
        self._empty.setProperty("role", "empty")
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._empty.setWordWrap(True)
        self._build_latest_button()
        self._build_footer()
        self._build_layout()
        self.expect(is_same_text=False)
        self.text.following_changed.connect(self._sync_latest)
        theme.changed.connect(self._take_theme)
        self._take_theme()
        self.refresh_text()
        self.refresh_numbers(None)

    @property
    def note(self) -> str:
        """What has to be known to read this text rightly; often empty."""
        return self._note.text()

    @property
    def keeps_to_end(self) -> bool:
        """Whether it goes with an answer that is being written."""
        return self._run.is_running and self.text.is_following

    @property
    def words(self) -> str:
        """What stands in for the text; empty where that is there."""
        return self._empty.text() if self._pages.currentWidget() is self._empty else ""

    def expect(self, *, is_same_text: bool) -> None:
        """Say what will stand here while nothing does."""
        side = f"side {self._run.name}"
        what = f"What {side} makes of the text" if is_same_text else f"The answer of {side}"
        self._empty.setText(f"{what} will appear here.")

    def refresh_text(self) -> None:
        """Show what the run has said by now."""
        run = self._run
        self._pages.setCurrentWidget(self._text_page if run.is_started else self._empty)
        routing = run.about.routing if run.about else ""
        if routing != self._routing.text():
            self._routing.setText(routing)
            self._routing.setToolTip(plain_tooltip(routing))
        if run.note != self._note.text():
            self._note.setText(run.note)
            self._note.setVisible(bool(run.note))
        self.text.refresh()
        self._sync_latest()

    def refresh_numbers(self, parting: Parting | None) -> None:
        """Show its numbers. parting: of this side from the first; None before a run."""
        self._show_numbers()
        self._show_room()
        self._show_difference(parting)

    def show_token(self, index: int) -> None:
        """Scroll to a token and mark it."""
        self.text.show_token(index)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self._text_page and event.type() is QEvent.Type.Resize:
            self._place_latest()
        return super().eventFilter(watched, event)

    def _build_latest_button(self) -> None:
        self._text_page = QWidget()
        page = QVBoxLayout(self._text_page)
        page.setContentsMargins(0, 0, 0, 0)
        page.addWidget(self.text)
        self.latest_button = QToolButton(self._text_page)
        self.latest_button.setProperty("role", "float")
        self.latest_button.setText("Latest")
        self.latest_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.latest_button.setToolTip("Go to the newest token and follow it")
        self.latest_button.setAccessibleName(f"Go to the newest token of side {self._run.name}")
        self.latest_button.clicked.connect(self.text.scroll_to_end)
        self.latest_button.hide()
        self._text_page.installEventFilter(self)

    def _build_footer(self) -> None:
        # Where there is little room the last of them goes first.
        self.numbers = NumberLine(
            {
                _PERPLEXITY: "e to the power of the mean of -ln p of the token that stands there. "
                "Lower predicts the text better.",
                _KL: "KL(side A || this side), mean nats a token: how far its predictions are from "
                "those of side A.",
                _EXPERTS: "Experts per token and layer: the mean over all tokens of the answer and "
                "all layers. Of a side that only analyzes, what its rule would have used.",
                _TOKENS: "Tokens produced, the end-of-text token included; while it is written, of "
                "how many at most. Of a text that was read, all but its first.",
                _LEFT: "Until there are as many as there may be, at the pace of the last ones. The "
                "answer may end before.",
                _SPEED: "Tokens per second of this side's own computing time, from the first token "
                "to the last. The other sides' turns are left out.",
                _STATUS: "Why this side stopped producing tokens.",
                _LIMITS: "Share of (token, layer) pairs in which that limit, not the rule, "
                "decided.",
                _FIRST: "This side's own computing time until its first token: reading the prompt.",
                _CONTEXT: "Tokens of the prompt and the answer, of those the model has room for; "
                "in a conversation all earlier turns are part of the prompt.",
            }
        )
        self.room = ElidedLabel("problem", takes_room=True)
        self.room.hide()
        self.difference = ElidedButton()
        self.difference.setProperty("role", "link")
        self.difference.clicked.connect(self.difference_chosen)

    def _build_layout(self) -> None:
        header = QHBoxLayout()
        header.setSpacing(GAP_SMALL)
        header.addWidget(self._title)
        header.addStrut(_HEADER_HEIGHT)
        header.addWidget(self._routing, 1)
        header.addWidget(self.difference)
        body = QWidget()
        self._pages = QStackedLayout(body)
        self._pages.addWidget(self._empty)
        self._pages.addWidget(self._text_page)
        line = QFrame()
        line.setProperty("role", "rule")
        line.setFixedHeight(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(GAP, GAP_SMALL, GAP, GAP_SMALL)
        layout.setSpacing(GAP_TINY)
        layout.addLayout(header)
        layout.addWidget(self._note)
        layout.addWidget(body, 1)
        layout.addWidget(line)
        footer = QHBoxLayout()
        footer.setSpacing(GAP)
        footer.addWidget(self.numbers, 1)
        footer.addWidget(self.room)
        layout.addLayout(footer)

    def _show_numbers(self) -> None:
        run = self._run
        mean = run.statistics.mean
        speed, first = run.tokens_per_second, run.time_to_first_token_s
        counted = "counted" if run.is_counted_only else "experts"
        mean_words = "" if mean is None else f"{mean:.2f} {counted}"
        if run.reading is not None:
            values = {
                _TOKENS: f"{run.token_count:,} read",
                _PERPLEXITY: perplexity_words(run.reading),
                _KL: kl_words(run.reading),
                _EXPERTS: mean_words,
                _LIMITS: limit_words(run),
            }
        else:
            values = {
                _TOKENS: self._length(),
                _LEFT: self._time_left(),
                _SPEED: "" if speed is None else f"{speed:.1f} tok/s",
                _EXPERTS: mean_words,
                _FIRST: "" if first is None else f"first {format_seconds(first)}",
                _STATUS: self._ending(),
                _CONTEXT: self._context(),
            }
        self.numbers.show_values(values)

    def _length(self) -> str:
        run = self._run
        if run.is_running:
            # Of a text that is read there is nothing to write.
            return f"{run.token_count:,} of {run.most_tokens:,}" if run.most_tokens else ""
        return f"{run.token_count} tok" if run.is_started else ""

    def _time_left(self) -> str:
        run = self._run
        if run.epoch != self._timed_epoch:
            self._timed_epoch = run.epoch
            self._left.restart()
        if not run.is_running:
            return ""
        self._left.note(run.token_count, monotonic())
        seconds = self._left.seconds(run.most_tokens)
        return "" if seconds is None else f"{format_duration(seconds)} left"

    def _context(self) -> str:
        run = self._run
        if run.about is None or run.prompt_tokens is None:
            return ""
        used = run.prompt_tokens + run.token_count
        return f"context {used:,} of {run.about.model.context_length:,}"

    def _show_room(self) -> None:
        """Say so where less fits than was asked for; of an answer that ended before, no more."""
        run = self._run
        about, read = run.about, run.prompt_tokens
        is_of_interest = run.is_running or run.finish_reason is FinishReason.CONTEXT_LENGTH
        if about is None or read is None or not is_of_interest:
            self.room.hide()
            return
        asked, fitting = about.most_tokens, run.most_tokens
        self.room.setText(f"Only {fitting:,} of {asked:,} tokens fit")
        self.room.setToolTip(
            f"The model has room for {about.model.context_length:,} tokens in all, and what stands "
            f"before the answer takes {read:,} of them. Shorten the prompt or ask for fewer tokens."
        )
        self.room.setVisible(fitting < asked)

    def _ending(self) -> str:
        run = self._run
        if run.finish_reason is not None:
            return _ENDINGS[run.finish_reason]
        if run.is_failed:
            return "Failed"
        if not run.is_started:
            return ""
        return "Writing" if run.token_count else "Reading"

    def _show_difference(self, parting: Parting | None) -> None:
        parting = parting or Parting()
        if parting.token is not None:
            text = f"Differs from A at {parting.token}"
        elif parting.compared:
            text = f"As A for {parting.compared} tokens"
        else:
            text = ""
        # The number of the token is what a person looks for.
        at = f"at {parting.token}"
        self.difference.briefs = () if parting.token is None else (f"Differs {at}", at)
        self.difference.setText(text)
        self.difference.setAccessibleName(text or "First difference")
        self.difference.setToolTip(
            f"{text}. {_DIFFERENCE_MEANING}" if text else _DIFFERENCE_MEANING
        )
        self.difference.setEnabled(parting.token is not None)
        self.difference.setVisible(bool(text))

    @Slot()
    def _sync_latest(self) -> None:
        wanted = self._run.is_running and not self.text.is_following
        if wanted == self.latest_button.isHidden():
            self.latest_button.setVisible(wanted)
            self._place_latest()

    def _place_latest(self) -> None:
        self.latest_button.adjustSize()
        page = self._text_page.rect()
        self.latest_button.move(
            (page.width() - self.latest_button.width()) // 2,
            page.height() - self.latest_button.height() - GAP_SMALL,
        )
        self.latest_button.raise_()

    @Slot()
    def _take_theme(self) -> None:
        self.latest_button.setIcon(icon("latest", self._theme.colors.on_accent))
        metrics = self.text.fontMetrics()
        self.text.setMinimumSize(
            _LEAST_LETTERS * metrics.averageCharWidth(), _LEAST_LINES * metrics.lineSpacing()
        )


def format_seconds(seconds: float) -> str:
    """A duration with three digits and its unit."""
    if seconds < 1.0:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"
