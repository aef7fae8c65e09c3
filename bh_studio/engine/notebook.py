"""BH routing for users of transformers: a `with` block that finds its recording by itself."""

from __future__ import annotations

import warnings

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bh_studio.engine.calibration.recorder import recording_for
from bh_studio.engine.moe import integration
from bh_studio.engine.moe.fingerprint import check_recording
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.selection import RoutingRule, RuleFactory
from bh_studio.engine.rules.parameters import RuleParameters


class RoutingIntegration(integration.RoutingIntegration):
    """Another routing rule for a mixture of experts of transformers, in force in a `with` block.

    recording: of this model; if None, the cached one is taken, or one is made on the text
    that ships, with `tokenizer`, by default the model's own. The rest, and what is raised: see
    moe.integration.RoutingIntegration.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        parameters: RuleParameters,
        *,
        collect_stats: bool = True,
        recording: Recording | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        make_rule: RuleFactory = RoutingRule,
    ) -> None:
        super().__init__(
            model, parameters, collect_stats=collect_stats, recording=recording, make_rule=make_rule
        )
        self._tokenizer = tokenizer
        self._check_recording()

    def patch_model(self) -> None:
        """Replace the forward of every router; makes a recording first if there is none yet.

        Raises RuntimeError if the model is patched already, ValueError if its weights have become
        others than those that were recorded.
        """
        self._check_recording()
        super().patch_model()

    def _check_recording(self) -> None:
        if self._recording is not None:
            check_recording(self._recording, self.model)

    def _missing_recording(self) -> Recording:
        return recording_for(self.model, self._tokenizer)

    def _prepared_rule(self) -> RoutingRule:
        rule = super()._prepared_rule()
        shortage = rule.shortage()
        if shortage is not None:
            warnings.warn(shortage, stacklevel=5)
        return rule


class BHRoutingIntegration(RoutingIntegration):
    """Benjamini-Hochberg routing for OLMoE and other mixtures of experts of transformers.

        with BHRoutingIntegration(model, alpha=0.05) as bh:
            model.generate(**inputs)
            print(bh.get_routing_stats()["mean_experts_per_token"])

    alpha: BH level in (0, 1). temperature: divides the router logits before the softmax that gives
    the score; it does not touch the mixing weights. min_k, max_k: bounds on the experts of a token
    in a layer. mode: "patch" changes the routing; "analyze" leaves the output bit-identical and
    only counts what BH would select. weights: see rules.MixingWeights. recording, and what is
    raised: see RoutingIntegration, which takes every other rule, score and null too.
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
        recording: Recording | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        parameters = RuleParameters(
            level=alpha,
            temperature=temperature,
            min_k=min_k,
            max_k=max_k,
            # RuleParameters checks these and makes them members of their enums.
            mode=mode,  # type: ignore[arg-type]
            weights=weights,  # type: ignore[arg-type]
        )
        super().__init__(
            model, parameters, collect_stats=collect_stats, recording=recording, tokenizer=tokenizer
        )
