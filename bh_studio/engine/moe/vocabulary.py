"""Whether a model can read a text: its characters have bytes, its tokens embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bh_studio.engine.errors import EngineError
from bh_studio.engine.files.text import is_text


def check_characters(text: str, what: str) -> None:
    """Raise EngineError if `text` has half a surrogate pair, which no tokenizer takes.

    what: the text, as a sentence begins with it.
    """
    if not is_text(text):
        raise EngineError(
            f"{what} has half a character in it, which no model can read.", "Take it out."
        )


def check_token_ids(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], what: str
) -> None:
    """Raise EngineError if `ids`, which `tokenizer` made of a text, has one that `model` lacks.

    what: the text, as a sentence begins with it.
    """
    rows = model.get_input_embeddings().num_embeddings
    highest = max(ids, default=0)
    if highest >= rows:
        name = tokenizer.convert_ids_to_tokens(highest)
        raise EngineError(
            f'{what} has "{name}", which is token {highest} to the tokenizer; the model has only '
            f"{rows} tokens, from 0.",
            "Leave it out, or put the tokenizer of this very model into its folder.",
        )
