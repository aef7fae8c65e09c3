"""The two sides of a run, and where their texts part. QtCore only: knows no engine and no state."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from bh_studio.engine.protocol.events import SideFinished, TokenGenerated
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import Conversation, GenerationParameters, ModelInfo
from bh_studio.engine.rules import Mode, RuleParameters, rule_title
from bh_studio.engine.rules.sides import side_letter
from bh_studio.ui.state.expert_scale import ExpertScale
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.state.transcript import passages
from bh_studio.ui.state.words import describe_rule, describe_top_k

_ANALYZE_NOTE = (
    "Analyze mode: this text was made with the baseline's routing. "
    "The counts are what {} would have used."
)
ANALYZE_NOTE = _ANALYZE_NOTE.format("BH")


class RunPair(QObject):
    """Keeps the models of both sides in step.

    first_difference: the first token in which the texts differ; None if none does so far.
    compared_tokens: tokens that both sides have, up to the first difference.
    notices: what a person should know of the run, each a sentence.
    """

    changed = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.baseline = RunModel("Baseline", self)
        self.bh = RunModel("BH", self)
        self.baseline.changed.connect(self.changed)
        self.bh.changed.connect(self.changed)
        self.first_difference: int | None = None
        self.compared_tokens = 0
        self.notices: tuple[str, ...] = ()

    def begin(
        self,
        prompt: str,
        rule: RuleParameters,
        generation: GenerationParameters,
        model: ModelInfo,
        conversation: Conversation | None,
    ) -> None:
        """Start both sides anew for a prompt."""
        self.first_difference = None
        self.compared_tokens = 0
        self.notices = ()
        scale = ExpertScale.spanning(rule.min_k, rule.max_k, model.top_k)
        for side, run in enumerate((self.baseline, self.bh)):
            is_bh = run is self.bh
            run.begin(
                prompt=prompt,
                passages=passages(prompt, conversation, side),
                layers=model.layers,
                top_k=model.top_k,
                scale=scale,
                most_tokens=generation.max_new_tokens,
                routing=describe_rule(rule, model) if is_bh else describe_top_k(model),
                note=_note(rule) if is_bh else "",
                can_be_limited=is_bh and rule.entry.can_be_limited,
            )

    def notice(self, text: str) -> None:
        """Take a fact of the run, once."""
        if text not in self.notices:
            self.notices += (text,)
            self.changed.emit()

    def append(self, event: TokenGenerated) -> None:
        """Take one token."""
        self._side(event.side).append(event)
        self._compare_tokens()

    def finish(self, event: SideFinished) -> None:
        """Take the end of one side."""
        self._side(event.side).finish(event)

    def replace(self, session: Session) -> None:
        """Take what a finished session says of both sides."""
        for run, record in zip((self.baseline, self.bh), session.records, strict=True):
            run.replace(record)
        self._compare_tokens()

    def fail(self) -> None:
        """Both sides end with what they have."""
        self.baseline.fail()
        self.bh.fail()

    def reset(self) -> None:
        """Forget both sides."""
        self.first_difference = None
        self.compared_tokens = 0
        self.notices = ()
        self.baseline.reset()
        self.bh.reset()

    def _compare_tokens(self) -> None:
        left, right = self.baseline.token_ids, self.bh.token_ids
        both = min(len(left), len(right))
        while self.first_difference is None and self.compared_tokens < both:
            if left[self.compared_tokens] != right[self.compared_tokens]:
                self.first_difference = self.compared_tokens
            self.compared_tokens += 1

    def _side(self, side: int) -> RunModel:
        return (self.baseline, self.bh)[side]


def _note(rule: RuleParameters) -> str:
    return _ANALYZE_NOTE.format(rule_title(rule)) if rule.mode is Mode.ANALYZE else ""


def shown_rule(session: Session) -> RuleParameters:
    """The rule that is compared with the model's own routing.

    Raises ValueError for a session with other sides.
    """
    match session.sides:
        case (None, RuleParameters() as rule):
            return rule
    raise ValueError(
        "Its sides are not the model's own routing and one rule, which is all that this window "
        "shows; `bh-studio compare` in a terminal answers with such sides."
    )


def check_session(session: Session) -> None:
    """Raise ValueError, TypeError or OverflowError for what cannot be shown."""
    rule = shown_rule(session)
    ExpertScale.spanning(rule.min_k, rule.max_k, session.model.top_k)
    describe_rule(rule, session.model)
    # Whole numbers too large for a float have no box that shows them.
    if isinstance(rule.level, tuple):
        raise ValueError("Its rule has a level for each layer, which this window cannot show.")
    for number in (rule.level, rule.temperature, session.generation.temperature):
        float(number)
    for side, record in enumerate(session.records):
        name = f"side {side_letter(side)}"
        shape = (len(record.token_ids), session.model.layers)
        if record.expert_counts.shape != shape or record.raw_counts.shape != shape:
            raise ValueError(f"The counts of {name} are not those of its tokens and layers.")
        trial = RunModel(name)
        trial.replace(record)
        _ = trial.statistics, trial.tokens_per_second, trial.time_to_first_token_s
