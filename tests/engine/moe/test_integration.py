"""The integration: identity, restoration, errors, and statistics that say what happened."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel, OlmoeForCausalLM, PreTrainedTokenizerFast

from bh_studio.engine import BHRoutingIntegration
from bh_studio.engine.moe.experts import use_selected_experts
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.records.recording import RecordingError
from bh_studio.engine.routing import selection
from bh_studio.engine.routing.fdr import step_up_rejections
from bh_studio.engine.routing.nulls import null_model
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.scores import Scorer
from bh_studio.engine.rules.parameters import NullName, RuleParameters, ScoreName
from tests.tiny_olmoe import EXPERTS, LAYERS, TOP_K, tiny_model, tiny_tokenizer

IMPLEMENTATIONS = ["eager", "batched_mm", "grouped_mm", "bh_selected"]
DTYPES = [torch.float32, torch.bfloat16]


def tokens(text: str = "Once upon a time there was a miller") -> Tensor:
    token_ids: Tensor = tiny_tokenizer()(text, return_tensors="pt").input_ids
    return token_ids


@torch.inference_mode()
def logits_of(model: OlmoeForCausalLM, token_ids: Tensor | None = None) -> Tensor:
    logits: Tensor = model(tokens() if token_ids is None else token_ids).logits
    return logits


def integration(
    model: OlmoeForCausalLM, recording: Recording, **parameters: Any
) -> RoutingIntegration:
    """With the recording whatever the dtype: that of float32 serves the tests in bfloat16 too."""
    counts = parameters.pop("collect_stats", True)
    values = {"level": parameters.pop("alpha", 0.3), "max_k": TOP_K, **parameters}
    rule = RuleParameters(**values)
    return RoutingIntegration(model, rule, recording=recording, collect_stats=counts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_analyze_and_the_identity_rule_change_no_bit(
    implementation: str, dtype: torch.dtype, recording: Recording
) -> None:
    model = tiny_model(dtype=dtype)
    model.set_experts_implementation(implementation)
    stock = logits_of(model)
    with integration(model, recording, mode="analyze"):
        assert torch.equal(logits_of(model), stock)
    with integration(model, recording, min_k=TOP_K, max_k=TOP_K):
        assert torch.equal(logits_of(model), stock)
    with integration(model, recording, max_k=2):
        assert not torch.equal(logits_of(model), stock)
    assert torch.equal(logits_of(model), stock)


@pytest.mark.parametrize("mode", ["analyze", "patch"])
def test_generated_tokens_are_unchanged_by_analyze_and_identity(
    mode: str, model: OlmoeForCausalLM, recording: Recording
) -> None:
    stock = model.generate(tokens(), max_new_tokens=30, do_sample=False)
    with integration(model, recording, mode=mode, min_k=TOP_K):
        assert torch.equal(model.generate(tokens(), max_new_tokens=30, do_sample=False), stock)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("norm_topk_prob", [False, True])
def test_padding_slots_change_nothing(
    implementation: str, norm_topk_prob: bool, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The counts of top-k in a selection of 12 slots: 8 of them are padding.
    model = tiny_model(norm_topk_prob=norm_topk_prob)
    model.set_experts_implementation(implementation)
    prompt, single = tokens(), tokens()[:, :1]
    stock = logits_of(model, prompt), logits_of(model, single)
    bh = integration(model, recording, max_k=12)
    with bh:
        rule = bh._rule
        assert rule is not None
        four = lambda _layer, scores: torch.full((len(scores),), TOP_K)  # noqa: E731
        monkeypatch.setattr(rule, "_raw_counts", four)
        monkeypatch.setattr(selection, "step_up_count", lambda _scores, _thresholds: TOP_K)
        padded = logits_of(model, prompt), logits_of(model, single)
    # With several tokens padding makes the groups of an expert larger, and a product of another
    # size may round its last bit otherwise; with one token nothing can.
    torch.testing.assert_close(padded[0], stock[0], rtol=0, atol=1e-5)
    assert torch.equal(padded[1], stock[1])


def test_counts_are_those_of_the_p_value_form(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    with torch.inference_mode():
        router_logits = model(tokens(), output_router_logits=True).router_logits
    bh = integration(model, recording, mode="analyze", max_k=EXPERTS)
    with bh:
        logits_of(model)
    counts, raw = bh.last_counts()
    discarded = null_model(NullName.DISCARDED, recording, Scorer(ScoreName.PROBABILITY))
    for layer in range(LAYERS):
        scores = torch.softmax(router_logits[layer], dim=-1)
        expected = step_up_rejections(discarded.p_values(layer, scores), 0.3)
        assert raw[:, layer].tolist() == expected.tolist()
    assert counts.tolist() == raw.clip(1, EXPERTS).tolist()
    assert len(set(raw.ravel().tolist())) > 3


@pytest.mark.parametrize("rows", ["prompt", "one token"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_reported_counts_are_the_experts_that_ran(
    rows: str, dtype: torch.dtype, recording: Recording
) -> None:
    model = tiny_model(dtype=dtype)
    use_selected_experts(model)
    executed = [0] * LAYERS

    def counting(layer: int, act_fn: Any) -> Any:
        # Every expert that runs for a token sends one row through the activation of its gate.
        def count(gate: Tensor) -> Tensor:
            executed[layer] += gate.numel() // gate.shape[-1]
            result: Tensor = act_fn(gate)
            return result

        return count

    for index, layer in enumerate(model.model.layers):
        act_fn = layer.mlp.experts.act_fn
        del layer.mlp.experts.act_fn
        layer.mlp.experts.act_fn = counting(index, act_fn)
    token_ids = tokens() if rows == "prompt" else tokens()[:, :1]
    bh = integration(model, recording, max_k=8)
    with bh:
        logits_of(model, token_ids)
    assert executed == bh.last_counts()[0].sum(axis=0).tolist()
    executed[:] = [0] * LAYERS
    logits_of(model, token_ids)
    assert executed == [TOP_K * token_ids.shape[1]] * LAYERS


def test_weights_are_the_models_own_or_renormalized(recording: Recording) -> None:
    model = tiny_model()
    router = model.model.layers[0].mlp.gate
    hidden = torch.randn(5, router.weight.shape[1])
    probabilities = torch.softmax(hidden @ router.weight.T, dim=-1).detach()
    with integration(model, recording, max_k=6, min_k=2) as bh:
        _, weights, indices = router(hidden)
        assert bh._rule is not None
        counts = bh._rule.counts(0, hidden @ router.weight.T)[0]
    used = torch.arange(6) < counts[:, None]
    torch.testing.assert_close(weights.detach()[used], probabilities.gather(1, indices)[used])
    assert (weights[~used] == 0).all()
    assert ((indices >= 0) & (indices < EXPERTS)).all()
    with integration(model, recording, max_k=6, min_k=2, weights="renormalize"):
        _, renormalized, _ = router(hidden)
    torch.testing.assert_close(renormalized.sum(1), torch.ones(5))


def test_everything_is_restored_and_errors_propagate(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    stock = logits_of(model)
    router = model.model.layers[0].mlp.gate
    bh = integration(model, recording)

    def fail_inside() -> None:
        with bh:
            assert bh.is_patched
            assert "forward" in vars(router)
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail_inside()
    assert not bh.is_patched
    assert "forward" not in vars(router)
    assert "forward" not in vars(model.base_model)
    assert torch.equal(logits_of(model), stock)


def test_a_forward_that_another_library_replaced_comes_back(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    router = model.model.layers[1].mlp.gate
    own = router.forward

    def replaced(hidden: Tensor) -> Any:
        return own(hidden)

    router.forward = replaced
    with integration(model, recording):
        assert router.forward is not replaced
    assert router.forward is replaced


def test_a_failing_forward_pass_leaves_the_statistics_usable(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    bh = integration(model, recording)
    with bh:
        with pytest.raises(IndexError):
            logits_of(model, torch.tensor([[9999]]))
        logits_of(model)
    assert bh.get_routing_stats()["total_forward_passes"] == 1


def test_patching_twice_and_unpatching_what_is_not_patched(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    bh = integration(model, recording)
    with pytest.warns(UserWarning, match="not patched"):
        bh.unpatch_model()
    bh.patch_model()
    with pytest.raises(RuntimeError, match="patched already"):
        bh.patch_model()
    with pytest.raises(RuntimeError, match="patched already"):
        integration(model, recording).patch_model()
    bh.unpatch_model()
    assert not bh.is_patched


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 1.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"min_k": 0}, "min_k"),
        ({"min_k": 5, "max_k": 4}, "min_k"),
        ({"max_k": EXPERTS + 1}, "experts"),
        ({"mode": "observe"}, "mode"),
        ({"weights": "equal"}, "weights"),
    ],
)
def test_bad_parameters(model: OlmoeForCausalLM, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BHRoutingIntegration(model, **{"max_k": TOP_K, **parameters})


def test_another_model_is_refused() -> None:
    config = BertConfig(
        vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="No OlmoeTopKRouter modules found"):
        BHRoutingIntegration(BertModel(config))


def test_a_null_of_another_model_is_refused(recording: Recording) -> None:
    with pytest.raises(RecordingError, match="another model"):
        BHRoutingIntegration(tiny_model(seed=5), max_k=4, recording=recording)


def test_statistics_say_what_happened(model: OlmoeForCausalLM, recording: Recording) -> None:
    bh = integration(model, recording, min_k=2, max_k=6)
    assert bh.get_routing_stats()["mean_experts_per_token"] is None
    with bh:
        logits_of(model)
        prompt = bh.last_counts()
        logits_of(model, tokens()[:, :1])
        single = bh.last_counts()
    stats = bh.get_routing_stats()
    everything = torch.cat([torch.from_numpy(prompt[0]), torch.from_numpy(single[0])]).double()
    raw = torch.cat([torch.from_numpy(prompt[1]), torch.from_numpy(single[1])])
    assert stats["total_forward_passes"] == 2
    assert stats["mean_experts_per_token"] == pytest.approx(float(everything.mean()))
    assert stats["std_experts_per_token"] == pytest.approx(float(everything.std(correction=0)))
    assert stats["per_layer_mean"] == pytest.approx(everything.mean(0).tolist())
    assert stats["histogram"] == torch.bincount(everything.long().flatten(), minlength=7).tolist()
    assert stats["share_clamped_min"] == pytest.approx(float((raw < 2).double().mean()))
    assert stats["share_clamped_max"] == pytest.approx(float((raw > 6).double().mean()))
    assert stats["prefill"]["tokens"] == tokens().shape[1]
    assert stats["decode"]["tokens"] == 1
    assert stats["decode"]["mean"] == pytest.approx(float(single[0].mean()))
    assert (stats["mode"], stats["alpha"], stats["temperature"]) == ("patch", 0.3, 1.0)
    assert (stats["min_k"], stats["max_k"]) == (2, 6)
    bh.reset_stats()
    assert bh.get_routing_stats()["total_forward_passes"] == 0


def test_analyze_tells_what_the_model_used_from_what_bh_would_use(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    bh = integration(model, recording, mode="analyze")
    with bh:
        logits_of(model)
    stats = bh.get_routing_stats()
    assert stats["mean_experts_per_token"] == TOP_K
    assert stats["bh_would_select_mean"] == pytest.approx(float(bh.last_counts()[0].mean()))
    assert stats["bh_would_select_mean"] < TOP_K


def test_padded_positions_are_not_counted(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast, recording: Recording
) -> None:
    tokenizer.pad_token = tokenizer.eos_token
    batch = tokenizer(["a long prompt here", "short"], return_tensors="pt", padding=True)
    bh = integration(model, recording)
    with bh, torch.inference_mode():
        model(**batch)
    assert bh.get_routing_stats()["tokens"] == int(batch.attention_mask.sum())
    assert bh.get_routing_stats()["tokens"] < batch.input_ids.numel()


def test_without_statistics_nothing_is_counted(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    counting = integration(model, recording)
    silent = integration(model, recording, collect_stats=False)
    with counting:
        expected = logits_of(model)
    with silent:
        assert torch.equal(logits_of(model), expected)
    assert silent.get_routing_stats()["total_forward_passes"] == 0


def test_alpha_orders_the_counts(model: OlmoeForCausalLM, recording: Recording) -> None:
    means = []
    for alpha in (0.001, 0.01, 0.05, 0.2, 0.5):
        bh = integration(model, recording, alpha=alpha, max_k=EXPERTS)
        with bh:
            logits_of(model)
        means.append(bh.get_routing_stats()["mean_experts_per_token"])
    assert means == sorted(means)
    assert means[-1] > means[0] + 1


def test_an_alpha_below_the_nulls_resolution_warns(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    with (
        pytest.warns(UserWarning, match="no p-value is below"),
        BHRoutingIntegration(model, alpha=1e-6, max_k=TOP_K, recording=recording),
    ):
        pass


def test_a_notebook_needs_only_the_model(tmp_path: Any) -> None:
    tiny_model().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model = OlmoeForCausalLM.from_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with BHRoutingIntegration(model, alpha=0.3, max_k=TOP_K) as bh:
            logits_of(model)
    assert bh.get_routing_stats()["mean_experts_per_token"] > 1


def test_without_a_tokenizer_the_error_says_what_to_pass() -> None:
    bh = BHRoutingIntegration(tiny_model(seed=77), max_k=TOP_K)
    with pytest.raises(Exception, match="Pass tokenizer="):
        bh.patch_model()
    assert not bh.is_patched


def test_weights_that_are_replaced_while_patched_are_used(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    router = model.model.layers[0].mlp.gate
    hidden = torch.randn(3, router.weight.shape[1])
    bh = integration(model, recording)
    for _ in range(2):
        with bh:
            router.weight = torch.nn.Parameter(torch.zeros_like(router.weight))
            assert (router(hidden)[0] == 0).all()


def test_weights_that_were_trained_between_two_blocks_need_another_recording(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    bh = BHRoutingIntegration(model, alpha=0.3, max_k=TOP_K, recording=recording)
    with bh:
        logits_of(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    with pytest.raises(RecordingError, match="another model"):
        bh.patch_model()
    assert not bh.is_patched


def test_a_model_that_changed_its_dtype_needs_its_null_again(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    bh = BHRoutingIntegration(model, alpha=0.3, max_k=TOP_K, recording=recording)
    with bh:
        logits_of(model)
    model.to(torch.bfloat16)
    with pytest.raises(RecordingError, match="dtype"):
        bh.patch_model()
    assert not bh.is_patched


def test_statistics_can_be_read_outside_inference_mode(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    with torch.inference_mode():
        bh = integration(model, recording)
        bh.reset_stats()
        with bh:
            for _ in range(70):
                logits_of(model, tokens()[:, :1])
    assert bh.get_routing_stats()["tokens"] == 70
    with bh:
        logits_of(model, tokens()[:, :1])
    assert bh.get_routing_stats()["tokens"] == 71


def test_offloaded_weights_are_refused_with_a_sentence(model: OlmoeForCausalLM) -> None:
    with pytest.raises(RuntimeError, match="offloaded"):
        BHRoutingIntegration(model.to("meta"), max_k=TOP_K)


def test_unpatching_survives_what_others_did_to_the_routers(
    model: OlmoeForCausalLM, recording: Recording
) -> None:
    bh = integration(model, recording)
    with bh:
        del model.model.layers[1].mlp.gate.forward
    assert not bh.is_patched
    for layer in model.model.layers:
        assert "forward" not in vars(layer.mlp.gate)
    with bh:
        logits_of(model)
