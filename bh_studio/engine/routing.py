"""BH routing inside a transformers OLMoE model: patch its routers, count, restore.

Replaces the `forward` of router instances, and wraps that of the decoder to tell one pass from the
next; nothing else, so an unpatched model is the stock model again, bit for bit.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bh_studio.engine.calibration import check_null, null_for
from bh_studio.engine.messages import Mode, RuleParameters
from bh_studio.engine.nulls import RouterNull
from bh_studio.engine.routers import Router, RouterForward, find_routers, router_shape
from bh_studio.engine.routing_statistics import CountHistograms, Phase
from bh_studio.engine.rules import BenjaminiHochberg

_PATCHED = "_bh_studio_patched"
_Wrapper = Callable[..., Any]


class BHRoutingIntegration:
    """Benjamini-Hochberg routing for an OLMoE model of transformers.

        with BHRoutingIntegration(model, alpha=0.05) as bh:
            model.generate(**inputs)
            print(bh.get_routing_stats()["mean_experts_per_token"])

    alpha: BH level in (0, 1). temperature: divides the router logits before the softmax that gives
    the score; it does not touch the mixing weights. min_k, max_k: bounds on the experts of a token
    in a layer. mode: "patch" changes the routing; "analyze" leaves the output bit-identical and
    only counts what BH would select. weights: "model" or "renormalize", see
    rules.BenjaminiHochberg. null: a RouterNull of this model; if None, the cached one is taken,
    or one is fitted on the bundled text with `tokenizer`, by default the model's own.

    Slots that BH leaves unused have weight 0. transformers' own expert computations multiply them
    all the same; experts.use_selected_experts(model) saves that work.

    Raises ValueError for parameters out of range or a null of another model, RuntimeError ("No
    OlmoeTopKRouter modules found") for a model without OLMoE routers.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        alpha: float = 0.05,
        temperature: float = 1.0,
        min_k: int = 1,
        max_k: int = 8,
        mode: str = "patch",
        collect_stats: bool = True,
        *,
        weights: str = "model",
        null: RouterNull | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        # RuleParameters checks mode and weights and makes them members of their enums.
        self.parameters = RuleParameters(alpha, temperature, min_k, max_k, mode, weights)  # type: ignore[arg-type]
        self.model = model
        self.routers = find_routers(model)
        self.shape = router_shape(self.routers)
        self.parameters.check_experts(self.shape.experts)
        if any(router.weight.is_meta for router in self.routers):
            raise RuntimeError(
                "The weights of this model are offloaded; load it whole onto one device."
            )
        if len({router.weight.device for router in self.routers}) > 1:
            raise RuntimeError(
                "The layers of this model lie on several devices; load it whole onto one."
            )
        if null is not None:
            check_null(null, model)
        self.collect_stats = collect_stats
        self._null = null
        self._tokenizer = tokenizer
        self._replacements: list[_Replacement] = []
        self._rule: BenjaminiHochberg | None = None
        self._prepared_for: tuple[torch.dtype, torch.device] | None = None
        self._is_patched = False
        self._histograms = CountHistograms(self.shape.layers, self.shape.experts)
        self._pass = _ForwardPass(self.shape.layers)

    @property
    def is_patched(self) -> bool:
        return self._is_patched

    def patch_model(self) -> None:
        """Replace the forward of every router; fits the null first if there is none yet.

        Raises RuntimeError if the model is patched already, by this integration or another.
        """
        if _PATCHED in vars(self.routers[0]):
            raise RuntimeError(
                "The routers of this model are patched already; call unpatch_model() first."
            )
        kind = self._weight_kind()
        if not self._replacements or kind != self._prepared_for:
            self._replacements = self._prepared_replacements()
            self._prepared_for = kind
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
        rule = self._histograms.summary(self.parameters.min_k, self.parameters.max_k)
        mean, std = rule.pop("mean"), rule.pop("std")
        analyze = self.parameters.mode is Mode.ANALYZE
        counted = mean is not None
        stats = {
            "mode": self.parameters.mode.value,
            "alpha": self.parameters.alpha,
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
        if self._pass.raw_counts is None:
            raise RuntimeError("No forward pass has been counted.")
        raw = self._pass.raw_counts.T.to("cpu", torch.uint8).numpy()
        return np.minimum(np.maximum(raw, self.parameters.min_k), self.parameters.max_k), raw

    def _weight_kind(self) -> tuple[torch.dtype, torch.device]:
        weight = self.routers[0].weight
        return weight.dtype, weight.device

    def _prepared_rule(self) -> BenjaminiHochberg:
        if self._null is None:
            self._null = null_for(self.model, self._tokenizer)
        elif self._prepared_for is not None:
            # The model has moved to another dtype or device since its null was checked.
            check_null(self._null, self.model)
        shortage = self._null.shortage(self.parameters.alpha)
        if shortage is not None:
            warnings.warn(shortage, stacklevel=4)
        device = self.routers[0].weight.device
        return BenjaminiHochberg(self.parameters, self._null, self.shape, device)

    def _prepared_replacements(self) -> list[_Replacement]:
        rule = self._rule = self._prepared_rule()
        replacements = [
            _Replacement(router, self._router_forward(rule, layer, router))
            for layer, router in enumerate(self.routers)
        ]
        if self.collect_stats:
            replacements.append(_Replacement(self.model.base_model, self._counted_pass))
        return replacements

    def _router_forward(self, rule: BenjaminiHochberg, layer: int, router: Router) -> _Wrapper:
        raw_counts = self._pass.layers
        # The dictionary, for it holds whatever weight the router has now, and looking there is
        # quicker than nn.Module's own search.
        parameters = vars(router)["_parameters"]

        def analyze(
            original: RouterForward, hidden_states: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            outputs = original(hidden_states)
            raw_counts[layer] = rule.counts(layer, outputs[0])[1]
            return outputs

        def patch(_original: RouterForward, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            if hidden_states.ndim != 2:
                hidden_states = hidden_states.reshape(-1, hidden_states.shape[-1])
            logits = F.linear(hidden_states, parameters["weight"])
            if logits.shape[0] == 1 and logits.is_cpu:
                indices, weights, raw_counts[layer] = rule.select_one(layer, logits)
            else:
                indices, weights, _, raw_counts[layer] = rule.select(layer, logits)
            return logits, weights.to(logits.dtype), indices

        return analyze if self.parameters.mode is Mode.ANALYZE else patch

    def _counted_pass(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._pass.begin(args, kwargs)
        output = original(*args, **kwargs)
        self._histograms.add(*self._pass.end())
        return output

    def _undo(self) -> None:
        if self._is_patched:
            self._is_patched = False
            vars(self.routers[0]).pop(_PATCHED, None)
            for replacement in reversed(self._replacements):
                replacement.undo()


class _Replacement:
    """Another forward for one module instance, put in place and taken back.

    A comparison does both at every token: the instance's attributes are set directly, without
    nn.Module's search among parameters and submodules, and nothing is made anew.
    """

    def __init__(self, module: Any, wrapper: _Wrapper) -> None:
        self._attributes: dict[str, Any] = vars(module)
        self._class_forward = functools.partial(type(module).forward, module)
        self._wrapper = wrapper
        self._former: Any = None
        self._forward: Any = None

    def apply(self) -> None:
        """Replace the forward; the former one is the wrapper's first argument."""
        # Another library may have replaced the forward of this instance too; that one comes back.
        former = self._attributes.get("forward")
        if self._forward is None or former is not self._former:
            self._former = former
            self._forward = functools.partial(self._wrapper, former or self._class_forward)
        self._attributes["forward"] = self._forward

    def undo(self) -> None:
        """Put the former forward back, unless somebody else has replaced ours meanwhile."""
        if self._attributes.get("forward") is not self._forward:
            return
        if self._former is None:
            del self._attributes["forward"]
        else:
            self._attributes["forward"] = self._former


class _ForwardPass:
    """The counts of one forward pass, layer by layer, kept on the device.

    layers: raw counts of each layer, (row,) int64 or the number of a single row; None before the
    layer has run. Filled by the routers.
    """

    def __init__(self, layers: int) -> None:
        self.layers: list[Tensor | int | None] = [None] * layers
        self._phase = Phase.PREFILL
        self._kept_rows: Tensor | None = None
        self.raw_counts: Tensor | None = None

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Start a pass of the decoder, called with `args` and `kwargs`."""
        self.layers[:] = [None] * len(self.layers)
        self.raw_counts = None
        tokens: Any = kwargs.get("input_ids", args[0] if args else None)
        if tokens is None:
            tokens = kwargs["inputs_embeds"]
        length = tokens.shape[1]
        self._phase = Phase.DECODE if length == 1 else Phase.PREFILL
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        self._kept_rows = None
        # Other masks than (batch, position) hide pairs of positions, not positions.
        if isinstance(mask, Tensor) and mask.ndim == 2:
            self._kept_rows = (mask[:, -length:] != 0).reshape(-1).long()

    def end(self) -> tuple[Phase, Tensor, Tensor | None]:
        """Phase, raw counts (layer, row) and kept rows of the pass that ends."""
        if isinstance(self.layers[0], int):
            self.raw_counts = torch.tensor(self.layers)[:, None]
        else:
            self.raw_counts = torch.stack([c for c in self.layers if isinstance(c, Tensor)])
        return self._phase, self.raw_counts, self._kept_rows
