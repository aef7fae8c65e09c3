"""The search for the level of a mean, with decoding replaced by functions."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from transformers import OlmoeForCausalLM, PreTrainedTokenizerFast

from bh_studio.engine.errors import EngineError
from bh_studio.engine.experiments.benchmark.decoded_level import TOLERANCE, level_for_mean
from bh_studio.engine.experiments.budget.mean_experts import Replay
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.rules.parameters import RouterShape, RuleParameters
from tests.tiny_olmoe import EXPERTS, LAYERS, TOP_K

RULE = RuleParameters(max_k=8)


@pytest.fixture
def loaded(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast, recording: Recording
) -> LoadedModel:
    shape = RouterShape(LAYERS, EXPERTS, TOP_K, norm_topk_prob=False)
    info = SimpleNamespace(fingerprint=recording.origin.model_fingerprint)
    return LoadedModel(model, tokenizer, recording, shape, info, frozenset())  # type: ignore[arg-type]


@pytest.mark.parametrize("decoded", [lambda m: m, lambda m: 0.7 * m + 0.5, lambda m: m - 0.9])
def test_finds_a_level_though_decoding_differs_from_the_estimate(
    loaded: LoadedModel, decoded: Callable[[float], float]
) -> None:
    replay, tried = Replay(loaded), []

    def decoded_mean(rule: RuleParameters) -> float:
        tried.append(rule)
        return decoded(float(replay.means(rule).mean()))

    found = level_for_mean(loaded, 4.0, RULE, decoded_mean)
    assert found.mean == pytest.approx(4.0, abs=TOLERANCE)
    assert (found.level, found.runs) == (tried[-1].level, len(tried))
    assert all(rule.max_k == 8 for rule in tried)


def test_says_what_came_nearest(loaded: LoadedModel) -> None:
    with pytest.raises(EngineError, match=r"uses 4 experts .* nearest mean was 4\.25"):
        level_for_mean(loaded, 4.0, RULE, lambda rule: 4.25)
