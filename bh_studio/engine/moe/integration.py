"""BH routing inside a mixture of experts of transformers: patch its routers, count, restore.

Replaces the `forward` of router instances, and wraps that of the decoder to tell one pass from the
next; nothing else, so an unpatched model is the stock model again, bit for bit. The layers may lie
on one device or on several.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from bh_studio.engine.moe.fingerprint import check_shape
from bh_studio.engine.moe.pass_counts import CountHistograms, ForwardPass
from bh_studio.engine.moe.replacement import Replacement, Wrapper
from bh_studio.engine.moe.routers import (
    RouterForward,
    architecture_of_router,
    find_routers,
    router_shape,
    router_weight,
)
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.selection import RoutingRule, RuleFactory
from bh_studio.engine.rules.parameters import Mode, RuleParameters
from bh_studio.engine.rules.text import format_rule

_PATCHED = "_bh_studio_patched"


class RoutingIntegration:
    """Another routing rule for a mixture of experts of transformers, in force in a `with` block.

    parameters: the rule. recording: one of this model, which is known to be of it; None for a rule
    that needs none.
    make_rule: builds the rule, by default a RoutingRule; experiments put controls in its place.

    Slots that the rule leaves unused have weight 0. transformers' own expert computations multiply
    them all the same; experts.use_selected_experts(model) saves that work.

    Raises ValueError for parameters that do not fit the model or a recording of another,
    RuntimeError ("No OlmoeTopKRouter modules found") for a model without routers of a class that
    `architectures` knows, and for weights that are not in memory.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        parameters: RuleParameters,
        *,
        collect_stats: bool = True,
        recording: Recording | None = None,
        make_rule: RuleFactory = RoutingRule,
    ) -> None:
        self.parameters = parameters
        self.model = model
        self.routers = find_routers(model)
        self.shape = router_shape(self.routers)
        self.parameters.check_shape(self.shape.layers, self.shape.experts)
        if any(parameter.is_meta for parameter in model.parameters()):
            raise RuntimeError(
                "The weights of this model are offloaded; load all of them onto devices."
            )
        if recording is not None:
            check_shape(recording, self.shape)
        self.collect_stats = collect_stats
        self._recording = recording
        self._make_rule = make_rule
        self._replacements: list[Replacement] = []
        self._rule: RoutingRule | None = None
        self._prepared_for: torch.dtype | None = None
        self._is_patched = False
        self._histograms = CountHistograms(self.shape.layers, self.shape.experts)
        self._pass = ForwardPass(self.shape.layers)

    @property
    def is_patched(self) -> bool:
        return self._is_patched

    @property
    def rule(self) -> RoutingRule:
        """The rule, ready to select experts; makes a recording first if there is none yet.

        For forwards that are not the model's own: they ask it for each layer, and report each token
        that they have read with add_decode_pass.
        """
        self._prepare()
        assert self._rule is not None
        return self._rule

    def patch_model(self) -> None:
        """Replace the forward of every router; makes a recording first if there is none yet.

        Raises RuntimeError if the model is patched already, by this integration or another.
        """
        if _PATCHED in vars(self.routers[0]):
            raise RuntimeError(
                "The routers of this model are patched already; call unpatch_model() first."
            )
        self._prepare()
        for replacement in self._replacements:
            replacement.apply()
        vars(self.routers[0])[_PATCHED] = True
        self._is_patched = True

    def unpatch_model(self) -> None:
        """Give every router its own forward back; only warns if the model is not patched."""
        if not self.is_patched:
            warnings.warn("The model is not patched; nothing to undo.", stacklevel=2)
        self._undo()

    def __enter__(self) -> Self:
        self.patch_model()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._undo()

    def get_routing_stats(self) -> dict[str, Any]:
        """Statistics of all forward passes since the last reset.

        mean_experts_per_token and std_experts_per_token are over (token, layer) pairs and say what
        the model used: in analyze mode always its own top-k, while bh_would_select_mean is what BH
        would have used. per_layer_mean, histogram (pairs with exactly i experts), the shares
        clamped at min_k and max_k, and the blocks "prefill" and "decode" (one token a pass)
        describe the rule in either mode. Positions that a (batch, position) attention mask hides
        are left out; a static cache hands the decoder another mask, and then they are counted.
        Without any pass the means are None.
        """
        rule = self._histograms.summary(self.parameters, self.shape.top_k)
        mean, std = rule.pop("mean"), rule.pop("std")
        analyze = self.parameters.mode is Mode.ANALYZE
        counted = mean is not None
        stats = {
            "mode": self.parameters.mode.value,
            "alpha": self.parameters.level,
            "temperature": self.parameters.temperature,
            "min_k": self.parameters.min_k,
            "max_k": self.parameters.max_k,
            "mean_experts_per_token": float(self.shape.top_k) if analyze and counted else mean,
            "std_experts_per_token": 0.0 if analyze and counted else std,
            "total_forward_passes": self._histograms.forward_passes,
            **rule,
        }
        if analyze:
            stats["bh_would_select_mean"] = mean
        return stats

    def reset_stats(self) -> None:
        """Forget all counts."""
        self._histograms.reset()

    def last_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts of the last forward pass after and before min_k and max_k, in one transfer.

        Both (row, layer) uint8. Raises RuntimeError without a finished pass or without
        collect_stats.
        """
        counts = self._pass.raw_counts
        if counts is None:
            raise RuntimeError("No forward pass has been counted.")
        raw = counts.T.to("cpu", torch.uint8).numpy()
        used = self.parameters.used_counts(self.shape.experts, self.shape.top_k)
        return np.array(used, dtype=np.uint8)[raw], raw

    def add_decode_pass(self, raw_counts: np.ndarray) -> None:
        """Count a token that was read without the model's forward, like a pass of the model.

        raw_counts: (1, layer) uint8, what `rule` selected before min_k and max_k. Does nothing
        without collect_stats.
        """
        if self.collect_stats:
            self._histograms.add(*self._pass.of_one_token(raw_counts))

    def _prepared_rule(self) -> RoutingRule:
        if self._recording is None and self.parameters.needs_calibration:
            self._recording = self._missing_recording()
        return self._make_rule(self.parameters, self._recording, self.shape)

    def _missing_recording(self) -> Recording:
        """What the rule compares with if it needs a recording and was given none."""
        raise ValueError(
            f"The rule {format_rule(self.parameters)} compares with a null; give a recording of "
            "this model."
        )

    def _prepare(self) -> None:
        dtype = router_weight(self.routers[0]).dtype
        if self._rule is not None and dtype == self._prepared_for:
            return
        rule = self._prepared_rule()
        replacements = [
            Replacement(router, self._router_forward(rule, layer, router))
            for layer, router in enumerate(self.routers)
        ]
        if self.collect_stats:
            replacements.append(Replacement(self.model.base_model, self._counted_pass))
        self._rule, self._replacements, self._prepared_for = rule, replacements, dtype

    def _router_forward(self, rule: RoutingRule, layer: int, router: nn.Module) -> Wrapper:
        raw_counts = self._pass.layers
        architecture = architecture_of_router(router)
        weight, stays_float32 = architecture.weight, architecture.weights_stay_float32
        # The dictionary, for it holds whatever weight the router has now, and looking there is
        # quicker than nn.Module's own search.
        parameters = vars(router)["_parameters"]

        def analyze(
            original: RouterForward, hidden_states: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            outputs = original(hidden_states)
            logits = outputs[0]
            if logits.shape[0] == 1 and logits.is_cpu:
                raw_counts[layer] = rule.count_one(layer, logits)
            else:
                raw_counts[layer] = rule.counts(layer, logits)[1]
            return outputs

        def patch(_original: RouterForward, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            if hidden_states.ndim != 2:
                hidden_states = hidden_states.reshape(-1, hidden_states.shape[-1])
            logits = F.linear(hidden_states, parameters[weight])
            if logits.shape[0] == 1 and logits.is_cpu:
                indices, weights, raw_counts[layer] = rule.select_one(layer, logits)
            else:
                indices, weights, _, raw_counts[layer] = rule.select(layer, logits)
            if not stays_float32 and logits.dtype != torch.float32:
                weights = weights.to(logits.dtype)
            return logits, weights, indices

        return analyze if self.parameters.mode is Mode.ANALYZE else patch

    def _counted_pass(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._pass.begin(args, kwargs)
        output = original(*args, **kwargs)
        self._histograms.add(*self._pass.end())
        return output

    @contextmanager
    def uncounted(self) -> Iterator[Sequence[Tensor | int | None]]:
        """Inside the block the routers are patched and no statistics are kept.

        For a pass that is captured: its operations are repeated without coming here again. Yields
        what the pass will put down, the raw counts of each layer, (row,) int64.
        """
        self._prepare()
        routers = self._replacements[: self.shape.layers]
        for replacement in routers:
            replacement.apply()
        try:
            yield self._pass.layers
        finally:
            for replacement in routers:
                replacement.undo()

    def _undo(self) -> None:
        if self._is_patched:
            self._is_patched = False
            vars(self.routers[0]).pop(_PATCHED, None)
            for replacement in reversed(self._replacements):
                replacement.undo()
