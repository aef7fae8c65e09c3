"""The parameters of the next run. Holds controls and their check, starts nothing."""

from __future__ import annotations

import dataclasses
import random

from PySide6.QtCore import QRegularExpression, QSize, Qt, Signal, Slot
from PySide6.QtGui import QRegularExpressionValidator
from PySide6.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import Conversation, GenerationParameters, ModelInfo, Turn
from bh_studio.engine.rules.parameters import MixingWeights, Mode, RuleParameters
from bh_studio.ui.compare.conversation_controls import ConversationControls
from bh_studio.ui.widgets.form_rows import add_row, describe, label_for, new_form, section
from bh_studio.ui.widgets.icons import icon
from bh_studio.ui.widgets.number_boxes import AlphaBox, ChoiceBox, CountBox, NumberBox
from bh_studio.ui.widgets.theme import GAP, GAP_LARGE, GAP_SMALL, GAP_TINY, Theme

_MOST_EXPERTS = 255  # a count is stored in eight bits
_MOST_TOKENS = 131072
_WIDTH_LETTERS = 38


class SettingsPanel(QScrollArea):
    """Controls for the rule and for generation."""

    edited = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._model: ModelInfo | None = None
        self.setProperty("role", "sidebar")
        self.setWidgetResizable(True)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._build_controls()
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(0, 0, GAP_SMALL, 0)
        layout.setSpacing(GAP_SMALL)
        layout.addWidget(self.conversation)
        layout.addWidget(section("BH rule"))
        layout.addLayout(self._rule_form())
        layout.addSpacing(GAP_LARGE)
        layout.addWidget(section("Generation"))
        layout.addLayout(self._generation_form())
        self._problem = QLabel()
        self._problem.setProperty("role", "problem")
        self._problem.setWordWrap(True)
        self._problem.setAccessibleName("What is wrong with the settings")
        layout.addWidget(self._problem)
        layout.addStretch(1)
        self.setWidget(content)
        self._connect()
        theme.changed.connect(self._take_theme)
        self._take_theme()
        self.show_rule(RuleParameters())
        self.show_generation(GenerationParameters())
        self._sync()

    def sizeHint(self) -> QSize:
        return QSize(self.fontMetrics().averageCharWidth() * _WIDTH_LETTERS, 400)

    @property
    def problem(self) -> str:
        """What makes a run impossible with these settings, a sentence; empty if nothing does."""
        try:
            rule = self.rule()
            self.generation()
            if self._model is not None:
                rule.check_shape(self._model.layers, self._model.experts)
        except ValueError as error:
            return str(error)
        return ""

    @property
    def is_chat(self) -> bool:
        """Whether the next prompt is a message to an instruct model."""
        can_chat = self._model is not None and self._model.has_chat_template
        return can_chat and self.conversation.is_chat

    def precedes(self, turns: tuple[Turn, ...]) -> Conversation | None:
        """What precedes the next prompt after `turns`; None if it is plain text."""
        return Conversation(self.conversation.system, turns) if self.is_chat else None

    def rule(self) -> RuleParameters:
        """The rule as set. Raises ValueError for an impossible combination."""
        return RuleParameters(
            level=self.alpha.value(),
            temperature=self.temperature.value(),
            min_k=self.min_k.value(),
            max_k=self.max_k.value(),
            mode=Mode(self.mode.value),
            weights=MixingWeights(self.weights.value),
        )

    def generation(self) -> GenerationParameters:
        """Generation as set. Raises ValueError for an impossible value."""
        if not self.seed.text():
            raise ValueError("The seed is empty; type a whole number.")
        return GenerationParameters(
            max_new_tokens=self.max_new_tokens.value(),
            sampling=self.decoding.value == "sampling",
            temperature=self.sampling_temperature.value(),
            top_p=self.top_p.value(),
            seed=int(self.seed.text()),
        )

    def show_rule(self, rule: RuleParameters) -> None:
        """Set the controls to `rule`."""
        if not isinstance(rule.level, tuple):
            self.alpha.setValue(rule.level)
        self.temperature.setValue(rule.temperature)
        self.min_k.setValue(rule.min_k)
        self.max_k.setValue(rule.max_k)
        self.mode.set_value(rule.mode.value)
        self.weights.set_value(rule.weights.value)

    def show_generation(self, generation: GenerationParameters) -> None:
        """Set the controls to `generation`."""
        self.max_new_tokens.setValue(generation.max_new_tokens)
        self.decoding.set_value("sampling" if generation.sampling else "greedy")
        self.sampling_temperature.setValue(generation.temperature)
        self.top_p.setValue(generation.top_p)
        self.seed.setText(str(generation.seed))

    def show_conversation(self, session: Session) -> None:
        """Take the prompt as `session` did; one of a model that cannot chat leaves the choice."""
        if session.conversation is not None:
            self.conversation.show_choice(is_chat=True)
            self.conversation.show_system(session.conversation.system)
        elif session.model.has_chat_template:
            self.conversation.show_choice(is_chat=False)

    def difference(self, rule: RuleParameters, generation: GenerationParameters) -> str:
        """What the controls hold in place of these values, a sentence; empty if all fit."""
        try:
            pairs = ((rule, self.rule()), (generation, self.generation()))
        except ValueError as error:
            return str(error)
        changes = [
            f"{item.name} {getattr(given, item.name)} became {getattr(held, item.name)}"
            for given, held in pairs
            for item in dataclasses.fields(given)
            if getattr(given, item.name) != getattr(held, item.name)
        ]
        return f"The controls cannot hold every value: {', '.join(changes)}." if changes else ""

    def set_model(self, model: ModelInfo | None) -> None:
        """Check against `model` from now on."""
        self._model = model
        self.conversation.setVisible(model is not None and model.has_chat_template)
        self._sync()

    def _build_controls(self) -> None:
        self.conversation = ConversationControls(self._theme)
        self.conversation.hide()
        self.alpha = AlphaBox()
        self.min_k = CountBox(1, _MOST_EXPERTS)
        self.max_k = CountBox(1, _MOST_EXPERTS)
        self.temperature = NumberBox(1e-6, 1000.0, decimals=6)
        self.mode = ChoiceBox(
            {Mode.PATCH.value: "Patch: BH routes", Mode.ANALYZE.value: "Analyze: only count"}
        )
        self.weights = ChoiceBox(
            {
                MixingWeights.MODEL.value: "As the model does",
                MixingWeights.RENORMALIZE.value: "Renormalize to 1",
                MixingWeights.MATCH.value: "Match top-k's sum",
            }
        )
        self.max_new_tokens = CountBox(1, _MOST_TOKENS)
        self.decoding = ChoiceBox({"greedy": "Greedy", "sampling": "Sampling"})
        self.sampling_temperature = NumberBox(1e-6, 1000.0, decimals=6)
        self.top_p = NumberBox(1e-6, 1.0, decimals=6, step=0.05)
        self.seed = QLineEdit()
        self.seed.setValidator(QRegularExpressionValidator(QRegularExpression(r"\d{1,19}")))
        self.new_seed = QToolButton()
        self.new_seed.setProperty("role", "tool")
        self.new_seed.setToolTip("Draw another seed")
        self.new_seed.setAccessibleName("Draw another seed")

    def _fields(self) -> tuple[QWidget, ...]:
        return (
            self.alpha, self.min_k, self.max_k, self.temperature, self.mode, self.weights,
            self.max_new_tokens, self.decoding, self.sampling_temperature, self.top_p, self.seed,
        )  # fmt: skip

    def _rule_form(self) -> QFormLayout:
        form = new_form()
        add_row(form, "Alpha", self.alpha,
                "BH level, between 0 and 1. Smaller selects fewer experts. The arrows walk along "
                "0.001, 0.002, 0.005, 0.01 and so on.")  # fmt: skip
        add_row(form, "min_k", self.min_k, "The least experts a token uses in a layer.")
        add_row(form, "max_k", self.max_k,
                "The most experts a token uses in a layer. The baseline's number is a fair "
                "ceiling.")  # fmt: skip
        add_row(form, "Temperature", self.temperature,
                "Divides the router's logits before BH scores them. 1 leaves them as they are.",
                "Router temperature")  # fmt: skip
        add_row(form, "Mode", self.mode,
                "Patch: BH chooses the experts of the BH side. Analyze: the model routes as always "
                "and BH only counts what it would have chosen.")  # fmt: skip
        add_row(form, "Weights", self.weights,
                "How the outputs of the chosen experts are mixed: with the weights the model "
                "gives them, or scaled to the sum 1, or to the sum that the model's own top-k "
                "would have.",
                "Mixing weights")  # fmt: skip
        return form

    def _generation_form(self) -> QFormLayout:
        form = new_form()
        add_row(form, "New tokens", self.max_new_tokens,
                "The most tokens each side may produce.", "Most new tokens")  # fmt: skip
        add_row(form, "Decoding", self.decoding,
                "Greedy takes the most probable token. Sampling draws one, repeatable by "
                "seed.")  # fmt: skip
        add_row(form, "Temperature", self.sampling_temperature,
                "Divides the vocabulary's logits before drawing. Only for sampling.",
                "Sampling temperature")  # fmt: skip
        add_row(form, "Top-p", self.top_p,
                "Draws among the most probable tokens that together hold this probability. Only "
                "for sampling.")  # fmt: skip
        row = QHBoxLayout()
        row.setSpacing(GAP_TINY)
        row.addWidget(self.seed, 1)
        row.addWidget(self.new_seed)
        label = label_for(self.seed, "Seed")
        describe(self.seed, "Seed", "Both sides draw from a generator started with this number. "
                  "Only for sampling.")  # fmt: skip
        form.addRow(label, row)
        return form

    def _connect(self) -> None:
        for box in (self.alpha, self.temperature, self.sampling_temperature, self.top_p):
            box.valueChanged.connect(self._sync)
        for counter in (self.min_k, self.max_k, self.max_new_tokens):
            counter.valueChanged.connect(self._sync)
        for choice in (self.mode, self.weights, self.decoding):
            choice.currentIndexChanged.connect(self._sync)
        self.seed.textChanged.connect(self._sync)
        self.conversation.edited.connect(self._sync)
        self.new_seed.clicked.connect(self._draw_seed)

    @Slot()
    def _draw_seed(self) -> None:
        self.seed.setText(str(random.randrange(2**31)))

    @Slot()
    def _sync(self) -> None:
        sampling = self.decoding.value == "sampling"
        for control in (self.sampling_temperature, self.top_p, self.seed, self.new_seed):
            control.setEnabled(sampling)
        problem = self.problem
        self._problem.setText(problem)
        self._problem.setVisible(bool(problem))
        self.edited.emit()

    @Slot()
    def _take_theme(self) -> None:
        colors = self._theme.colors
        self.new_seed.setIcon(icon("seed", colors.text, colors.faint))
        # Boxes of different kinds have different heights of their own; rows look even with one.
        for control in self._fields():
            control.setFixedHeight(self.fontMetrics().height() + GAP)
        self.setFixedWidth(self.sizeHint().width())
