"""A short name for a model's exact weights, so that a null is never used with another model."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import nn

_SAMPLES = 1024
# Where a checkpoint lies and what wrote it do not change its numbers.
_VOLATILE_KEYS = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures"}


def model_fingerprint(model: nn.Module) -> str:
    """Hex digest over the configuration and, for every parameter, its name, shape, dtype and a
    fixed sample of 1024 values spread over it.

    A sample, because reading all of a 14 GB checkpoint would take longer than using it; training
    moves every parameter, so two trained models do not share it.
    """
    config = {
        key: value
        for key, value in model.config.to_dict().items()  # type: ignore[operator, union-attr]
        if key not in _VOLATILE_KEYS
    }
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, parameter in model.named_parameters():
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        flat = parameter.detach().reshape(-1)
        step = max(1, flat.numel() // _SAMPLES)
        digest.update(flat[::step][:_SAMPLES].to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:32]
