"""A text read in one pass, and what one reading predicts against another. Knows no window."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from bh_studio.engine.decoding.pass_recorder import PassRecorder
from bh_studio.engine.experiments.evaluation.teacher_forcing import judged
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.integration import RoutingIntegration

# Numbers of one array over positions and vocabulary, 32 MiB in float32; a few are held at once. It
# decides how sums are rounded, so it may not depend on the machine.
_MOST_LOGITS = 2**23


def last_states(
    loaded: LoadedModel,
    token_ids: Tensor,
    routing: RoutingIntegration | None,
    recorder: PassRecorder | None = None,
) -> Tensor:
    """What the last layer makes of each token, (position, hidden).

    token_ids: (position,) int64. routing: in force meanwhile; None for the model's own. recorder:
    keeps what the routers decide in it.
    """
    inputs = token_ids[None].to(loaded.model.device)
    with routing or nullcontext(), recorder or nullcontext():
        states: Tensor = loaded.model.base_model(inputs, use_cache=False).last_hidden_state[0]
    return states


def predictions(
    loaded: LoadedModel, states: Tensor, first_states: Tensor, targets: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """What `judged` says of each next token, and its rank: (3, position) and (position,).

    states, first_states: (position, hidden) of a reading and of the one it is compared with, the
    same tensor where it is that itself. targets: (position,) int64, the tokens that come next.
    Raises EngineError as `judged` does.
    """
    head = loaded.model.get_output_embeddings()
    judgements, ranks, start = [], [], 0
    chunk = max(1, _MOST_LOGITS // head.out_features)
    for of_chunk, of_first in zip(states.split(chunk), first_states.split(chunk), strict=True):
        logits = head(of_chunk)
        log_p = logits.log_softmax(-1, torch.float32)
        # The first reading is its own baseline, to the bit.
        is_first = states is first_states
        baseline = log_p if is_first else head(of_first).log_softmax(-1, torch.float32)
        of_targets = targets[start : start + len(log_p)].to(log_p.device)
        judgements.append(judged(log_p, baseline, of_targets))
        more_probable = logits > logits.gather(-1, of_targets[:, None])
        ranks.append(1 + more_probable.sum(-1).cpu().numpy())
        start += len(log_p)
    return np.concatenate(judgements, axis=1), np.concatenate(ranks)
