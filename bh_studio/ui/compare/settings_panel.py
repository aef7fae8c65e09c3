"""The parameters of the next run. Holds controls and their check, starts nothing."""

from __future__ import annotations

import contextlib
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
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.sides import Sides, check_sides, side_letter
from bh_studio.ui.compare.conversation_controls import ConversationControls
from bh_studio.ui.compare.rule_form import RuleForm
from bh_studio.ui.compare.side_list import SideList
from bh_studio.ui.widgets.form_rows import add_row, describe, label_for, new_form, section
from bh_studio.ui.widgets.icons import icon
from bh_studio.ui.widgets.number_boxes import ChoiceBox, CountBox, NumberBox
from bh_studio.ui.widgets.theme import GAP, GAP_LARGE, GAP_SMALL, GAP_TINY, Theme

_MOST_TOKENS = 131072
_WIDTH_LETTERS = 38


class SettingsPanel(QScrollArea):
    """Controls for the sides, the rule of one of them, and generation."""

    edited = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._model: ModelInfo | None = None
        self._is_same_text = False
        self.setProperty("role", "sidebar")
        self.setWidgetResizable(True)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._build_controls()
        content = QWidget()
        layout = QVBoxLayout(content)
        layout.setContentsMargins(0, 0, GAP_SMALL, 0)
        layout.setSpacing(GAP_SMALL)
        layout.addWidget(self.conversation)
        layout.addWidget(section("Sides"))
        layout.addWidget(self.side_list)
        self._side_title = section("")
        layout.addSpacing(GAP)
        layout.addWidget(self._side_title)
        layout.addWidget(self.rule_form)
        layout.addSpacing(GAP_LARGE)
        layout.addWidget(section("Generation"))
        self._no_generation = QLabel("Nothing is generated: all sides read the same text.")
        self._no_generation.setProperty("role", "muted")
        self._no_generation.setWordWrap(True)
        self._no_generation.hide()
        layout.addWidget(self._no_generation)
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
        self.show_sides((None, RuleParameters()))
        self.show_generation(GenerationParameters())
        self._sync()

    def sizeHint(self) -> QSize:
        return QSize(self.fontMetrics().averageCharWidth() * _WIDTH_LETTERS, 400)

    @property
    def problem(self) -> str:
        """What makes a run impossible with these settings, a sentence; empty if nothing does."""
        try:
            self.rule_form.rule()
            sides = self.sides()
            check_sides(sides)
            if not self._is_same_text:
                self.generation()
            model = self._model
            for rule in sides:
                if rule is not None and model is not None:
                    rule.check_shape(model.layers, model.experts)
        except ValueError as error:
            return str(error)
        return ""

    @property
    def is_chat(self) -> bool:
        """Whether the next prompt is a message to an instruct model."""
        can_chat = self._model is not None and self._model.has_chat_template
        return can_chat and self.conversation.is_chat and not self._is_same_text

    @property
    def is_sampling(self) -> bool:
        """Whether tokens are drawn, so that the seed matters."""
        return self.decoding.value == "sampling" and not self._is_same_text

    def precedes(self, turns: tuple[Turn, ...]) -> Conversation | None:
        """What precedes the next prompt after `turns`; None if it is plain text."""
        return Conversation(self.conversation.system, turns) if self.is_chat else None

    def sides(self) -> tuple[RuleParameters | None, ...]:
        """The sides as set. Where the form holds an impossible combination, its side is as it was
        before."""
        return self.side_list.sides

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

    def show_sides(self, sides: Sides) -> None:
        """Set the controls to `sides`, as far as they can hold them."""
        held = []
        for rule in sides:
            self.rule_form.show_rule(rule)
            held.append(self.rule_form.rule())
        self.side_list.show_sides(held)

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

    def difference(self, sides: Sides, generation: GenerationParameters | None = None) -> str:
        """What the controls hold in place of these values, a sentence; empty if all fit.

        generation: None where nothing is generated.
        """
        try:
            held = None if generation is None else self.generation()
            pairs = ((generation, held), *zip(sides, self.sides(), strict=True))
        except ValueError as error:
            return str(error)
        changes = [
            f"{item.name} {getattr(given, item.name)} became {getattr(held, item.name)}"
            for given, held in pairs
            if given is not None
            for item in dataclasses.fields(given)
            if getattr(given, item.name) != getattr(held, item.name)
        ]
        return f"The controls cannot hold every value: {', '.join(changes)}." if changes else ""

    def set_model(self, model: ModelInfo | None) -> None:
        """Check against `model` from now on."""
        self._model = model
        self._show_conversation()
        self._sync()

    @Slot(bool)
    def show_same_text(self, is_same_text: bool) -> None:
        """Set up for a text that all sides read, or for answers that each generates."""
        self._is_same_text = is_same_text
        self._no_generation.setVisible(is_same_text)
        self._show_conversation()
        self._sync()

    def _show_conversation(self) -> None:
        can_chat = self._model is not None and self._model.has_chat_template
        self.conversation.setVisible(can_chat and not self._is_same_text)

    def _build_controls(self) -> None:
        self.conversation = ConversationControls(self._theme)
        self.conversation.hide()
        self.side_list = SideList(self._theme)
        self.rule_form = RuleForm()
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
            *self.rule_form.fields, self.max_new_tokens, self.decoding,
            self.sampling_temperature, self.top_p, self.seed,
        )  # fmt: skip

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
        describe(self.seed, "Seed", "All sides draw from generators started with this number. "
                  "Only for sampling.")  # fmt: skip
        form.addRow(label, row)
        return form

    def _connect(self) -> None:
        self.side_list.chosen.connect(self._show_side)
        self.side_list.changed.connect(self._sync)
        self.rule_form.edited.connect(self._take_rule)
        for box in (self.sampling_temperature, self.top_p):
            box.valueChanged.connect(self._sync)
        self.max_new_tokens.valueChanged.connect(self._sync)
        self.decoding.currentIndexChanged.connect(self._sync)
        self.seed.textChanged.connect(self._sync)
        self.conversation.edited.connect(self._sync)
        self.new_seed.clicked.connect(self.draw_seed)

    @Slot()
    def _show_side(self) -> None:
        self._side_title.setText(f"Side {side_letter(self.side_list.current)}")
        self.rule_form.show_rule(self.side_list.rule)
        self._sync()

    @Slot()
    def _take_rule(self) -> None:
        # What cannot be is told, and is not taken.
        with contextlib.suppress(ValueError):
            self.side_list.set_rule(self.rule_form.rule())
        self._sync()

    @Slot()
    def draw_seed(self) -> None:
        """Take another seed."""
        self.seed.setText(str(random.randrange(2**31)))

    @Slot()
    def _sync(self) -> None:
        sampling = self.is_sampling
        for control in (self.sampling_temperature, self.top_p, self.seed, self.new_seed):
            control.setEnabled(sampling)
        self.max_new_tokens.setEnabled(not self._is_same_text)
        self.decoding.setEnabled(not self._is_same_text)
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
