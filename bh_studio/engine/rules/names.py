"""The names of what a rule compares and does: scores, nulls, modes. Knows no rule and no value."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """What the rule does to the model: change its routing, or only count what it would do."""

    PATCH = "patch"
    ANALYZE = "analyze"


class MixingWeights(StrEnum):
    """How the outputs of the selected experts are weighted.

    MODEL: as the model's own router does. RENORMALIZE: scaled to sum 1. MATCH: scaled to the sum
    that the weights of the model's own top-k would have had for this token. All three are the same
    for a model that scales its own weights to sum 1 (norm_topk_prob).
    """

    MODEL = "model"
    RENORMALIZE = "renormalize"
    MATCH = "match"


class OnEmpty(StrEnum):
    """What a token gets where the rule selects no expert: min_k, or as many as the model's own."""

    MIN_K = "min_k"
    TOP_K = "top_k"


class ScoreName(StrEnum):
    """What an expert is judged by.

    PROBABILITY: softmax over all experts. LOGIT: the router's raw output. The others multiply the
    probability with a factor of each expert, measured in calibration: OUTPUT with the usual norm of
    its output, SENSITIVITY with how much its output matters to the model's answer; then the max_k
    most probable experts are the candidates, and the others are not selected.
    """

    PROBABILITY = "probability"
    LOGIT = "logit"
    OUTPUT = "output"
    SENSITIVITY = "sensitivity"

    @property
    def has_factor(self) -> bool:
        """Whether the probability is multiplied with a factor of each expert."""
        return self in (ScoreName.OUTPUT, ScoreName.SENSITIVITY)


class NullName(StrEnum):
    """What scores look like under H0; see routing.nulls."""

    DISCARDED = "discarded"
    POOLED = "pooled"
    ALL = "all"
    PER_EXPERT = "per-expert"
    GAUSSIAN = "gaussian"
    ROBUST = "robust"
    SOFTMAX = "softmax"
