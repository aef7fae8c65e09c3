"""The words of a record: sides, how tokens were chosen, what preceded a prompt, and the model.

Knows no file, no Qt and no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bh_studio.engine.errors import EngineError

# What files called the two sides of a comparison, by number, while there were no others: the
# model's own routing, and the rule.
FORMER_SIDE_NAMES = ("baseline", "bh")


class FinishReason(StrEnum):
    """Why a side stopped producing tokens.

    BROKEN_OFF: an error, or the end of the program, came before its last token.
    """

    END_OF_TEXT = "end_of_text"
    MAX_NEW_TOKENS = "max_new_tokens"
    CONTEXT_LENGTH = "context_length"
    STOPPED = "stopped"
    BROKEN_OFF = "broken_off"


class Keep(StrEnum):
    """What a comparison keeps of each position beside the counts, the experts that ran and how
    probable its token was. LOGITS: the router logits too, four bytes an expert and layer."""

    LOGITS = "logits"
    COUNTS = "counts"


@dataclass(frozen=True, slots=True)
class GenerationParameters:
    """How tokens are chosen, for all sides alike.

    max_new_tokens: the most tokens a side may produce; at least 1.
    sampling: True draws tokens, False takes the most probable one (greedy) and leaves the three
        values below without effect. All sides draw with the same random numbers, so they part
        only where the routing has changed the probabilities enough.
    temperature: divides the vocabulary logits before sampling; > 0.
    top_p: keep the most probable tokens that together hold this probability; in (0, 1].
    seed: each side draws from a generator started with it.

    Raises ValueError for values outside these ranges.
    """

    max_new_tokens: int = 128
    sampling: bool = True
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1; got {self.max_new_tokens}.")
        if not 0.0 < self.temperature < float("inf"):
            raise ValueError(
                f"The sampling temperature must be a positive number; got {self.temperature}."
            )
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must lie above 0 and be at most 1; got {self.top_p}.")
        if not 0 <= self.seed < 2**63:
            raise ValueError(
                f"The seed must be a whole number from 0 to 2^63 - 1; got {self.seed}."
            )


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier question of a conversation, and what each side answered to it, by number."""

    prompt: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What precedes a prompt to an instruct model; each side remembers its own answers.

    system: the system prompt; empty for none. turns: earlier turns, the oldest first.
    """

    system: str = ""
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The loaded model, as a session records it.

    id: "embedded", a folder, or a hub's OWNER/NAME. revision: the hub's commit; empty if there is
    none. has_chat_template: whether the model's tokenizer can write conversations.
    null_sha256: hash of the scores of the null that the rule compares with.
    null_samples: scores in the null of one layer; the smallest p-value is 1 / (null_samples + 1).
    expert_path: the computation that ran the experts. decode_path: the forward that read tokens
    after the prompt, and why no faster one did; empty in sessions that do not say.
    norm_topk_prob: whether its router scales mixing weights to sum 1; None in sessions that do not
    say.
    """

    id: str
    name: str
    architecture: str
    fingerprint: str
    layers: int
    experts: int
    top_k: int
    context_length: int
    parameter_count: int
    dtype: str
    device: str
    expert_path: str
    null_sha256: str
    null_samples: int
    revision: str = ""
    has_chat_template: bool = False
    decode_path: str = ""
    norm_topk_prob: bool | None = None

    def check_chat_template(self) -> None:
        """Raise EngineError for a model that cannot have conversations."""
        if not self.has_chat_template:
            raise EngineError(
                f"{self.name} continues texts; it has no chat template for a conversation.",
                "Give it plain text, or load an instruct model.",
            )


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Memory that a model takes on one device, in bytes, and what is free there.

    device: "cpu", "cuda:0" and so on. weights: parameters in the dtype they are loaded in. cache:
    keys and values of both sides for `cache_tokens` tokens each. headroom: activations, and what
    the libraries hold besides. free: what the device has now.
    """

    device: str
    weights: int
    cache: int
    cache_tokens: int
    headroom: int
    free: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.headroom

    @property
    def fits(self) -> bool:
        return self.total <= self.free
