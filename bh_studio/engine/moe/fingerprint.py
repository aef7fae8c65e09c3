"""A short name for a model's weights, so that a recording is not used with another."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bh_studio.engine.moe.routers import find_routers, router_shape, router_weight
from bh_studio.engine.records.recording import RecordingError
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.rules.parameters import RouterShape

OTHER_MODEL = "This recording is of another model, or of this one in another dtype."
_SAMPLES = 1024
# What of the configuration decides the logits and cannot be seen in the parameters.
_CONFIG_KEYS = (
    "model_type", "num_experts_per_tok", "norm_topk_prob", "rms_norm_eps", "rope_theta",
    "rope_parameters", "rope_scaling", "hidden_act", "clip_qkv", "num_attention_heads",
    "num_key_value_heads", "sliding_window",
)  # fmt: skip


def model_fingerprint(model: nn.Module) -> str:
    """Hex digest over what decides the model's logits.

    Every parameter's name, shape and dtype, all of the routers' weights, and 1024 values of each
    other parameter, at places drawn once for its size: reading all of a 14 GB checkpoint would take
    longer than using it, and training moves every parameter.
    """
    config = model.config.to_dict()  # type: ignore[operator, union-attr]
    known = sorted((key, str(config[key])) for key in _CONFIG_KEYS if key in config)
    digest = hashlib.sha256(repr(known).encode())
    routers = {id(router_weight(router)) for router in find_routers(model)}
    for name, parameter in model.named_parameters():
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        values = parameter.detach().reshape(-1)
        if id(parameter) not in routers:
            values = values[_places(values)]
        digest.update(values.to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:32]


def _places(values: Tensor) -> Tensor:
    """Indices that follow no row or column, the same for every tensor of this size."""
    size = values.numel()
    places = np.random.default_rng(size).integers(0, size, _SAMPLES)
    return torch.from_numpy(places).to(values.device)


def check_recording(recording: Recording, model: PreTrainedModel) -> None:
    """Raise RecordingError if `recording` was not made with this `model` in this dtype.

    Reads a part of every weight; `check_shape` alone is free.
    """
    check_shape(recording, router_shape(find_routers(model)))
    if recording.origin.model_fingerprint != model_fingerprint(model):
        raise RecordingError(OTHER_MODEL)


def check_shape(recording: Recording, shape: RouterShape) -> None:
    """Raise RecordingError if `recording` is of other layers or experts than `shape`."""
    layers, _, experts = recording.logits.shape
    if (layers, experts, recording.origin.top_k) != (shape.layers, shape.experts, shape.top_k):
        raise RecordingError(
            f"This recording has {layers} layers of {experts} experts, top "
            f"{recording.origin.top_k}; the model has {shape.layers} of {shape.experts}, top "
            f"{shape.top_k}."
        )
