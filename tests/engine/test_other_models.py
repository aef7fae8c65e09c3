"""Rules in FlexOlmo and Qwen3-MoE, with and without weights scaled to sum 1, and dense layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from bh_studio.engine.calibration.recorder import calibration_text, make_recording
from bh_studio.engine.decoding.side import SideDecoder
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.moe.expert_rows import ExpertRows
from bh_studio.engine.moe.expert_weights import find_experts
from bh_studio.engine.moe.experts import expert_output, use_selected_experts
from bh_studio.engine.moe.fingerprint import check_recording
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.moe.routers import find_routers, router_shape
from bh_studio.engine.protocol.experiments import Budget, Comparison, Evaluation
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.recording import RecordingError
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.rules.parameters import (
    MixingWeights,
    Mode,
    RouterShape,
    RuleName,
    RuleParameters,
    ScoreName,
)
from bh_studio.engine.rules.text import parse_rule
from tests.engine.experiments.running import result_of
from tests.tiny_moe import save_tiny_of_type, tiny_of_type
from tests.tiny_olmoe import CONTEXT, EXPERTS, HIDDEN, TOP_K, tiny_tokenizer

DTYPES = [torch.float32, torch.bfloat16]
# Few scores in a tiny null: it says so at strict levels, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:The null holds")


@dataclass(frozen=True)
class Kind:
    """A tiny model of another architecture. routed: its layers that have a router."""

    model_type: str
    normalizes: bool
    config: dict[str, Any] = field(default_factory=dict)
    routed: tuple[int, ...] = (0, 1, 2)

    def __str__(self) -> str:
        dense = "-dense-layers" if self.config else ""
        return f"{self.model_type}-{'normalized' if self.normalizes else 'plain'}{dense}"

    @property
    def settings(self) -> dict[str, Any]:
        return {"norm_topk_prob": self.normalizes, **self.config}

    @property
    def shape(self) -> RouterShape:
        return RouterShape(len(self.routed), EXPERTS, TOP_K, self.normalizes)

    def model(self, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        model = tiny_of_type(self.model_type, dtype, **self.settings)
        use_selected_experts(model)
        return model


_WITH_DENSE = {"num_hidden_layers": 4, "mlp_only_layers": [0, 2]}
KINDS = [
    Kind("flex_olmo", normalizes=False),
    Kind("flex_olmo", normalizes=True),
    Kind("qwen3_moe", normalizes=False),
    Kind("qwen3_moe", normalizes=True),
    Kind("qwen3_moe", normalizes=True, config=_WITH_DENSE, routed=(1, 3)),
]


@pytest.fixture(scope="module", params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(scope="module")
def own_null(kind: Kind, tokenizer: PreTrainedTokenizerFast) -> Recording:
    factors = [ScoreName.OUTPUT, ScoreName.SENSITIVITY]
    return make_recording(kind.model(), tokenizer, calibration_text()[:4000], factors=factors)


@pytest.fixture(scope="module")
def loaded(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp(str(kind))
    return load_model(str(save_tiny_of_type(kind.model_type, folder, **kind.settings)))


def prompt() -> Tensor:
    ids: Tensor = tiny_tokenizer()("Once upon a time there was a miller", return_tensors="pt")[
        "input_ids"
    ]
    return ids


@torch.inference_mode()
def logits_of(model: PreTrainedModel) -> Tensor:
    """Of the prompt in one pass, and then of six tokens one at a time."""
    first = model(prompt(), use_cache=True)
    logits = [first.logits]
    for token in range(65, 71):
        ids = torch.tensor([[token]])
        logits.append(model(ids, past_key_values=first.past_key_values, use_cache=True).logits)
    return torch.cat(logits, dim=1)


def with_rule(
    model: PreTrainedModel, recording: Recording, parameters: RuleParameters
) -> RoutingIntegration:
    """With the null whatever the dtype: the null of float32 serves the tests in bfloat16 too."""
    integration = RoutingIntegration(model, parameters)
    integration._recording = recording
    return integration


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("implementation", ["bh_selected", "batched_mm", "grouped_mm", "eager"])
def test_the_models_own_counts_change_no_bit(
    implementation: str, dtype: torch.dtype, kind: Kind, own_null: Recording
) -> None:
    model = kind.model(dtype)
    model.set_experts_implementation(implementation)
    stock = logits_of(model)
    for weights in MixingWeights if kind.normalizes else (MixingWeights.MODEL, MixingWeights.MATCH):
        parameters = RuleParameters(level=0.3, min_k=TOP_K, max_k=TOP_K, weights=weights)
        with with_rule(model, own_null, parameters):
            assert torch.equal(logits_of(model), stock)
        # Further slots that stay unused; these two add no rows to other experts' products.
        if implementation in ("bh_selected", "batched_mm"):
            parameters = RuleParameters(RuleName.TOP_K, TOP_K, max_k=EXPERTS, weights=weights)
            with with_rule(model, own_null, parameters):
                assert torch.equal(logits_of(model), stock)
    with with_rule(model, own_null, RuleParameters(level=0.3, max_k=2)):
        assert not torch.equal(logits_of(model), stock)
    assert torch.equal(logits_of(model), stock)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_analyze_mode_changes_no_bit_and_counts(
    dtype: torch.dtype, kind: Kind, own_null: Recording
) -> None:
    model = kind.model(dtype)
    stock = logits_of(model)
    parameters = RuleParameters(level=0.3, max_k=EXPERTS, mode=Mode.ANALYZE)
    with with_rule(model, own_null, parameters) as analyzing:
        assert torch.equal(logits_of(model), stock)
    counts, _ = analyzing.last_counts()
    assert counts.shape == (1, len(kind.routed))
    stats = analyzing.get_routing_stats()
    assert stats["tokens"] == prompt().shape[1] + 6
    assert len(stats["per_layer_mean"]) == len(kind.routed)
    assert np.count_nonzero(stats["histogram"]) > 2


def test_weights_are_the_models_own_over_the_selected_experts(
    kind: Kind, own_null: Recording
) -> None:
    model = kind.model()
    router = find_routers(model)[0]
    hidden = torch.randn(50, HIDDEN)
    with torch.inference_mode():
        logits, own, _ = router(hidden)
        found = {}
        for weights in MixingWeights:
            parameters = RuleParameters(level=0.3, max_k=10, weights=weights)
            with with_rule(model, own_null, parameters):
                found[weights], indices = router(hidden)[1:]
    used = found[MixingWeights.MODEL] > 0
    assert len(set(used.sum(1).tolist())) > 3
    selected = torch.where(used, logits.softmax(-1).gather(1, indices), 0)
    shares = selected / selected.sum(1, keepdim=True)
    torch.testing.assert_close(found[MixingWeights.RENORMALIZE], shares)
    torch.testing.assert_close(found[MixingWeights.MODEL], shares if kind.normalizes else selected)
    # As much together as the model's own top-k: 1 where it scales them to sum 1.
    torch.testing.assert_close(found[MixingWeights.MATCH].sum(1), own.sum(1))
    if kind.normalizes:
        torch.testing.assert_close(own.sum(1), torch.ones(50))
        assert torch.equal(found[MixingWeights.MATCH], found[MixingWeights.MODEL])


def test_fewer_experts_run_where_the_rule_selects_fewer(kind: Kind, own_null: Recording) -> None:
    model = kind.model()
    tokens = prompt().shape[1] + 6
    with ExpertRows(model) as stock:
        logits_of(model)
    assert stock.rows == [TOP_K * tokens] * len(kind.routed)
    rule = with_rule(model, own_null, RuleParameters(level=0.1, max_k=TOP_K - 1))
    with ExpertRows(model) as counter, rule:
        logits_of(model)
    used = np.array(rule.get_routing_stats()["per_layer_mean"]) * tokens
    assert counter.rows == used.round().astype(int).tolist()
    assert sum(counter.rows) < 0.75 * sum(stock.rows)


def test_an_error_inside_leaves_the_model_as_it_was(kind: Kind, own_null: Recording) -> None:
    model = kind.model()
    stock = logits_of(model)
    rule = with_rule(model, own_null, RuleParameters(level=0.3, max_k=2))

    def fail() -> None:
        with rule:
            model(torch.tensor([[10**6]]))

    with pytest.raises(IndexError):
        fail()
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.equal(logits_of(model), stock)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_decode_loop_equals_generate(
    dtype: torch.dtype, kind: Kind, own_null: Recording
) -> None:
    model = kind.model(dtype)
    rule = with_rule(model, own_null, RuleParameters(level=0.1, max_k=TOP_K))
    for integration in (None, rule):
        decoder = SideDecoder(
            model,
            prompt(),
            GenerationParameters(30, sampling=False),
            frozenset([256]),
            kind.shape,
            integration,
        )
        steps = [decoder.step()]
        while steps[-1].finish_reason is None:
            steps.append(decoder.step())
        if integration is not None:
            integration.patch_model()
        expected = model.generate(prompt(), do_sample=False, max_new_tokens=30)
        assert [step.token_id for step in steps] == expected[0, prompt().shape[1] :].tolist()
        assert steps[0].expert_counts.shape == (prompt().shape[1], len(kind.routed))
    rule.unpatch_model()


def test_the_null_is_the_models_own(kind: Kind, own_null: Recording) -> None:
    model = kind.model()
    assert router_shape(find_routers(model)) == kind.shape
    assert own_null.logits.shape[0] == len(kind.routed)
    check_recording(own_null, model)
    with pytest.raises(RecordingError, match="dtype"):
        check_recording(own_null, kind.model(torch.bfloat16))
    changed = kind.model()
    changed.config.sliding_window = 8
    with pytest.raises(RecordingError, match="another model"):
        check_recording(own_null, changed)
    # What was recorded are the logits that the routers give.
    with torch.inference_mode():
        ids = tiny_tokenizer()(calibration_text()[:CONTEXT], return_tensors="pt").input_ids
        given = model(ids, output_router_logits=True).router_logits
    for layer, logits in enumerate(given):
        torch.testing.assert_close(own_null.logits[layer, : CONTEXT - 4], logits[4:])


def test_every_score_has_its_factors(kind: Kind, own_null: Recording) -> None:
    for factors in own_null.factors.values():
        assert factors.shape == (len(kind.routed), EXPERTS)
        assert factors.isfinite().all()
        assert (factors > 0).all()
        assert factors.std() > 0
    for score in own_null.factors:
        parameters = RuleParameters(level=0.3, max_k=TOP_K, score=score)
        rule = with_rule(kind.model(), own_null, parameters)
        with rule:
            logits_of(rule.model)
        assert 1 < rule.get_routing_stats()["mean_experts_per_token"] < TOP_K


def test_the_experts_are_those_of_the_routed_layers(kind: Kind) -> None:
    model = kind.model()
    experts = find_experts(model)
    layers = model.model.layers
    assert all(e is layers[n].mlp.experts for e, n in zip(experts, kind.routed, strict=True))
    rows = torch.randn(3, HIDDEN)
    alone = torch.full((3, 1), 5), torch.ones(3, 1)
    model.set_experts_implementation("eager")
    for module in experts:
        stock = module(rows, *alone)  # type: ignore[operator]
        torch.testing.assert_close(expert_output(module, rows, 5), stock)


def test_a_comparison_and_an_evaluation_have_one_column_a_router(
    kind: Kind, loaded: LoadedModel
) -> None:
    layers = len(kind.routed)
    assert (loaded.info.layers, loaded.shape) == (layers, kind.shape)
    rule = RuleParameters(level=0.1, max_k=TOP_K)
    generation = GenerationParameters(8, sampling=False)
    definition = Comparison(prompt="Once upon", sides=(None, rule), generation=generation)
    for record in result_of(loaded, definition).records:
        assert record.expert_counts.shape == (len(record.token_ids), layers)
    text = Text("tale", calibration_text()[:600])
    rules = (parse_rule(f"top-k:{TOP_K}"), rule)
    evaluation = result_of(loaded, Evaluation(texts=(text,), rules=rules, with_controls=True))
    scores = {c.label: s for c, s in zip(evaluation.contenders, evaluation.scores(), strict=True)}
    assert scores[f"top-k:{TOP_K}"].kl == (0.0, 0.0, 0.0)
    assert scores["baseline (again)"].kl == (0.0, 0.0, 0.0)
    assert evaluation.scores()[2].kl.value > 0
    assert len(evaluation.scores()[2].per_layer_experts) == layers


def test_levels_by_layer_are_found_past_dense_layers(kind: Kind, loaded: LoadedModel) -> None:
    text = Text("fit", calibration_text()[: 4 * CONTEXT + 1])
    budget = result_of(
        loaded, Budget(target=3.0, rule=RuleParameters(max_k=6), fit=(text,), by_layer=True)
    )
    assert budget.by_layer is not None
    assert len(budget.by_layer.per_layer) == len(kind.routed)
    assert budget.by_layer.mean == pytest.approx(3.0, rel=0.02)
