"""Which models are taken, how their routers are found, and why the others are refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers import OlmoeConfig, OlmoeForCausalLM, Qwen3Config
from transformers.models.olmoe.modeling_olmoe import OlmoeTopKRouter

from bh_studio.engine import architectures
from bh_studio.engine.architectures import (
    ARCHITECTURES,
    Architecture,
    architecture_of,
    model_problem,
)
from bh_studio.engine.moe import routers
from bh_studio.engine.moe.experts import use_selected_experts
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.moe.routers import (
    architecture_of_router,
    find_routers,
    router_shape,
    router_weight,
)
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.rules.parameters import RouterShape, RuleName, RuleParameters
from tests.tiny_moe import save_tiny_of_type, tiny_config, tiny_of_type
from tests.tiny_olmoe import EXPERTS, HIDDEN, LAYERS, TOP_K, tiny_model

TYPES = [entry.model_type for entry in ARCHITECTURES]
MIXTRAL = Architecture(
    name="Mixtral",
    model_type="mixtral",
    module="transformers.models.mixtral.modeling_mixtral",
    router="MixtralTopKRouter",
    normalizes=True,
    weights_stay_float32=True,
    expert_tensor="model.layers.{layer}.block_sparse_moe.experts.{expert}.{projection}.weight",
    projections=("w1", "w3", "w2"),
)


@pytest.fixture
def with_mixtral(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table with one entry more."""
    known = (*ARCHITECTURES, MIXTRAL)
    monkeypatch.setattr(architectures, "ARCHITECTURES", known)
    monkeypatch.setitem(routers._ENTRIES, (MIXTRAL.module, MIXTRAL.router), MIXTRAL)


@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize("model_type", TYPES)
def test_every_architecture_is_accepted_by_its_configuration_and_its_routers_are_found(
    model_type: str, normalizes: bool
) -> None:
    model = tiny_of_type(model_type, norm_topk_prob=normalizes)
    assert model_problem(model.config) == ""
    entry = architecture_of(model.config)
    assert entry is not None
    found = find_routers(model)
    assert all(one is layer.mlp.gate for one, layer in zip(found, model.model.layers, strict=True))
    assert {type(router).__name__ for router in found} == {entry.router}
    assert {architecture_of_router(router) for router in found} == {entry}
    assert router_shape(found) == RouterShape(LAYERS, EXPERTS, TOP_K, normalizes)
    assert router_weight(found[0]).shape == (EXPERTS, HIDDEN)


@pytest.mark.parametrize("model_type", TYPES)
def test_the_entry_names_the_expert_tensors_of_checkpoints(model_type: str, tmp_path: Path) -> None:
    save_tiny_of_type(model_type, tmp_path)
    entry = next(entry for entry in ARCHITECTURES if entry.model_type == model_type)
    experts = tiny_of_type(model_type, torch.bfloat16).model.layers[1].mlp.experts
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        gate, up, down = (
            file.get_tensor(entry.expert_tensor.format(layer=1, expert=5, projection=projection))
            for projection in entry.projections
        )
        assert sum(".experts." in name for name in file.keys()) == LAYERS * EXPERTS * 3  # noqa: SIM118
    assert torch.equal(torch.cat([gate, up]), experts.gate_up_proj[5])
    assert torch.equal(down, experts.down_proj[5])


@pytest.mark.parametrize("model_type", TYPES)
def test_the_content_of_a_config_file_is_enough(model_type: str, tmp_path: Path) -> None:
    save_tiny_of_type(model_type, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert model_problem(written) == ""
    # Checkpoints of transformers 4 say num_experts, whatever the class calls it today.
    for key in ("num_experts", "num_local_experts"):
        written.pop(key, None)
    assert "counts up to 255" in model_problem({**written, "num_experts": 512})
    assert "all 4 experts" in model_problem({**written, "num_experts": TOP_K})


def test_dense_layers_among_the_sparse_ones_are_not_counted() -> None:
    model = tiny_of_type("qwen3_moe", num_hidden_layers=5, mlp_only_layers=[0, 3])
    found = find_routers(model)
    gates = [model.model.layers[n].mlp.gate for n in (1, 2, 4)]
    assert all(one is other for one, other in zip(found, gates, strict=True))
    assert router_shape(found).layers == 3
    every_other = tiny_of_type("qwen3_moe", num_hidden_layers=4, decoder_sparse_step=2)
    assert len(find_routers(every_other)) == 2


class RenamedRouter(OlmoeTopKRouter):
    """A fine-tune's own name for the router."""


class RouterOfItsOwn(OlmoeTopKRouter):
    """One that decides otherwise."""

    def forward(self, hidden_states: torch.Tensor) -> Any:
        logits, weights, indices = super().forward(hidden_states)
        return logits, weights * 2, indices


class RenamedConfig(OlmoeConfig):
    """A fine-tune's own configuration."""

    model_type = "renamed_olmoe"


class RenamedForCausalLM(OlmoeForCausalLM):
    """A fine-tune's own model, with OLMoE's routers."""

    config_class = RenamedConfig


def with_router(kind: type[nn.Module]) -> OlmoeForCausalLM:
    model = tiny_model()
    for layer in model.model.layers:
        renamed = kind(model.config)
        renamed.weight = layer.mlp.gate.weight
        layer.mlp.gate = renamed
    return model


def test_renamed_routers_and_models_are_known(recording: Recording) -> None:
    assert router_shape(find_routers(with_router(RenamedRouter))).layers == LAYERS
    config = RenamedConfig(**tiny_model().config.to_diff_dict())
    assert model_problem(config) == ""
    model = RenamedForCausalLM(config)
    assert [type(router) for router in find_routers(model)] == [OlmoeTopKRouter] * LAYERS
    # A rule in the place of renamed routers is the rule in the place of the former ones.
    prompt = torch.arange(40)[None]
    answers = []
    for one in (tiny_model(), with_router(RenamedRouter)):
        rule = RuleParameters(level=0.3, max_k=TOP_K)
        bh = RoutingIntegration(one, rule, recording=recording)
        with torch.inference_mode(), bh:
            answers.append(one(prompt).logits)
    assert torch.equal(*answers)


def test_a_router_with_a_forward_of_its_own_is_refused() -> None:
    with pytest.raises(RuntimeError, match="RouterOfItsOwn has a forward of its own"):
        find_routers(with_router(RouterOfItsOwn))


def test_no_module_of_transformers_is_imported_for_the_search() -> None:
    loaded = "transformers.models.qwen3_moe.modeling_qwen3_moe"
    former = sys.modules.pop(loaded, None)
    try:
        assert len(find_routers(tiny_model())) == LAYERS
        assert loaded not in sys.modules
    finally:
        if former is not None:
            sys.modules[loaded] = former


def test_dense_models_have_nothing_to_choose_from() -> None:
    for config in (tiny_config("llama"), Qwen3Config(), {"model_type": "llama"}):
        assert "has no experts to choose from" in model_problem(config)
        assert "OLMoE, FlexOlmo or Qwen3-MoE" in model_problem(config)
    for dense in (
        tiny_config("qwen3_moe", mlp_only_layers=list(range(LAYERS))),
        tiny_config("qwen3_moe", decoder_sparse_step=LAYERS + 1),
        tiny_config("qwen3_moe", num_experts=0),
    ):
        assert "has no experts to choose from" in model_problem(dense)
    with pytest.raises(RuntimeError, match=r"No OlmoeTopKRouter modules found: Llama.* no experts"):
        RoutingIntegration(tiny_of_type("llama"), RuleParameters())


def test_unknown_mixtures_are_refused_with_the_routers_that_are_known() -> None:
    problem = model_problem(tiny_config("mixtral", architectures=["MixtralForCausalLM"]))
    assert problem.startswith("This MixtralForCausalLM has experts")
    for entry in ARCHITECTURES:
        assert entry.router in problem
    nested = {"model_type": "new", "text_config": {"n_routed_experts": 8, "id2label": {0: "a"}}}
    assert "model of the type new has experts" in model_problem(nested)
    with pytest.raises(
        RuntimeError,
        match="No OlmoeTopKRouter modules found: MixtralForCausalLM has MixtralTopKRouter, and BH "
        "routing knows OlmoeTopKRouter",
    ):
        RoutingIntegration(tiny_of_type("mixtral"), RuleParameters())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"architectures": ["OlmoeForSequenceClassification"]}, "does not write text"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"quantized \(gptq\)"),
        ({"num_experts": 8, "num_experts_per_tok": 8}, "all 8 experts of a layer"),
        ({"num_experts": 300}, "300 experts in a layer"),
        ({"model_type": ""}, "names no model_type"),
    ],
)
def test_other_reasons_are_named(change: dict[str, Any], expected: str) -> None:
    written = tiny_config("olmoe", architectures=["OlmoeForCausalLM"]).to_dict()
    assert model_problem(written) == ""
    with pytest.raises(AssertionError, match=expected):
        assert model_problem({**written, **change}) == ""


def test_more_experts_than_counts_can_say_are_refused_by_the_model_too() -> None:
    with pytest.raises(RuntimeError, match="256 experts in a layer"):
        router_shape(find_routers(tiny_of_type("olmoe", num_experts=256, num_hidden_layers=1)))


@pytest.mark.usefixtures("with_mixtral")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_another_architecture_is_one_entry(dtype: torch.dtype) -> None:
    model = tiny_of_type("mixtral", dtype)
    assert model_problem(model.config) == ""
    shape = router_shape(find_routers(model))
    assert shape == RouterShape(LAYERS, EXPERTS, TOP_K, norm_topk_prob=True)
    use_selected_experts(model)
    prompt, hidden = torch.arange(40)[None], torch.randn(3, HIDDEN, dtype=dtype)
    stock = model(prompt).logits
    for max_k in (TOP_K, EXPERTS):
        with RoutingIntegration(model, RuleParameters(RuleName.TOP_K, TOP_K, max_k=max_k)):
            assert model.model.layers[0].mlp.gate(hidden)[1].dtype == torch.float32
            assert torch.equal(model(prompt).logits, stock)
