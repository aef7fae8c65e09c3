"""Replayed rules: the counts of a real run, what the counts hold, and published router logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import OlmoeForCausalLM

from bh_studio.engine.calibration.recorder import calibration_text, make_recording
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.routing.fdr import empirical_p_values, step_up_rejections
from bh_studio.engine.routing.recordings import Recording, load_router_logits
from bh_studio.engine.routing.replay import (
    MAX_LEFT_OUT,
    ReplayedCounts,
    replay,
    replay_leave_one_out,
)
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import RouterShape, ScoreName
from bh_studio.engine.rules.text import parse_rule
from tests.tiny_olmoe import EXPERTS, LAYERS, TOP_K, tiny_model, tiny_tokenizer

REAL_LOGITS = Path(__file__).parents[2] / "data" / "olmoe_router_logits_160.npz"
RULES = [
    "bh:0.3,max_k=4",
    "bh:0.2,null=pooled,max_k=4,weights=match",
    "bh:0.1/0.2/0.4,max_k=16,weights=renormalize",
    "bh:0.1,score=logit,on_empty=top_k,max_k=4",
    "bh:0.3,null=per-expert,min_k=2,max_k=4",
    "bh:0.2,score=output,max_k=6",
    "bh:0.2,score=output,null=per-expert,max_k=6",
    "bh:0.2,temperature=1.5,max_k=4",
    "bh:0.3,null=gaussian",
    "bh:0.3,null=robust",
    "bh:0.5,null=softmax,max_k=4",
    "by:0.4,max_k=4",
    "storey:0.3,max_k=4",
    "hc:0.5",
    "top-k:4/2/3",
    "top-p:0.5",
    "min-p:0.3,max_k=4",
    "cut:0.1,max_k=4",
    "entropy:0.8,min_k=2,max_k=4",
]


@pytest.fixture(scope="module")
def recording() -> Recording:
    text = calibration_text()[:4000]
    return make_recording(tiny_model(), tiny_tokenizer(), text, factors=(ScoreName.OUTPUT,))


class Recorder:
    """The router logits of every forward pass of `model`, whatever routes in it."""

    def __init__(self, model: OlmoeForCausalLM) -> None:
        self._of_layer: list[list[Tensor]] = [[] for _ in model.model.layers]
        for kept, layer in zip(self._of_layer, model.model.layers, strict=True):
            layer.mlp.gate.register_forward_hook(
                lambda _module, _inputs, outputs, kept=kept: kept.append(outputs[0].clone())
            )

    def logits(self) -> Tensor:
        """(layer, token, expert)"""
        return torch.stack([torch.cat(kept) for kept in self._of_layer]).float()


@torch.inference_mode()
def run(model: OlmoeForCausalLM, integration: RoutingIntegration) -> tuple[np.ndarray, np.ndarray]:
    """Counts and raw counts that a prompt and six decoded tokens report, (token, layer)."""
    ids = tiny_tokenizer()("Once upon a time there was", return_tensors="pt").input_ids
    reported, cache = [], None
    with integration:
        for _ in range(7):
            output = model(ids, past_key_values=cache, use_cache=True)
            cache, ids = output.past_key_values, output.logits[:, -1:].argmax(-1)
            reported.append(integration.last_counts())
    counts, raw_counts = zip(*reported, strict=True)
    return np.concatenate(counts), np.concatenate(raw_counts)


@pytest.mark.parametrize("text", RULES)
@pytest.mark.parametrize("mode", ["patch", "analyze"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.filterwarnings("ignore:The null holds")
def test_counts_are_those_that_the_run_reported(
    text: str, mode: str, dtype: torch.dtype, recording: Recording
) -> None:
    model = tiny_model(dtype=dtype)
    recorder = Recorder(model)
    parameters = parse_rule(f"{text},mode={mode}" + ("" if "max_k" in text else ",max_k=8"))
    integration = RoutingIntegration(model, parameters)
    integration._recording = recording  # the null of float32 serves bfloat16 too
    counts, raw_counts = run(model, integration)
    replayed = replay(recorder.logits(), parameters, recording, TOP_K)
    assert replayed.counts.dtype == replayed.raw_counts.dtype == np.uint8
    assert replayed.counts.tolist() == counts.tolist()
    assert replayed.raw_counts.tolist() == raw_counts.tolist()
    assert len(set(raw_counts.ravel().tolist())) > 1 or "softmax" in text


def test_counts_do_not_depend_on_how_tokens_are_batched(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = parse_rule("bh:0.2,score=output,max_k=6")
    at_once = replay(recording.logits, parameters, recording, TOP_K)
    monkeypatch.setattr("bh_studio.engine.routing.replay._TOKENS_AT_ONCE", 7)
    in_batches = replay(recording.logits, parameters, recording, TOP_K)
    for name in ("counts", "raw_counts", "mass", "native_mass", "overlap"):
        assert (getattr(at_once, name) == getattr(in_batches, name)).all()


@pytest.mark.parametrize("text", ["bh:0.3,max_k=6", "bh:0.2,score=output,max_k=6"])
def test_mass_and_overlap_are_those_of_the_selected_experts(
    text: str, recording: Recording
) -> None:
    parameters = parse_rule(text)
    replayed = replay(recording.logits, parameters, recording, TOP_K)
    shape = RouterShape(LAYERS, EXPERTS, TOP_K, norm_topk_prob=False)
    rule = RoutingRule(parameters, recording, shape)
    for layer in range(LAYERS):
        selection = rule.select(layer, recording.logits[layer])
        probabilities = recording.logits[layer].double().softmax(-1)
        for token in range(40):
            selected = set(selection.indices[token, : selection.counts[token]].tolist())
            native = set(probabilities[token].topk(TOP_K).indices.tolist())
            place = token, layer
            mass = sum(probabilities[token, expert] for expert in selected)
            assert replayed.mass[place] == pytest.approx(float(mass), rel=1e-5)
            native_mass = sum(probabilities[token, expert] for expert in native)
            assert replayed.native_mass[place] == pytest.approx(float(native_mass), rel=1e-5)
            jaccard = len(selected & native) / len(selected | native)
            assert replayed.overlap[place] == pytest.approx(jaccard)


def test_the_models_own_top_k_holds_what_it_holds(recording: Recording) -> None:
    replayed = replay(recording.logits.numpy(), parse_rule(f"top-k:{TOP_K}"), None, TOP_K)
    assert (replayed.counts == TOP_K).all()
    assert (replayed.overlap == 1).all()
    assert replayed.mean_mass == pytest.approx(replayed.mean_native_mass, rel=1e-6)


def test_what_does_not_fit_is_refused(recording: Recording) -> None:
    def refused(
        sentence: str, logits: Any = recording.logits, text: str = "bh:0.3", **other: Any
    ) -> None:
        values = {"recording": recording, "top_k": TOP_K, **other}
        with pytest.raises(ValueError, match=sentence):
            replay(logits, parse_rule(text), **values)

    refused(
        r"with the axes \(layer, token, expert\); got float32 \(3, 16\)", recording.logits[:, 0]
    )
    refused("got int64", recording.logits.long())
    refused("3 router logits are not finite", torch.full((1, 1, 3), torch.nan))
    refused("max_k must not exceed the 16 experts of a layer; got 17", text="bh:0.3,max_k=17")
    refused("has 2 values for the 3 layers", text="bh:0.3/0.2")
    refused("top_k must lie between 1 and 15; got 16", top_k=16)
    refused(
        "null has 3 layers of 16 experts, top 4; the router logits have 2 of", recording.logits[:2]
    )
    refused("the router logits have 3 of 15", recording.logits[..., :15])
    refused("the router logits have 3 of 16, top 5", top_k=5)
    refused("needs a null", recording=None)
    refused("was not measured", text="cut:0.3,score=output", recording=None)


# --- published router logits of the real OLMoE-1B-7B ------------------------------------------


@pytest.fixture(scope="module")
def real_logits() -> Tensor:
    """(layer, token, expert), without the attention sink."""
    return load_router_logits(REAL_LOGITS).logits[:, 1:]


def left_out(logits: Tensor, text: str) -> ReplayedCounts:
    return replay_leave_one_out(logits, parse_rule(text), top_k=8)


@pytest.mark.parametrize(
    ("text", "mean", "share_empty"),
    [
        ("bh:0.005,null=pooled", 4.410, 0.049),
        ("bh:0.01,null=pooled", 5.083, 0.014),
        ("bh:0.05,null=pooled", 6.493, 0.0),
        ("bh:0.05", 6.604, 0.021),
        ("bh:0.05,score=logit", 4.590, 0.3125),
    ],
)
def test_means_on_real_router_logits(
    text: str, mean: float, share_empty: float, real_logits: Tensor
) -> None:
    replayed = left_out(real_logits, text)
    assert replayed.counts.shape == (9, 16)
    assert replayed.counts.mean() == pytest.approx(mean, abs=5e-4)
    assert (replayed.raw_counts == 0).mean() == pytest.approx(share_empty, abs=5e-4)


def test_mass_of_top_8_on_real_router_logits() -> None:
    every_position = load_router_logits(REAL_LOGITS).logits
    replayed = replay(every_position, parse_rule("top-k:8"), None, 8)
    assert replayed.mean_mass == pytest.approx(0.441, abs=5e-4)
    largest = replay(every_position, parse_rule("top-k:1"), None, 8)
    assert largest.mean_mass == pytest.approx(0.139, abs=5e-4)


def test_layers_of_real_router_logits_differ(real_logits: Tensor) -> None:
    of_layers = left_out(real_logits, "bh:0.05").counts.mean(axis=0)
    assert of_layers.min() == 5.0
    assert of_layers.max() == pytest.approx(7.78, abs=5e-3)


@pytest.mark.parametrize("score", ["probability", "logit"])
@pytest.mark.parametrize("null", ["discarded", "pooled"])
def test_float64_changes_no_count(score: str, null: str, real_logits: Tensor) -> None:
    values = real_logits.double()
    scores = values.softmax(-1) if score == "probability" else values
    discarded = scores.gather(-1, values.argsort(-1, descending=True)[..., 8:])
    for alpha in (0.005, 0.05, 0.2):
        replayed = left_out(real_logits, f"bh:{alpha},score={score},null={null}")
        for token in range(values.shape[1]):
            others = torch.cat([discarded[:, :token], discarded[:, token + 1 :]], dim=1)
            for layer in range(values.shape[0]):
                pool = (others if null == "pooled" else others[layer]).flatten().sort().values
                p_values = empirical_p_values(scores[layer, token], pool)
                expected = int(step_up_rejections(p_values[None], alpha))
                assert replayed.raw_counts[token, layer] == expected


def test_leaving_one_out_is_for_small_recordings(real_logits: Tensor) -> None:
    too_many = real_logits[:, :1].expand(-1, MAX_LEFT_OUT + 1, -1)
    for logits in (too_many, real_logits[:, :1]):
        with pytest.raises(ValueError, match=f"is for 2 to {MAX_LEFT_OUT} tokens; there are"):
            left_out(logits, "bh:0.05")


def test_a_null_too_small_for_the_level_is_said(real_logits: Tensor) -> None:
    shortage = left_out(real_logits, "bh:0.05").shortage
    assert shortage is not None
    assert shortage.startswith("The null holds 448 scores a layer")
    assert left_out(real_logits, "bh:0.05,null=pooled").shortage is None
