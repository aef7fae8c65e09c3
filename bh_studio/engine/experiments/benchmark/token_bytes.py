"""Bytes that have to be read to decode one token, counted from the parameters of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from bh_studio.engine.models.memory import cache_bytes
from bh_studio.engine.moe.expert_weights import find_experts


@dataclass(frozen=True, slots=True)
class TokenBytes:
    """What decoding one token reads.

    dense: bytes of all weights that every token needs: attention, norms, routers, output head, and
    the one row of the embedding that is its own. expert: bytes of one expert in every layer that
    has experts, all of them together. position: bytes of the keys and values of one position.
    """

    dense: int
    expert: int
    position: int

    def of(self, experts: float, positions: float) -> float:
        """Bytes at a mean of `experts` of a layer, with `positions` to attend to."""
        return self.dense + experts * self.expert + positions * self.position


def token_bytes(model: PreTrainedModel) -> TokenBytes:
    """Counted from the shapes and dtypes of the parameters as they are."""
    expert = all_experts = 0
    for experts in find_experts(model):
        parameters = list(cast(nn.Module, experts).parameters(recurse=False))
        expert += sum(parameter[0].nbytes for parameter in parameters)
        all_experts += sum(parameter.nbytes for parameter in parameters)
    embedding = cast(Tensor, model.get_input_embeddings().weight)
    head = cast(Tensor, model.get_output_embeddings().weight)
    # parameters() names a matrix that is both only once, and as the head it is read whole.
    embedding_rest = 0 if embedding is head else embedding.nbytes
    dense = sum(parameter.nbytes for parameter in model.parameters()) - all_experts
    both_sides, tokens = cache_bytes(model.config, model.dtype)
    return TokenBytes(
        dense=dense - embedding_rest + embedding[0].nbytes,
        expert=expert,
        position=both_sides // (2 * tokens),
    )
