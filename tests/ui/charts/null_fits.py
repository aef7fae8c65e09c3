"""Nulls of a model of the fake engine's shape, judged without an engine."""

from __future__ import annotations

from functools import cache

import torch

from bh_studio.engine.calibration.diagnostics import null_fit
from bh_studio.engine.records.diagnostics import NullFit
from bh_studio.engine.records.recording import RecordingOrigin
from bh_studio.engine.records.terms import ModelInfo
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules import RuleParameters
from bh_studio.engine.rules.parameters import RouterShape
from bh_studio.ui.state.engine_model import EngineModel
from bh_studio.ui.state.inspection.null_fits import NullFits
from bh_studio.ui.state.jobs_model import JobsModel
from tests.fake_engine import MODEL

TOKENS = 240
# In its second half the scores of this layer are others, so that its null does not fit.
CHANGED_LAYER = 3


@cache
def recording() -> Recording:
    """A text whose layers all go on as they began, but for one."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(MODEL.layers, TOKENS, MODEL.experts, generator=generator)
    logits[CHANGED_LAYER, TOKENS // 2 :] *= 2
    return Recording(logits, RecordingOrigin("f", "text", TOKENS, 0, TOKENS, MODEL.top_k))


@cache
def fit_of(rule: RuleParameters) -> NullFit:
    """The null of `rule`, fitted on that text."""
    shape = RouterShape(MODEL.layers, MODEL.experts, MODEL.top_k, norm_topk_prob=False)
    return null_fit(RoutingRule(rule, recording(), shape))


class KnownNulls(NullFits):
    """Knows every null at once. words: what it says in place of all; empty for nothing.
    wanted: the rules that it was asked about, each time."""

    def __init__(self) -> None:
        super().__init__(EngineModel(JobsModel()))
        self.words = ""
        self.wanted: list[RuleParameters] = []

    def of(self, model: ModelInfo, rule: RuleParameters) -> NullFit | str:
        self.wanted.append(rule)
        return self.words or fit_of(rule)
