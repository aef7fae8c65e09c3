"""The view of one streaming answer: plain text, one tint a token. Knows no side and no engine."""

from __future__ import annotations

import bisect
import html
from collections.abc import Callable, Sequence
from functools import partial

from PySide6.QtCore import QEvent, QMimeData, QObject, QPoint, QPointF, Qt, QTimer, Signal, Slot
from PySide6.QtGui import (
    QAction,
    QColor,
    QContextMenuEvent,
    QFont,
    QHelpEvent,
    QKeyEvent,
    QMouseEvent,
    QResizeEvent,
    QTextCharFormat,
    QTextCursor,
    QTextLine,
    QTextOption,
)
from PySide6.QtWidgets import (
    QAbstractSlider,
    QApplication,
    QMenu,
    QPlainTextEdit,
    QToolTip,
    QWidget,
)

from bh_studio.ui.compare.text_marks import Span, TextMarks
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.state.tints.tint import EXPERTS
from bh_studio.ui.state.tints.tinting import Tinting
from bh_studio.ui.state.transcript import Voice
from bh_studio.ui.widgets.copied_text import CopiedText
from bh_studio.ui.widgets.theme import GAP_SMALL, Theme
from bh_studio.ui.widgets.visible_text import visible

# Keys of the number pad count as modified.
_PLAIN = (Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.KeypadModifier)
_PAGES = (
    QAbstractSlider.SliderAction.SliderPageStepAdd.value,
    QAbstractSlider.SliderAction.SliderPageStepSub.value,
)


class TokenText(QPlainTextEdit):
    """Shows what was said before muted, then the tokens of a run; appends only what is new.

    Positions in the document are UTF-16 units of the passages and the answer, because `visible`
    replaces characters one for one; so copying returns the model's own characters.

    token_chosen: a person looks at this token. token_opened: and wants to know more of it.
    scrolled: a person has scrolled, by the wheel, the bar or keys, and this is at the top now, as
    `top` has it. more: what else there is to tell of a token; often nothing.
    """

    following_changed = Signal(bool)
    token_hovered = Signal(int)
    token_chosen = Signal(int)
    token_opened = Signal(int)
    scrolled = Signal(int)

    def __init__(
        self, run: RunModel, tinting: Tinting, theme: Theme, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._run = run
        self._tinting = tinting
        self._theme = theme
        self._is_tint_known = False
        self._epoch = -1
        self._starts: list[int] = []
        self._last_length = 0
        self._source = ""
        self._marked: int | None = None
        self._marks = TextMarks(self, theme)
        self._following = True
        self._hovered = -1
        self.more: Callable[[int], str] = lambda _: ""
        self._mouse_held = False
        self._pressed_at: QPoint | None = None
        # An action of the bar is told before what it does, or after, and the wheel sends many.
        self._told_later = QTimer(self)
        self._told_later.setSingleShot(True)
        self._told_later.timeout.connect(self._tell_scrolled)
        self.setProperty("role", "answer")
        self.setReadOnly(True)
        self.setUndoRedoEnabled(False)
        self.setWordWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        self.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
            | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.document().setDocumentMargin(GAP_SMALL)
        self.viewport().setMouseTracking(True)
        self.viewport().installEventFilter(self)
        self.verticalScrollBar().actionTriggered.connect(self._note_action)
        self.verticalScrollBar().rangeChanged.connect(self._keep_end)
        self.verticalScrollBar().valueChanged.connect(self._follow_marks)
        self.selectionChanged.connect(self._keep_selection_still)
        tinting.changed.connect(self._tint_again)
        theme.changed.connect(self.redraw)

    @property
    def is_following(self) -> bool:
        """Whether the view keeps the newest token in sight."""
        return self._following

    @property
    def epoch(self) -> int:
        """Another one when all of the text is another; while it stays, text is only appended."""
        return self._epoch

    @property
    def source(self) -> str:
        """All that is on screen, as the model wrote it."""
        return self._source

    @property
    def token_count(self) -> int:
        """Tokens that are on screen."""
        return len(self._starts)

    @Slot()
    def refresh(self) -> None:
        """Show what the run gained since the last time."""
        if self._epoch != self._run.epoch:
            self._marks.forget()
            self._restart()
        elif self._is_tint_known != self._tinting.current.is_known(self._run):
            # What a token is tinted by may be known only of the whole run, or not be kept of it.
            self._tint_again()
        self._append_new()
        self._keep_end()

    @Slot()
    def redraw(self) -> None:
        """Build the document again in the colours of the theme; place and marks stay."""
        bar = self.verticalScrollBar()
        place, following, marked = bar.value(), self._following, self._marked
        self._restart()
        self._append_new()
        if marked is not None and marked < self.token_count:
            self._mark(marked)
        self._following = following
        bar.setValue(bar.maximum() if following else place)
        self._marks.follow_view()

    @Slot()
    def scroll_to_end(self) -> None:
        """Show the newest token and follow it from now on."""
        self._set_following(True)
        bar = self.verticalScrollBar()
        bar.setValue(bar.maximum())

    def scroll_to_start(self) -> None:
        """Show how it begins; following stops."""
        self._set_following(False)
        self.verticalScrollBar().setValue(0)

    @property
    def top(self) -> int:
        """The first token that begins in the line at the top or below it; below 0, so many
        characters before the answer."""
        place = self.cursorForPosition(QPoint(0, GAP_SMALL)).position()
        if not self._starts or place < self._starts[0]:
            return place - self._answer_start
        return min(bisect.bisect_left(self._starts, place), self.token_count - 1)

    def bring_to_top(self, top: int) -> None:
        """Scroll so that `top` is what it is there, as far as there is text; following stops."""
        if top >= 0 and self._starts:
            place = self._starts[min(top, self.token_count - 1)]
        else:
            place = max(self._answer_start + min(top, 0), 0)
        self._set_following(False)
        block = self.document().findBlock(place)
        # Lines are broken when they are first looked at.
        self.blockBoundingRect(block)
        line = block.layout().lineForTextPosition(place - block.position())
        self.verticalScrollBar().setValue(block.firstLineNumber() + max(line.lineNumber(), 0))

    def show_token(self, index: int) -> None:
        """Scroll to a token and mark it; following stops."""
        if not 0 <= index < self.token_count:
            return
        self._mark(index)
        self._scroll_to(self._starts[index])

    def reveal_place(self, position: int) -> None:
        """Scroll to a position of the document where it is out of sight; following stops."""
        if self._is_place_in_sight(position):
            self._set_following(False)
        else:
            self._scroll_to(position)

    def show_found(self, found: Sequence[Span], current: Span | None) -> None:
        """Mark what was found, and of that the current match."""
        self._marks.show_found(found, current)

    def reveal_token(self, index: int) -> None:
        """Mark a token, and scroll to it where it is out of sight; without one mark nothing."""
        if not 0 <= index < self.token_count:
            self.mark_token(index)
        elif index != self._marked:
            if self._is_in_sight(index):
                self._mark(index)
                self._set_following(False)
            else:
                self.show_token(index)

    def mark_token(self, index: int) -> None:
        """Mark a token wherever it stands; without one mark nothing."""
        if 0 <= index < self.token_count:
            if index != self._marked:
                self._mark(index)
        elif self._marked is not None:
            self._marked = None
            self._marks.show_token(None)

    @property
    def marked_token(self) -> int | None:
        """The token that was marked last, if it is still shown."""
        return self._marked

    def tint_of(self, index: int) -> QColor:
        """Background of a token on screen."""
        cursor = QTextCursor(self.document())
        cursor.setPosition(self._starts[index] + 1)
        return cursor.charFormat().background().color()

    def token_at(self, point: QPoint) -> int | None:
        """Index of the token drawn at `point` of the viewport; None also while what is drawn is of
        a run that was replaced since."""
        if self._epoch != self._run.epoch:
            return None
        block = self.cursorForPosition(point).block()
        box = self.blockBoundingGeometry(block).translated(self.contentOffset())
        if not box.contains(point):
            return None
        inside = QPointF(point) - box.topLeft()
        layout = block.layout()
        for number in range(layout.lineCount()):
            line = layout.lineAt(number)
            if line.naturalTextRect().contains(inside):
                column = line.xToCursor(inside.x(), QTextLine.CursorPosition.CursorOnCharacter)
                return self._token_of(block.position() + column)
        return None

    def describe(self, index: int) -> str:
        """What hovering a token tells, as plain text."""
        run = self._run
        text = run.token_texts[index]
        shown = f"“{visible(text, mark_newlines=True)}”" if text else "no text of its own"
        # What the tint shows goes first; the experts, which the program is about, are always told.
        tints = dict.fromkeys((self._tinting.current, EXPERTS))
        words = (words for tint in tints if (words := tint.words(run, index)))
        name = f"Token {run.first_number + index}: {shown} (id {run.token_ids[index]})"
        lines = (name, *words, self.more(index))
        return "\n".join(filter(None, lines))

    def createMimeDataFromSelection(self) -> QMimeData:  # noqa: N802
        """The selected characters as the model wrote them."""
        cursor = self.textCursor()
        return CopiedText(self._source, cursor.selectionStart(), cursor.selectionEnd())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        # Not in viewportEvent: while that is Python's, all painting in it would keep Python from
        # the engine's thread.
        if watched is not self.viewport():
            return super().eventFilter(watched, event)
        if isinstance(event, QHelpEvent) and event.type() is QEvent.Type.ToolTip:
            index = self.token_at(event.pos())
            if index is None:
                QToolTip.hideText()
            else:
                # Qt takes a tooltip that looks like HTML for HTML, so it gets escaped HTML.
                text = html.escape(self.describe(index)).replace("\n", "<br>")
                QToolTip.showText(event.globalPos(), f"<qt>{text}</qt>", self.viewport())
            return True
        if event.type() is QEvent.Type.Leave:
            self._hover(-1)
        return False

    def mousePressEvent(self, event: QMouseEvent) -> None:
        is_left = event.button() is Qt.MouseButton.LeftButton
        # The menu of another button keeps its release for itself.
        self._mouse_held = is_left
        self._pressed_at = event.position().toPoint() if is_left else None
        super().mousePressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        super().mouseReleaseEvent(event)
        self._mouse_held = False
        self._note_place()
        point, pressed, self._pressed_at = event.position().toPoint(), self._pressed_at, None
        # What was dragged over is selected, to be copied.
        if pressed is None or self.textCursor().hasSelection():
            return
        is_drag = (point - pressed).manhattanLength() >= QApplication.startDragDistance()
        if not is_drag and (index := self.token_at(pressed)) is not None:
            self.token_chosen.emit(index)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.modifiers() in _PLAIN and self._take_key(Qt.Key(event.key())):
            return
        before = self.verticalScrollBar().value()
        super().keyPressEvent(event)
        if self.verticalScrollBar().value() != before:
            self._note_place()
            self._told_later.start(0)

    def changeEvent(self, event: QEvent) -> None:
        marked = self._marked
        is_marked_seen = marked is not None and self._is_in_sight(marked)
        super().changeEvent(event)
        # Larger text needs more lines, and there are fewer of them in the view.
        if marked is not None and is_marked_seen and not self._is_in_sight(marked):
            self.show_token(marked)

    def resizeEvent(self, event: QResizeEvent) -> None:
        top = self.cursorForPosition(QPoint(GAP_SMALL, GAP_SMALL))
        marked = self._marked
        # The viewport has its new size by now; what was seen was seen in the old one.
        height = event.oldSize().height()
        is_marked_seen = marked is not None and self._is_within(marked, height)
        if is_marked_seen and not self._run.is_running:
            # A person looks at a token, and nothing comes any more.
            self._set_following(False)
        super().resizeEvent(event)
        if self._following:
            self._keep_end()
        else:
            # The lines break elsewhere now; what was on top stays on top.
            bar = self.verticalScrollBar()
            offset = self.cursorRect(top).top() / max(1, self.fontMetrics().lineSpacing())
            bar.setValue(bar.value() + round(offset))
            if marked is not None and is_marked_seen and not self._is_in_sight(marked):
                self.show_token(marked)
        self._marks.follow_view()

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        menu = self.menu_at(event.pos())
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(event.globalPos())

    def menu_at(self, point: QPoint) -> QMenu:
        """What can be done at a place of the view."""
        menu = self.createStandardContextMenu()
        if (index := self.token_at(point)) is not None:
            first = menu.insertSeparator(menu.actions()[0])
            inspect = QAction("Inspect token", menu)
            inspect.triggered.connect(partial(self.token_opened.emit, index))
            menu.insertAction(first, inspect)
        return menu

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        super().mouseMoveEvent(event)
        index = self.token_at(event.position().toPoint())
        self._hover(-1 if index is None else index)

    def _take_key(self, key: Qt.Key) -> bool:
        """Whether `key` has opened a token, or led from the marked one to the next."""
        marked = self._marked
        if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            index = self._token_of(self.textCursor().position()) if marked is None else marked
            if self.token_count:
                # The prompt, where the cursor is at first, leads to the answer's first token.
                self.token_opened.emit(index or 0)
            return self.token_count > 0
        step = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}.get(key)
        if step is None or marked is None:
            return False
        if 0 <= marked + step < self.token_count:
            self.token_chosen.emit(marked + step)
        return True

    def _hover(self, index: int) -> None:
        if index != self._hovered:
            self._hovered = index
            self.token_hovered.emit(index)

    def _restart(self) -> None:
        self._epoch = self._run.epoch
        self._starts = []
        self._last_length = 0
        self._marked = None
        about = self._run.about
        passages = () if about is None else about.passages
        self._source = "".join(passage.text for passage in passages)
        self.clear()
        cursor = QTextCursor(self.document())
        for passage in passages:
            cursor.insertText(visible(passage.text), self._look_of(passage.voice))
        self.moveCursor(QTextCursor.MoveOperation.Start)
        self._set_following(True)

    def _look_of(self, voice: Voice) -> QTextCharFormat:
        look = QTextCharFormat()
        look.setForeground(self._theme.colors.muted)
        if voice in (Voice.PERSON, Voice.SYSTEM):
            look.setFontWeight(QFont.Weight.DemiBold)
        return look

    def _append_new(self) -> None:
        run = self._run
        shown = self.token_count
        grown = run.token_texts[shown - 1][self._last_length :] if shown else ""
        if shown == run.token_count and not grown:
            return
        self._turn_selection()
        cursor = QTextCursor(self.document())
        cursor.movePosition(QTextCursor.MoveOperation.End)
        cursor.beginEditBlock()
        look = QTextCharFormat()
        look.setForeground(self._theme.colors.text)
        first = max(shown - 1, 0)
        for index, color in enumerate(self._colors(first), start=first):
            text = run.token_texts[index]
            self._last_length = len(text)
            if index < shown:
                text = grown
            else:
                self._starts.append(cursor.position())
            if text:
                look.setBackground(color)
                cursor.insertText(visible(text), look)
                self._source += text
        cursor.endEditBlock()

    def _colors(self, first: int) -> list[QColor]:
        """The grounds of the tokens from `first` on."""
        tint = self._tinting.current
        self._is_tint_known = tint.is_known(self._run)
        return tint.colors(self._run, first, self._theme.colors.surface)

    @Slot()
    def _tint_again(self) -> None:
        """Give all tokens on screen the colours they have now; text, place and marks stay."""
        if self._epoch != self._run.epoch:
            return
        cursor, look = QTextCursor(self.document()), QTextCharFormat()
        cursor.beginEditBlock()
        for index, color in enumerate(self._colors(0)[: self.token_count]):
            look.setBackground(color)
            cursor.setPosition(self._starts[index])
            cursor.setPosition(self._end_of(index), QTextCursor.MoveMode.KeepAnchor)
            cursor.mergeCharFormat(look)
        cursor.endEditBlock()

    @Slot()
    def _keep_selection_still(self) -> None:
        # WORKAROUND: a selection that reaches the end of the document grows with what is inserted
        # there, unless its cursor is told to stay. A cursor without a selection must not be told
        # so: Qt then moves its anchor alone, and a selection appears.
        cursor = self.textCursor()
        if cursor.keepPositionOnInsert() != cursor.hasSelection():
            cursor.setKeepPositionOnInsert(cursor.hasSelection())
            self.setTextCursor(cursor)

    def _turn_selection(self) -> None:
        """Let a selection end where the document does, not begin there: its end can stay."""
        cursor, bar = self.textCursor(), self.verticalScrollBar()
        start, end = cursor.selectionStart(), cursor.selectionEnd()
        if start == end or self._mouse_held or cursor.position() == end:
            return
        place = bar.value()
        cursor.setPosition(start)
        cursor.setPosition(end, QTextCursor.MoveMode.KeepAnchor)
        self.setTextCursor(cursor)
        bar.setValue(place)

    def _token_of(self, position: int) -> int | None:
        index = bisect.bisect_right(self._starts, position) - 1
        return index if index >= 0 else None

    @property
    def _answer_start(self) -> int:
        return self._starts[0] if self._starts else self.document().characterCount() - 1

    def _is_in_sight(self, index: int) -> bool:
        return self._is_within(index, self.viewport().height())

    def _is_within(self, index: int, height: int) -> bool:
        """Whether a token stands in the upper `height` pixels of the view; lines are broken, so
        none stands beside it."""
        start, end = self._starts[index], self._end_of(index)
        # The blank before a word ends a line where the word begins the next.
        return all(self._is_place_within(place, height) for place in (start, max(start, end - 1)))

    def _is_place_in_sight(self, position: int) -> bool:
        return self._is_place_within(position, self.viewport().height())

    def _is_place_within(self, position: int, height: int) -> bool:
        place = QTextCursor(self.document())
        place.setPosition(position)
        return 0 <= self.cursorRect(place).center().y() < height

    def _end_of(self, index: int) -> int:
        is_last = index + 1 == self.token_count
        return self.document().characterCount() - 1 if is_last else self._starts[index + 1]

    def _scroll_to(self, position: int) -> None:
        place = QTextCursor(self.document())
        place.setPosition(position)
        self._set_following(False)
        self.setTextCursor(place)
        self.centerCursor()
        self._note_place()

    def _mark(self, index: int) -> None:
        self._marked = index
        self._marks.show_token((self._starts[index], self._end_of(index)))

    @Slot()
    def _follow_marks(self) -> None:
        self._marks.follow_view()

    @Slot(int)
    def _note_action(self, action: int) -> None:
        # Sent for the wheel, the keys and the slider, before the value changes, or after it for a
        # page; never for scrolling by the program.
        bar = self.verticalScrollBar()
        self._set_following(bar.sliderPosition() >= bar.maximum())
        if bar.sliderPosition() != bar.value() or action in _PAGES:
            self._told_later.start(0)

    @Slot()
    def _tell_scrolled(self) -> None:
        self.scrolled.emit(self.top)

    def _note_place(self) -> None:
        bar = self.verticalScrollBar()
        self._set_following(bar.value() >= bar.maximum())

    @Slot()
    def _keep_end(self) -> None:
        if self._following and not self._mouse_held:
            bar = self.verticalScrollBar()
            bar.setValue(bar.maximum())

    def _set_following(self, following: bool) -> None:
        if following != self._following:
            self._following = following
            self.following_changed.emit(following)
