"""How far sides that have written answers are from the first, as far as all have read the same.

Nothing of it is recorded while they write: what the sides share is read again, each in one pass.
"""

from __future__ import annotations

import numpy as np
import torch

from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.experiments.evaluation.one_pass import last_states, predictions
from bh_studio.engine.experiments.sides import routings_of
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.requests import MeasureKl
from bh_studio.engine.rules.sides import check_number


@torch.inference_mode()
def kl_to_first(loaded: LoadedModel, asked: MeasureKl, cancel: CancelToken) -> np.ndarray:
    """The answer to MeasureKl: (side, token) float64, nats.

    Sums are rounded as in one pass over all that is read, so to the bit only sides are alike that
    route alike.

    Raises EngineError for a session of another model or null and for tokens that the model cannot
    read, ValueError for sides that do not fit it, Cancelled between two sides.
    """
    _check(loaded, asked)
    prompt, answer = asked.prompt_token_ids, asked.token_ids
    token_ids = torch.tensor((*prompt, *answer))
    first_states, found = None, []
    for routing in routings_of(loaded, asked.sides):
        if cancel.is_cancelled:
            raise Cancelled
        # The last token of the prompt predicts the first of the answer.
        states = last_states(loaded, token_ids[:-1], routing)[len(prompt) - 1 :]
        first_states = states if first_states is None else first_states
        judgements, _ = predictions(loaded, states, first_states, token_ids[len(prompt) :])
        found.append(judgements[1])
    return np.stack(found)


def _check(loaded: LoadedModel, asked: MeasureKl) -> None:
    check_number(len(asked.sides))
    model, info = asked.model, loaded.info
    if model.fingerprint != info.fingerprint:
        raise EngineError(
            f"These answers are of another model than {info.name}, which is loaded.",
            f"Load {model.name}, as it was then.",
        )
    needs_null = any(rule is not None and rule.needs_calibration for rule in asked.sides)
    if needs_null and model.null_sha256 != info.null_sha256:
        raise EngineError(
            "These answers were written with another null than that of the loaded model.",
            "Load it with the calibration that they had.",
        )
    read = len(asked.prompt_token_ids) + len(asked.token_ids)
    if read > info.context_length:
        raise EngineError(
            f"These answers have {read:,} tokens with their prompt; this model reads at most "
            f"{info.context_length:,} at once.",
            "They are none of its own.",
        )
    if not (asked.prompt_token_ids and asked.token_ids):
        raise EngineError("There is no token to predict.", "Let the sides answer first.")
    rows = loaded.model.get_input_embeddings().num_embeddings
    if not all(0 <= token < rows for token in (*asked.prompt_token_ids, *asked.token_ids)):
        raise EngineError(
            "These answers have a token that the loaded model lacks.",
            "They are none of its own, or their file is damaged.",
        )
