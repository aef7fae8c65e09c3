"""The page of models: the list, and what can be done with the model that is selected."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, Slot
from PySide6.QtGui import QHideEvent, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from bh_studio.engine.hub.source import parse_hub_source
from bh_studio.engine.protocol.events import LoadProgress
from bh_studio.ui.models.download_panel import DownloadPanel
from bh_studio.ui.models.load_panel import LoadPanel
from bh_studio.ui.models.model_list import ModelList
from bh_studio.ui.place import Place
from bh_studio.ui.state.engine_model import EngineModel, EngineState
from bh_studio.ui.state.models.model_shelf import ModelShelf
from bh_studio.ui.widgets.notice import Notice
from bh_studio.ui.widgets.progress_line import ProgressLine
from bh_studio.ui.widgets.theme import GAP, GAP_LARGE, GAP_SMALL, Theme
from bh_studio.ui.widgets.visible_text import visible


class ModelsPage(Place):
    """Leaving it ends nothing."""

    def __init__(
        self,
        engine: EngineModel,
        shelf: ModelShelf,
        theme: Theme,
        parent: QWidget,
    ) -> None:
        super().__init__(parent)
        self._engine = engine
        self._shelf = shelf
        self.list = ModelList(theme)
        self.name = QLineEdit()
        self.name_problem = Notice(theme, "What is wrong with the name")
        self.add_button = QPushButton("Add")
        self.folder_button = QPushButton("Choose folder…")
        self.remove_button = QPushButton("Remove from the list")
        self.load_panel = LoadPanel(engine, theme)
        self.download_panel = DownloadPanel(shelf, theme)
        self.loading = ProgressLine("Progress of loading the model")
        self.cancel_button = QPushButton("Cancel the load")
        self._title, self._about, self._source = QLabel(), QLabel(), QLabel()
        self._describe()
        self._lay_out()
        self._connect()
        self._show_entries()
        theme.changed.connect(self._fit_text)

    def take_focus(self) -> None:
        """Let keys choose in the list."""
        self.list.setFocus()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._fit_text()
        self._shelf.refresh_all()
        self.load_panel.ask()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit_text()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self.load_panel.inspection.forget()

    @property
    def heading(self) -> str:
        """The name of the model that is shown."""
        return self._title.text()

    def choose(self, source: str) -> None:
        """Offer `source` and select it."""
        self._shelf.add(source)
        self.list.select(source)

    # --- building ---

    def _describe(self) -> None:
        self.name.setPlaceholderText("OWNER/NAME or OWNER/NAME@REVISION")
        self.name.setClearButtonEnabled(True)
        for control, name, meaning in (
            (self.name, "Model of the hub", "Another model of the hub: its owner and name, and a "
             "branch, tag or commit if not the newest"),
            (self.add_button, "Add to the list", "Put the model into the list; nothing is fetched"),
            (self.folder_button, "Choose a folder",
             "Use a checkpoint in a folder: safetensors, config.json and tokenizer.json"),
            (self.remove_button, "Remove from the list",
             "Offer this model no longer; its files stay where they are"),
            (self.cancel_button, "Cancel the load", "End the load; the model that was there "
             "stays if it has not been given up yet"),
        ):  # fmt: skip
            control.setAccessibleName(name)
            control.setToolTip(meaning)
        for button in (self.add_button, self.folder_button, self.cancel_button):
            button.setProperty("role", "plain")
        self.remove_button.setProperty("role", "link")
        for label, role in ((self._title, "title"), (self._about, ""), (self._source, "muted")):
            label.setProperty("role", role)
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)

    def _lay_out(self) -> None:
        parts = QSplitter(Qt.Orientation.Horizontal)
        parts.setChildrenCollapsible(False)
        parts.setHandleWidth(GAP)
        parts.addWidget(self._left())
        parts.addWidget(self._right())
        parts.setStretchFactor(1, 1)
        self.splitters = {"models": parts}
        below = QHBoxLayout()
        below.setSpacing(GAP)
        below.addWidget(self.loading, 1)
        below.addWidget(self.cancel_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(GAP, 0, GAP, GAP_SMALL)
        column.setSpacing(GAP)
        column.addWidget(parts, 1)
        column.addLayout(below)

    def _left(self) -> QWidget:
        row = QHBoxLayout()
        row.setSpacing(GAP_SMALL)
        row.addWidget(self.name, 1)
        row.addWidget(self.add_button)
        left = QWidget()
        column = QVBoxLayout(left)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(GAP_SMALL)
        column.addWidget(self.list, 1)
        column.addLayout(row)
        column.addWidget(self.name_problem)
        column.addWidget(self.folder_button, 0, Qt.AlignmentFlag.AlignLeft)
        return left

    def _right(self) -> QWidget:
        self._content = content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(GAP_LARGE, GAP, GAP_LARGE, GAP)
        column.setSpacing(GAP_SMALL)
        for label in (self._title, self._about, self._source):
            column.addWidget(label)
        column.addWidget(self.remove_button, 0, Qt.AlignmentFlag.AlignLeft)
        column.addWidget(self.download_panel)
        column.addWidget(self.load_panel)
        column.addStretch(1)
        self._area = area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setProperty("role", "sidebar")
        area.setWidget(content)
        card = QFrame()
        card.setProperty("role", "card")
        inside = QVBoxLayout(card)
        inside.setContentsMargins(1, 1, 1, 1)
        inside.addWidget(area)
        return card

    @Slot()
    def _fit_text(self) -> None:
        """Let nothing of the right side be cut; it scrolls sideways only in a narrow page."""
        bar = self._area.verticalScrollBar().sizeHint().width()
        wanted = self._content.minimumSizeHint().width() + bar
        self._area.setMinimumWidth(min(wanted, self.width() // 2))
        self.name.setFixedHeight(self.add_button.sizeHint().height())

    def _connect(self) -> None:
        self.list.selected.connect(self._show_selected)
        self.name.returnPressed.connect(self._add_name)
        self.name.textEdited.connect(self._withdraw_name_problem)
        self.add_button.clicked.connect(self._add_name)
        self.folder_button.clicked.connect(self._ask_for_folder)
        self.remove_button.clicked.connect(self._remove)
        self.cancel_button.clicked.connect(self._engine.cancel_load)
        self._shelf.changed.connect(self._show_entries)
        self._engine.load_progressed.connect(self._show_loading)
        self._engine.state_changed.connect(self._sync_loading)
        self._sync_loading()

    # --- what is selected ---

    @Slot()
    def _show_entries(self) -> None:
        self.list.show_entries(self._shelf.entries)
        self._show_selected()

    @Slot()
    def _show_selected(self) -> None:
        source = self.list.source
        if source is None:
            return
        entry = self._shelf.entry(source)
        self._title.setText(visible(entry.title))
        self._about.setText(visible(entry.about))
        self._source.setText(visible(source))
        self._source.setVisible(source not in (entry.about, "embedded"))
        self.remove_button.setVisible(entry.is_removable)
        self.download_panel.show_entry(entry)
        self.load_panel.show_entry(entry)

    @Slot()
    def _add_name(self) -> None:
        text = self.name.text().strip()
        source = parse_hub_source(text)
        if source is None:
            self.name_problem.say(
                f"“{text}” is not a name such as allenai/OLMoE-1B-7B-0924, with @ and a branch, "
                "tag or commit behind it where needed."
                if text
                else "Type the name of a model of the hub first.",
                is_alarm=True,
            )
            return
        self.name.clear()
        self.name_problem.say("")
        self.choose(str(source))

    @Slot()
    def _withdraw_name_problem(self) -> None:
        self.name_problem.say("")

    @Slot()
    def _ask_for_folder(self) -> None:
        dialog = QFileDialog(self, "Folder with a checkpoint")
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(self._take_folder)
        dialog.open()

    @Slot(str)
    def _take_folder(self, name: str) -> None:
        self.choose(str(Path(name)))

    @Slot()
    def _remove(self) -> None:
        source = self.list.source
        if source is not None:
            self._shelf.remove(source)

    # --- a load ---

    @Slot()
    def _sync_loading(self) -> None:
        is_loading = self._engine.state is EngineState.LOADING
        self.loading.setVisible(is_loading)
        self.cancel_button.setVisible(is_loading)
        self.cancel_button.setEnabled(self._engine.can_cancel_load)
        if is_loading and self._engine.load_progress is not None:
            self._show_loading(self._engine.load_progress)

    @Slot(object)
    def _show_loading(self, progress: LoadProgress) -> None:
        request = self._engine.loading
        if request is None:
            return
        title = self._shelf.entry(request.source).title
        stage = progress.stage if self._engine.can_cancel_load else "Cancelling the load…"
        self.loading.show_progress(f"{title}: {stage}", progress.fraction)
