"""The architectures whose routers a rule can stand in for, one entry each.

Knows names and configurations; imports neither torch nor a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# Counts travel and are saved as uint8.
MOST_EXPERTS = 255
# Far more than any model has; what claims more is damaged.
MOST_LAYERS = 1024


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one architecture is written, where architectures differ.

    Every router here maps hidden states, (..., hidden), to (logits, mixing weights, expert
    indices), one row a token: logits = hidden states @ weight.T, a softmax over all experts in
    float32, and its top_k largest, best first. One that computes anything else, such as a sigmoid,
    a bias or groups of experts, needs a rule of its own, not an entry.

    name: for people. model_type: in its config.json. module, router: path and name of the router's
    class, which is never imported from here. weight, experts, top_k: attributes of a router, the
    second a number. normalizes: its attribute that says whether the kept weights are scaled to
    sum 1, or True or False where that is fixed. weights_stay_float32: mixing weights are not cast
    to the dtype of the logits.
    expert_tensor: name of one expert's weight in checkpoints, with {layer} (of the decoder, dense
    layers included), {expert} and {projection}. projections: gate, up and down; the first two,
    (width, hidden) each, lie one below the other in the module's gate_up_proj.
    """

    name: str
    model_type: str
    module: str
    router: str
    weight: str = "weight"
    experts: str = "num_experts"
    top_k: str = "top_k"
    normalizes: str | bool = "norm_topk_prob"
    weights_stay_float32: bool = False
    expert_tensor: str = "model.layers.{layer}.mlp.experts.{expert}.{projection}.weight"
    projections: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        name="OLMoE",
        model_type="olmoe",
        module="transformers.models.olmoe.modeling_olmoe",
        router="OlmoeTopKRouter",
    ),
    Architecture(
        name="FlexOlmo",
        model_type="flex_olmo",
        module="transformers.models.flex_olmo.modeling_flex_olmo",
        router="FlexOlmoTopKRouter",
    ),
    Architecture(
        name="Qwen3-MoE",
        model_type="qwen3_moe",
        module="transformers.models.qwen3_moe.modeling_qwen3_moe",
        router="Qwen3MoeTopKRouter",
    ),
)


def architecture_of(config: Any) -> Architecture | None:
    """The entry for `config`, a transformers configuration or the content of a config.json."""
    if isinstance(config, Mapping):
        types = {config.get("model_type")}
    else:
        # A renamed fine-tune brings a configuration class of its own, made from a known one.
        types = {getattr(cls, "model_type", None) for cls in type(config).__mro__}
    return next((entry for entry in ARCHITECTURES if entry.model_type in types), None)


def model_problem(config: Any) -> str:
    """Why the model of `config` cannot be used, a sentence; empty if its configuration allows it.

    config: a transformers configuration, or the content of a config.json.

    An unknown model type is refused without a look at its routers. They could be known ones only if
    its code came with the checkpoint or was registered by the caller; the program runs no code of
    checkpoints, and a notebook that has a model hands it to RoutingIntegration, which looks.
    """
    value = config.get if isinstance(config, Mapping) else _attributes(config)
    if architecture_of(config) is None:
        return _unknown(config, value)
    names = value("architectures") or []
    if names and not any("ForCausalLM" in name for name in names):
        return f"This checkpoint holds a {names[0]}, which does not write text."
    quantization = value("quantization_config")
    if quantization:
        method = dict(quantization).get("quant_method", "an unknown method")
        return (
            f"The weights of this checkpoint are quantized ({method}); BH Studio reads bfloat16, "
            "float16 and float32."
        )
    return _expert_problem(value)


def known_routers() -> str:
    """The classes of routers that rules can stand in for, for a message."""
    return _listed(f"{entry.router} ({entry.name})" for entry in ARCHITECTURES)


def without_experts(subject: str) -> str:
    """The sentence for a dense model."""
    known = _listed((entry.name for entry in ARCHITECTURES), "or")
    return (
        f"{subject} has no experts to choose from; BH routing needs a mixture of experts: {known}."
    )


def mentions_experts(values: Mapping[str, Any]) -> bool:
    """Whether a configuration, nested parts included, has a number of experts above 1."""
    return any(
        mentions_experts(value)
        if isinstance(value, Mapping)
        else "expert" in str(key) and isinstance(value, int) and value > 1
        for key, value in values.items()
    )


def _unknown(config: Any, value: Callable[[str], Any]) -> str:
    kind = value("model_type")
    if not kind:
        return "The configuration of this model names no model_type."
    values = config if isinstance(config, Mapping) else config.to_dict()
    if not mentions_experts(values):
        return without_experts(f"A model of the type {kind}")
    name = next(iter(value("architectures") or []), f"model of the type {kind}")
    return (
        f"This {name} has experts, but its routers are none that BH Studio knows: "
        f"{known_routers()}."
    )


def _expert_problem(value: Callable[[str], Any]) -> str:
    experts = value("num_experts") or value("num_local_experts")
    if experts == 0 or not _has_sparse_layers(value):
        return without_experts("This model")
    if experts is None:  # left to the default of the architecture
        return ""
    if experts > MOST_EXPERTS:
        return (
            f"This model has {experts} experts in a layer; BH Studio counts up to {MOST_EXPERTS}."
        )
    top_k = value("num_experts_per_tok")
    if top_k is not None and top_k >= experts:
        return (
            f"This model uses all {experts} experts of a layer for every token, so there is "
            "nothing to choose."
        )
    return ""


def _has_sparse_layers(value: Callable[[str], Any]) -> bool:
    """Whether any layer has experts; Qwen3-MoE can make some of them, or all, dense."""
    layers, dense = value("num_hidden_layers"), value("mlp_only_layers") or []
    step = value("decoder_sparse_step") or 1
    if layers is not None and layers > MOST_LAYERS:
        raise ValueError(f"num_hidden_layers is {layers}.")
    return layers is None or any(n not in dense and (n + 1) % step == 0 for n in range(layers))


def _attributes(config: Any) -> Callable[[str], Any]:
    # Attributes and not to_dict(): a configuration may keep a value under another name.
    return lambda key: getattr(config, key, None)


def _listed(names: Iterator[str], conjunction: str = "and") -> str:
    *first, last = names
    return f"{', '.join(first)} {conjunction} {last}" if first else last
