"""Token ids to text, one token at a time, never half a character."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Enough of the prompt for tokenizers that treat the first token of a text differently.
_CONTEXT_TOKENS = 8


def texts_of(tokenizer: PreTrainedTokenizerBase, token_ids: list[int]) -> tuple[str, ...]:
    """The text of each of `token_ids`, as StreamingDetokenizer has it; together the whole text."""
    detokenizer = StreamingDetokenizer(tokenizer, [])
    *pieces, last = (detokenizer.add(token_id) for token_id in token_ids)
    return (*pieces, last + detokenizer.finish())


def vocabulary_of(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """(token id,) the text of each token by itself; of one that is a part of a character U+FFFD."""
    ids = [[token_id] for token_id in range(len(tokenizer))]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # A hundredth of the time that the way around it takes: 30 ms for 50,000 tokens.
        return tuple(backend.decode_batch(ids, skip_special_tokens=False))
    return tuple(tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False))


class StreamingDetokenizer:
    """Text of one answer as its tokens arrive.

    A character may span several tokens; what is not complete is held back until it is, or until
    `finish`. All pieces together equal the decoded answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt_token_ids: list[int]) -> None:
        self._tokenizer = tokenizer
        # Only the last few tokens are decoded again: decoding all of them at every token would
        # take time that grows with the square of the answer's length.
        self._window = list(prompt_token_ids[-_CONTEXT_TOKENS:])
        self._shown = len(self._decode(self._window))

    def add(self, token_id: int) -> str:
        """The text that `token_id` completes; empty while a character is incomplete."""
        self._window.append(token_id)
        text = self._decode(self._window)
        if text.endswith(_REPLACEMENT):
            return ""
        piece = text[self._shown :]
        self._window = self._window[-_CONTEXT_TOKENS:]
        self._shown = len(self._decode(self._window))
        return piece

    def finish(self) -> str:
        """What is still held back, incomplete characters shown as U+FFFD."""
        piece = self._decode(self._window)[self._shown :]
        self._shown += len(piece)
        return piece

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(
            token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
