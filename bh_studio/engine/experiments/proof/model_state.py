"""Whether a model is, bit for bit, what it was before rules were put into it and taken out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bh_studio.engine.experiments.proof.fingerprints import first_difference, is_same
from bh_studio.engine.experiments.proof.reading import prints_in_one_pass
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.routers import find_routers
from bh_studio.engine.records.proofs.proof import Check

NAME = "model restored"
# Positions at the end of the prompt at which routers are tried alone; what they read is kept.
_MOST_ROWS = 64
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class ModelState:
    """What a model is and gives at the time when this is made.

    prompt_ids: what it is tried on.
    """

    def __init__(self, loaded: LoadedModel, prompt_ids: Sequence[int]) -> None:
        self._loaded, self._prompt_ids = loaded, prompt_ids
        self._routers = find_routers(loaded.model)
        self._attributes = _attributes(loaded.model)
        self._rows: list[Tensor] = []
        hooks = [router.register_forward_pre_hook(self._keep_rows) for router in self._routers]
        try:
            self._prints = prints_in_one_pass(loaded, None, prompt_ids)
        finally:
            for hook in hooks:
                hook.remove()
        self._routed = self._route()

    def check(self) -> Check:
        """Compare the model as it is now with what it was."""
        prints = prints_in_one_pass(self._loaded, None, self._prompt_ids)
        routed = self._route()
        shape, vocabulary = self._loaded.shape, self._loaded.model.config.vocab_size
        problem = self._problem(prints, routed)
        return Check(
            NAME,
            passed=not problem,
            compared="the forwards of all modules, what each router gives, and bits of the logits "
            "of the prompt with those before the first side answered",
            positions=len(prints),
            layers=shape.layers,
            numbers=sum(t.numel() for given in routed for t in given) + len(prints) * vocabulary,
            problem=problem,
        )

    def _problem(self, prints: np.ndarray, routed: list[tuple[Tensor, ...]]) -> str:
        for name, attributes in _attributes(self._loaded.model).items():
            if attributes != self._attributes[name]:
                return f"On {name or 'the model'} a forward, a hook or a mark is not what it was."
        for layer, (now, before) in enumerate(zip(routed, self._routed, strict=True)):
            if not all(map(is_same, now, before)):
                return f"The router of layer {layer} does not give what it gave."
        position = first_difference(prints, self._prints)
        if position is not None:
            return f"The logits at position {position} of the prompt are not what they were."
        return ""

    def _keep_rows(self, _router: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].reshape(-1, inputs[0].shape[-1])
        self._rows.append(rows[-_MOST_ROWS:].clone())

    @torch.inference_mode()
    def _route(self) -> list[tuple[Tensor, ...]]:
        """What each router makes of rows that it has read: logits, weights and indices."""
        return [router(rows) for router, rows in zip(self._routers, self._rows, strict=True)]


def _attributes(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    """What can be put upon each module, by name: marks, a forward, hooks."""
    return {
        name: (
            set(vars(module)),
            vars(module).get("forward"),
            *(tuple(vars(module)[hooks]) for hooks in _HOOKS),
        )
        for name, module in model.named_modules()
    }
