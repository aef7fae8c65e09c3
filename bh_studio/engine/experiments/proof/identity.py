"""Whether a rule that selects what the model selects changes nothing, to the bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bh_studio.engine.errors import CancelToken
from bh_studio.engine.experiments.proof.fingerprints import first_difference
from bh_studio.engine.experiments.proof.reading import place, prints_in_one_pass, prints_in_steps
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.records.proofs.proof import Check
from bh_studio.engine.rules.parameters import RuleName, RuleParameters
from bh_studio.engine.rules.text import format_rule

IN_ONE_PASS, IN_STEPS = "own k in one pass", "own k step by step"


def check_one_pass(
    loaded: LoadedModel, prompt_ids: Sequence[int], token_ids: Sequence[int]
) -> Check:
    """Read the prompt and the answer together, with the model as it is and with its own k."""
    text = [*prompt_ids, *token_ids[:-1]]
    own, forced = (prints_in_one_pass(loaded, r, text) for r in (None, _own_k(loaded)))
    return _check(loaded, IN_ONE_PASS, "read in one pass", own, forced, len(prompt_ids))


def check_steps(
    loaded: LoadedModel,
    prompt_ids: Sequence[int],
    token_ids: Sequence[int],
    prints: np.ndarray | None,
    cancel: CancelToken,
) -> Check:
    """Read the answer token by token, as it was decoded, in the same two ways.

    prints: (token,) fingerprints of the logits if the model's own routing has answered; None to
    read them too. Raises Cancelled.
    """
    own = prints
    if own is None:
        own = prints_in_steps(loaded, None, prompt_ids, token_ids, cancel)
    forced = prints_in_steps(loaded, _own_k(loaded), prompt_ids, token_ids, cancel)
    # What is read first predicts the first token.
    return _check(loaded, IN_STEPS, "read step by step", own, forced, prompt_tokens=1)


def _own_k(loaded: LoadedModel) -> RoutingIntegration:
    top_k = loaded.shape.top_k
    rule = RuleParameters(rule=RuleName.TOP_K, level=float(top_k), max_k=top_k)
    return RoutingIntegration(loaded.model, rule)


def _check(
    loaded: LoadedModel,
    name: str,
    how: str,
    own: np.ndarray,
    forced: np.ndarray,
    prompt_tokens: int,
) -> Check:
    rule = format_rule(_own_k(loaded).parameters)
    found = first_difference(own, forced)
    return Check(
        name,
        passed=found is None,
        compared=f"bits of the logits under the rule {rule} with those of the model's own routing, "
        f"{how}",
        positions=len(own),
        layers=loaded.shape.layers,
        numbers=len(own) * loaded.model.config.vocab_size,
        problem=""
        if found is None
        else f"The logits first differ at {place(found, prompt_tokens)}.",
    )
