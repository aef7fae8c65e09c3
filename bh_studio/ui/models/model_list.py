"""The list of models that can be chosen: name and state in the first line, what it is below."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRect, QSize, Qt, Signal, Slot
from PySide6.QtGui import QFont, QPainter, QPalette
from PySide6.QtWidgets import (
    QListWidget,
    QListWidgetItem,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QWidget,
)

from bh_studio.ui.state.models.model_entry import Kind, ModelEntry
from bh_studio.ui.widgets.theme import GAP, GAP_SMALL, GAP_TINY, Theme
from bh_studio.ui.widgets.visible_text import plain_tooltip, visible

_SOURCE = Qt.ItemDataRole.UserRole
_ABOUT = Qt.ItemDataRole.UserRole + 1
_STATE = Qt.ItemDataRole.UserRole + 2
_IS_PATH = Qt.ItemDataRole.UserRole + 3
_WIDTH_LETTERS = 62

_Index = QModelIndex | QPersistentModelIndex


class ModelList(QListWidget):
    """Shows entries and tells which one is selected."""

    selected = Signal(str)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setItemDelegate(_TwoLines(theme, self))
        self.setAccessibleName("Models")
        self.setToolTip("The models to choose from")
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QListWidget.ScrollMode.ScrollPerPixel)
        self.currentItemChanged.connect(self._tell)
        theme.changed.connect(self.doItemsLayout)

    def sizeHint(self) -> QSize:
        return QSize(self.fontMetrics().averageCharWidth() * _WIDTH_LETTERS, 300)

    @property
    def source(self) -> str | None:
        """The source of the entry that is selected."""
        row = self.currentRow()
        return None if row < 0 else str(self.item(row).data(_SOURCE))

    @property
    def lines(self) -> list[str]:
        """Every entry as a screen reader says it."""
        role = Qt.ItemDataRole.AccessibleTextRole
        return [str(self.item(row).data(role)) for row in range(self.count())]

    def show_entries(self, entries: tuple[ModelEntry, ...]) -> None:
        """Show `entries`; the selection stays on its source, or goes to the first entry."""
        sources = [str(self.item(row).data(_SOURCE)) for row in range(self.count())]
        if sources != [entry.source for entry in entries]:
            chosen = self.source
            self.blockSignals(True)
            self.clear()
            for entry in entries:
                item = QListWidgetItem(self)
                item.setData(_SOURCE, entry.source)
            self.blockSignals(False)
            self.select(chosen if chosen in {entry.source for entry in entries} else None)
        for row, entry in enumerate(entries):
            _fill(self.item(row), entry)

    def select(self, source: str | None) -> None:
        """Select the entry of `source`; the first one for None."""
        for row in range(self.count()):
            if source is None or self.item(row).data(_SOURCE) == source:
                self.setCurrentRow(row)
                return

    @Slot()
    def _tell(self) -> None:
        source = self.source
        if source is not None:
            self.selected.emit(source)


def _fill(item: QListWidgetItem, entry: ModelEntry) -> None:
    title, about = (
        visible(entry.title, mark_newlines=True),
        visible(entry.about, mark_newlines=True),
    )
    item.setData(_IS_PATH, entry.kind is Kind.FOLDER)
    texts = {
        Qt.ItemDataRole.DisplayRole: title,
        _ABOUT: about,
        _STATE: entry.state,
        Qt.ItemDataRole.AccessibleTextRole: ", ".join(filter(None, (title, entry.state, about))),
        Qt.ItemDataRole.ToolTipRole: plain_tooltip(
            "\n".join(filter(None, (entry.title, entry.state, entry.about, entry.source)))
        ),
    }
    for role, text in texts.items():
        if item.data(role) != text:
            item.setData(role, text)


class _TwoLines(QStyledItemDelegate):
    """Paints an entry."""

    def __init__(self, theme: Theme, parent: QWidget) -> None:
        super().__init__(parent)
        self._theme = theme
        self._list = parent

    def sizeHint(self, option: QStyleOptionViewItem, index: _Index) -> QSize:
        return QSize(0, 2 * option.fontMetrics.height() + GAP_TINY + 2 * GAP_SMALL)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        row = QStyleOptionViewItem(option)
        self.initStyleOption(row, index)
        row.text = ""
        whole = QStyle.ControlElement.CE_ItemViewItem
        self._list.style().drawControl(whole, row, painter, self._list)
        is_selected = bool(row.state & QStyle.StateFlag.State_Selected)
        colors = self._theme.colors
        text = row.palette.color(QPalette.ColorRole.HighlightedText) if is_selected else colors.text
        muted = text if is_selected else colors.muted
        area = row.rect.adjusted(GAP, GAP_SMALL, -GAP, -GAP_SMALL)
        height = row.fontMetrics.height()
        first = QRect(area.left(), area.top(), area.width(), height)
        second = QRect(area.left(), area.bottom() - height + 1, area.width(), height)
        painter.save()
        painter.setFont(row.font)
        state = str(index.data(_STATE) or "")
        state_width = row.fontMetrics.horizontalAdvance(state)
        painter.setPen(muted)
        painter.drawText(first, Qt.AlignmentFlag.AlignRight, state)
        # Both ends of a path tell something; of a sentence, its beginning.
        side = Qt.TextElideMode.ElideMiddle
        if not index.data(_IS_PATH):
            side = Qt.TextElideMode.ElideRight
        about = row.fontMetrics.elidedText(str(index.data(_ABOUT) or ""), side, second.width())
        painter.drawText(second, Qt.AlignmentFlag.AlignLeft, about)
        strong = QFont(row.font)
        strong.setWeight(QFont.Weight.DemiBold)
        painter.setFont(strong)
        painter.setPen(text)
        first.setRight(first.right() - state_width - GAP_SMALL)
        title = painter.fontMetrics().elidedText(
            str(index.data(Qt.ItemDataRole.DisplayRole)), Qt.TextElideMode.ElideRight, first.width()
        )
        painter.drawText(first, Qt.AlignmentFlag.AlignLeft, title)
        painter.restore()
