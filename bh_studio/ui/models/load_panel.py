"""How the selected model is loaded: device, number format, calibration; does it fit; Load."""

from __future__ import annotations

from PySide6.QtCore import Slot
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from bh_studio.engine.protocol.events import Failed, ModelInspected
from bh_studio.engine.protocol.requests import LoadModel
from bh_studio.ui.models.calibration_choice import CalibrationChoice
from bh_studio.ui.state.engine_model import EngineModel, EngineState
from bh_studio.ui.state.models.model_entry import ModelEntry
from bh_studio.ui.state.models.model_inspection import ModelInspection
from bh_studio.ui.state.models.words import (
    device_choices,
    device_words,
    dtype_choices,
    fits,
    needs_text,
)
from bh_studio.ui.state.words import format_parameters
from bh_studio.ui.widgets.notice import Notice
from bh_studio.ui.widgets.number_boxes import ChoiceBox
from bh_studio.ui.widgets.theme import GAP, GAP_SMALL, Theme


class LoadPanel(QWidget):
    """The controls of a load, for one entry at a time."""

    def __init__(self, engine: EngineModel, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._engine = engine
        self._entry: ModelEntry | None = None
        self.inspection = ModelInspection(engine, self)
        self.device = ChoiceBox(device_choices())
        self.dtype = ChoiceBox(dtype_choices())
        self.calibration = CalibrationChoice()
        self.facts = QLabel()
        self.facts.setProperty("role", "muted")
        self.facts.setWordWrap(True)
        self.facts.setAccessibleName("The model on this machine")
        self.memory = Notice(theme, "Memory")
        self._build_buttons()
        self._lay_out()
        for choice in (self.device, self.dtype):
            choice.currentIndexChanged.connect(self.ask)
        self.inspection.changed.connect(self._sync)
        engine.state_changed.connect(self._sync)
        engine.jobs.changed.connect(self._sync)
        # What is free is another amount once a model has come or gone.
        engine.model_changed.connect(self.ask)
        engine.load_refused.connect(self.ask)
        self._sync()

    def show_entry(self, entry: ModelEntry) -> None:
        """Offer to load `entry`."""
        former, self._entry = self._entry, entry
        if former is None or former.source != entry.source:
            # A calibration belongs to one model.
            self.calibration.choose(None)
        if former is None or _question(former) != _question(entry):
            self.ask()
        else:
            self._sync()

    @Slot()
    def ask(self) -> None:
        """Have the engine say what the entry needs with these choices."""
        entry = self._entry
        if entry is not None and entry.is_loadable and self.isVisible():
            self.inspection.ask(entry.source, self.device.value, self.dtype.value)
        else:
            self.inspection.forget()

    @Slot()
    def load(self) -> None:
        """Load the entry as chosen."""
        self._load(load_anyway=False)

    @Slot()
    def load_anyway(self) -> None:
        """Load the entry although the memory seems too small."""
        self._load(load_anyway=True)

    def _load(self, *, load_anyway: bool) -> None:
        if self._entry is None or not self._entry.is_loadable:
            return
        self._engine.load_with(
            LoadModel(
                self._entry.source,
                self.device.value,
                self.dtype.value,
                load_anyway=load_anyway,
                calibration=self.calibration.path,
            )
        )

    def _build_buttons(self) -> None:
        self.load_button = _button("Load", "primary", "Load")
        self.load_button.clicked.connect(self.load)
        self.anyway_button = _button("Load anyway", "plain", "Load anyway")
        self.anyway_button.setToolTip(
            "Load although the memory seems too small: the system may slow down or end programs"
        )
        self.anyway_button.clicked.connect(self.load_anyway)
        self.unload_button = _button("Unload", "plain", "Unload the model")
        self.unload_button.setToolTip("Give the memory of the loaded model back")
        self.unload_button.clicked.connect(self._engine.unload)

    def _lay_out(self) -> None:
        form = QGridLayout()
        form.setHorizontalSpacing(GAP)
        form.setVerticalSpacing(GAP_SMALL)
        form.setColumnStretch(1, 1)
        for row, (text, control, meaning) in enumerate((
            ("Device", self.device, "What computes. Below is said what Auto has chosen."),
            ("Number format", self.dtype, "How weights are held in memory. Auto takes what suits "
             "the device and the model's size."),
            ("Calibration", self.calibration, ""),
        )):  # fmt: skip
            label = QLabel(text)
            label.setProperty("role", "muted")
            label.setBuddy(control)
            if meaning:
                control.setToolTip(meaning)
                control.setAccessibleName(text)
            form.addWidget(label, row, 0)
            form.addWidget(control, row, 1)
        buttons = QHBoxLayout()
        buttons.setSpacing(GAP_SMALL)
        buttons.addWidget(self.load_button)
        buttons.addWidget(self.anyway_button)
        buttons.addWidget(self.unload_button)
        buttons.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, GAP, 0, 0)
        column.setSpacing(GAP_SMALL)
        column.addLayout(form)
        column.addWidget(self.facts)
        column.addWidget(self.memory)
        column.addLayout(buttons)

    # --- keeping in step ---

    @property
    def obstacle(self) -> str:
        """Why the entry cannot be loaded now, a sentence; empty if it can."""
        answer = self.inspection.answer
        if self._entry is None or not self._entry.is_loadable:
            return "Not all of the model is on this machine."
        if self._engine.state is EngineState.LOADING:
            return "A model is loading."
        if not self._engine.is_settled:
            return "The run has to end first."
        if isinstance(answer, ModelInspected):
            if answer.problem:
                return answer.problem
            if not fits(answer):
                return "It needs more memory than there is."
        return ""

    @Slot()
    def _sync(self) -> None:
        entry, engine, answer = self._entry, self._engine, self.inspection.answer
        is_loaded = (
            entry is not None and engine.loaded is not None and engine.loaded.source == entry.source
        )
        is_there = entry is not None and entry.is_loadable
        obstacle = self.obstacle
        fits_not = isinstance(answer, ModelInspected) and not answer.problem and not fits(answer)
        self.load_button.setText("Load again" if is_loaded else "Load")
        self.load_button.setEnabled(not obstacle)
        self.load_button.setToolTip(obstacle or "Load this model in place of the one there is")
        self.anyway_button.setVisible(fits_not)
        self.anyway_button.setEnabled(engine.is_settled)
        self.unload_button.setVisible(is_loaded)
        self.unload_button.setEnabled(engine.is_ready)
        for control in (self.device, self.dtype, self.calibration):
            control.setEnabled(is_there)
        self._say(answer)
        self.facts.setVisible(bool(self.facts.text()))

    def _say(self, answer: ModelInspected | Failed | None) -> None:
        if isinstance(answer, Failed):
            self.facts.setText("")
            self.memory.say(f"{answer.message} {answer.advice}", is_alarm=True)
        elif answer is None:
            self.facts.setText(self._wait_words() if self.inspection.is_waiting else "")
            self.memory.say("")
        elif answer.problem:
            self.facts.setText("")
            self.memory.say(answer.problem, is_alarm=True)
        else:
            self.facts.setText(_facts(answer))
            self.memory.say(needs_text(answer), is_alarm=not fits(answer))

    def _wait_words(self) -> str:
        if self._engine.state is EngineState.LOADING:
            return "What it needs can be said when the load has ended."
        if self._engine.jobs.need_the_model:
            return "What it needs can be said when the run has ended."
        return "Looking at the model…"


def _question(entry: ModelEntry) -> tuple[str, bool]:
    return entry.source, entry.is_loadable


def _facts(answer: ModelInspected) -> str:
    return (
        f"{format_parameters(answer.parameter_count)} parameters, context of "
        f"{answer.context_length:,} tokens; as {answer.dtype} on {device_words(answer.device)}."
    )


def _button(words: str, role: str, name: str) -> QPushButton:
    button = QPushButton(words)
    button.setProperty("role", role)
    button.setAccessibleName(name)
    return button
