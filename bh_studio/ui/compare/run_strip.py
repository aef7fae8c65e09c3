"""The runs of the prompt on screen as tabs, from the second one on."""

from __future__ import annotations

from PySide6.QtCore import QSignalBlocker, Qt, Signal, Slot
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QTabBar, QToolButton, QWidget

from bh_studio.ui.state.prompt_runs import PromptRuns, run_meaning, run_names
from bh_studio.ui.widgets.theme import GAP_SMALL
from bh_studio.ui.widgets.visible_text import plain_tooltip

_MOST_LETTERS = 40
_SCROLLS = ("Earlier runs", "Later runs")


class RunStrip(QWidget):
    """Shows which run is on screen, and puts another one there. settings_wanted: a person wants the
    settings of the run on screen back."""

    settings_wanted = Signal()

    def __init__(self, runs: PromptRuns, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._runs = runs
        self.tabs = QTabBar()
        self.tabs.setDrawBase(False)
        self.tabs.setExpanding(False)
        self.tabs.setUsesScrollButtons(True)
        self.tabs.setElideMode(Qt.TextElideMode.ElideNone)
        self.tabs.setAccessibleName("Runs of this prompt")
        for button, where in zip(self.tabs.findChildren(QToolButton), _SCROLLS, strict=True):
            button.setAccessibleName(where)
            button.setToolTip(where)
        self.settings_button = QPushButton("Use its settings")
        self.settings_button.setProperty("role", "link")
        self.settings_button.setToolTip(
            "Set the sides and the generation of the next run to those of the run on screen"
        )
        self.settings_button.clicked.connect(self.settings_wanted)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(GAP_SMALL)
        row.addWidget(self.tabs, 1)
        row.addWidget(self.settings_button)
        self.tabs.currentChanged.connect(self._take_choice)
        runs.changed.connect(self.refresh)
        self.refresh()

    @Slot()
    def refresh(self) -> None:
        """Show the runs as they are now."""
        runs, chosen = self._runs.runs, self._runs.chosen
        with QSignalBlocker(self.tabs):
            while self.tabs.count() > len(runs):
                self.tabs.removeTab(self.tabs.count() - 1)
            while self.tabs.count() < len(runs):
                self.tabs.addTab("")
            for place, (run, name) in enumerate(zip(runs, run_names(runs), strict=True)):
                cut = name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"
                self.tabs.setTabText(place, cut)
                self.tabs.setTabToolTip(place, plain_tooltip(f"{name}\n{run_meaning(run)}"))
                self.tabs.setAccessibleTabName(place, name)
            if chosen is not None:
                self.tabs.setCurrentIndex(runs.index(chosen))
        self.tabs.setEnabled(self._runs.can_change)
        self.setVisible(len(runs) > 1 and chosen is not None)

    @Slot(int)
    def _take_choice(self, place: int) -> None:
        if 0 <= place < len(self._runs.runs):
            self._runs.show(self._runs.runs[place])
