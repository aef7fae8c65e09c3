"""The form of one side: the model's own routing, or a rule with its values. Knows no other side."""

from __future__ import annotations

from PySide6.QtCore import Signal, Slot
from PySide6.QtWidgets import QFormLayout, QLabel, QPushButton, QToolButton, QVBoxLayout, QWidget

from bh_studio.engine.rules.catalogue import CATALOGUE, RuleName
from bh_studio.engine.rules.names import MixingWeights, Mode, NullName, OnEmpty, ScoreName
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.ui.state.words import rule_name
from bh_studio.ui.widgets.form_rows import add_row, new_form
from bh_studio.ui.widgets.number_boxes import ChoiceBox, CountBox, LevelBox, NumberBox
from bh_studio.ui.widgets.theme import GAP_SMALL

_MOST_EXPERTS = 255  # a count is stored in eight bits
_OWN = "own"
_OWN_SENTENCE = "The model's router decides, as it was trained: a fixed number of experts."
_WEIGHTS = {
    MixingWeights.MODEL: "As the model does",
    MixingWeights.RENORMALIZE: "Renormalize to 1",
    MixingWeights.MATCH: "Match top-k's sum",
}
_MODES = {Mode.PATCH: "Patch: the rule routes", Mode.ANALYZE: "Analyze: only count"}
_SCORES = {
    ScoreName.PROBABILITY: "Probability",
    ScoreName.LOGIT: "Logit",
    ScoreName.OUTPUT: "Probability × output",
    ScoreName.SENSITIVITY: "Probability × sensitivity",
}
_NULLS = {
    NullName.DISCARDED: "Discarded, of the layer",
    NullName.POOLED: "Discarded, of all layers",
    NullName.ALL: "All, of the layer",
    NullName.PER_EXPERT: "Of each expert",
    NullName.GAUSSIAN: "Gaussian",
    NullName.ROBUST: "Gaussian, robust",
    NullName.SOFTMAX: "Softmax of noise",
}
_ON_EMPTY = {OnEmpty.MIN_K: "min_k experts", OnEmpty.TOP_K: "The model's top-k"}


class RuleForm(QWidget):
    """Shows a rule and lets it be changed; what a rule may have is the catalogue's.

    edited: a control has another value.
    """

    edited = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        # A level for each layer has no box; it stays until another rule or one level is chosen.
        self._levels: tuple[float, ...] | None = None
        self._is_showing = False
        self._build_controls()
        self._sentence = QLabel()
        self._sentence.setProperty("role", "muted")
        self._sentence.setWordWrap(True)
        self._form = self._rule_rows()
        self._more_form = self._more_rows()
        self._more_page = QWidget()
        self._more_page.setLayout(self._more_form)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(GAP_SMALL)
        layout.addLayout(self._form)
        layout.addWidget(self.more)
        layout.addWidget(self._more_page)
        self._connect()
        self.show_rule(RuleParameters())

    # --- what it holds ---

    def rule(self) -> RuleParameters | None:
        """The rule as set, None for the model's own routing.

        Raises ValueError for an impossible combination.
        """
        if self.name.value == _OWN:
            return None
        name = RuleName(self.name.value)
        entry = CATALOGUE[name]
        usual = RuleParameters()
        return RuleParameters(
            rule=name,
            level=self.level.value() if self._levels is None else self._levels,
            temperature=self.temperature.value(),
            min_k=self.min_k.value(),
            max_k=self.max_k.value(),
            mode=Mode(self.mode.value),
            weights=MixingWeights(self.weights.value),
            on_empty=OnEmpty(self.on_empty.value),
            score=ScoreName(self.score.value) if len(entry.scores) > 1 else usual.score,
            null=NullName(self.null.value) if entry.is_test else usual.null,
        )

    def show_rule(self, rule: RuleParameters | None) -> None:
        """Set the controls to `rule`; nobody is told."""
        self._is_showing = True
        if rule is None:
            self.name.set_value(_OWN)
        else:
            self.name.set_value(rule.rule)
            self.level.set_entry(rule.entry)
            self._levels = None
            if isinstance(rule.level, tuple):
                self._levels = rule.level
            else:
                self.level.setValue(float(rule.level))
            for field in ("temperature", "min_k", "max_k"):
                getattr(self, field).setValue(getattr(rule, field))
            for field in ("mode", "weights", "on_empty", "score", "null"):
                getattr(self, field).set_value(getattr(rule, field))
        self._is_showing = False
        self._sync()

    @property
    def fields(self) -> tuple[QWidget, ...]:
        """The controls that stand in rows."""
        return (
            self.name, self.level, self.levels, self.min_k, self.max_k, self.weights, self.score,
            self.null, self.on_empty, self.temperature, self.mode,
        )  # fmt: skip

    # --- its parts ---

    def _build_controls(self) -> None:
        names = {_OWN: "Model's own"} | {name.value: rule_name(name) for name in CATALOGUE}
        self.name = ChoiceBox(names)
        self.level = LevelBox()
        self.levels = QPushButton("One a layer; set one for all")
        self.min_k = CountBox(1, _MOST_EXPERTS)
        self.max_k = CountBox(1, _MOST_EXPERTS)
        self.weights = ChoiceBox({name.value: words for name, words in _WEIGHTS.items()})
        self.more = QToolButton()
        self.more.setProperty("role", "tool")
        self.more.setText("More")
        self.more.setCheckable(True)
        self.more.setAccessibleName("More settings of the rule")
        self.more.setToolTip("Score, null, what is used where nothing is selected, temperature")
        self.score = ChoiceBox({name.value: words for name, words in _SCORES.items()})
        self.null = ChoiceBox({name.value: words for name, words in _NULLS.items()})
        self.on_empty = ChoiceBox({name.value: words for name, words in _ON_EMPTY.items()})
        self.temperature = NumberBox(1e-6, 1000.0, decimals=6)
        self.mode = ChoiceBox({name.value: words for name, words in _MODES.items()})

    def _rule_rows(self) -> QFormLayout:
        form = new_form()
        add_row(form, "Rule", self.name, "What decides how many experts a token uses in a layer.")
        form.addRow(self._sentence)
        add_row(form, "Level", self.level, "")
        add_row(form, "Levels", self.levels, "This rule has a level of its own for each layer.")
        add_row(form, "min_k", self.min_k, "The least experts a token uses in a layer.")
        add_row(form, "max_k", self.max_k,
                "The most experts a token uses in a layer. The number of the model's own routing "
                "is a fair ceiling.")  # fmt: skip
        add_row(form, "Weights", self.weights,
                "How the outputs of the chosen experts are mixed: with the weights the model "
                "gives them, or scaled to the sum 1, or to the sum that the model's own top-k "
                "would have.",
                "Mixing weights")  # fmt: skip
        return form

    def _more_rows(self) -> QFormLayout:
        form = new_form()
        add_row(form, "Score", self.score, "What an expert is judged by.")
        add_row(form, "Null", self.null,
                "What the scores are compared with: those of the experts that the model's router "
                "discarded while it read other text, or a model of them.")  # fmt: skip
        add_row(form, "If none", self.on_empty,
                "What a token uses in a layer in which the rule selects no expert.")  # fmt: skip
        add_row(form, "Router temp.", self.temperature,
                "Divides the router's logits before they are scored. 1 leaves them as they are.",
                "Router temperature")  # fmt: skip
        add_row(form, "Mode", self.mode,
                "Patch: the rule chooses the experts. Analyze: the model routes as always and the "
                "rule only counts what it would have chosen.")  # fmt: skip
        return form

    def _connect(self) -> None:
        self.name.currentIndexChanged.connect(self._take_name)
        for box in (self.level, self.temperature):
            box.valueChanged.connect(self._edit)
        for counter in (self.min_k, self.max_k):
            counter.valueChanged.connect(self._edit)
        for choice in (self.mode, self.weights, self.score, self.null, self.on_empty):
            choice.currentIndexChanged.connect(self._edit)
        self.levels.clicked.connect(self._set_one_level)
        self.more.toggled.connect(self._sync)

    @Slot()
    def _take_name(self) -> None:
        """Another rule begins with its example, and what it cannot have falls back."""
        if self._is_showing:
            return
        if self.name.value != _OWN:
            entry = CATALOGUE[RuleName(self.name.value)]
            self._levels = None
            self.level.set_entry(entry)
            self.level.setValue(entry.example)
            if ScoreName(self.score.value) not in entry.scores:
                self.score.set_value(entry.scores[0])
            if entry.level_is_count:
                self.max_k.setValue(max(self.max_k.value(), round(entry.example)))
        self._edit()

    @Slot()
    def _set_one_level(self) -> None:
        self._levels = None
        self.level.setFocus()
        self._edit()

    @Slot()
    def _edit(self) -> None:
        if not self._is_showing:
            self._sync()
            self.edited.emit()

    @Slot()
    def _sync(self) -> None:
        is_own = self.name.value == _OWN
        entry = None if is_own else CATALOGUE[RuleName(self.name.value)]
        self._sentence.setText(_OWN_SENTENCE if entry is None else entry.sentence)
        of_layers = self._levels is not None
        shown: dict[QWidget, bool] = {
            self.level: entry is not None and not of_layers,
            self.levels: entry is not None and of_layers,
            self.score: entry is not None and len(entry.scores) > 1,
            self.null: entry is not None and entry.is_test,
            self.on_empty: entry is not None and (entry.is_test or entry.name is RuleName.CUT),
        }
        always = (self.min_k, self.max_k, self.weights, self.temperature, self.mode)
        shown |= dict.fromkeys(always, entry is not None)
        for form in (self._form, self._more_form):
            for control, is_shown in shown.items():
                if form.indexOf(control) >= 0:
                    form.setRowVisible(control, is_shown)
        self.more.setVisible(entry is not None)
        self._more_page.setVisible(entry is not None and self.more.isChecked())
        if entry is not None:
            label = self._form.labelForField(self.level)
            assert isinstance(label, QLabel)
            label.setText(entry.symbol)
            self.level.setAccessibleName(f"{entry.symbol}, the level")
            self.level.setToolTip(f"{entry.symbol} {entry.levels.words}.")
