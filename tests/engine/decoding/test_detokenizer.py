"""Text that grows token by token and never shows half a character."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from bh_studio.engine.decoding.detokenizer import StreamingDetokenizer, vocabulary_of

TEXTS = [
    "plain English, with  two spaces\n\nand a new paragraph",
    "emoji 😀 family 👨‍👩‍👧‍👦 flag 🇩🇪 skin 👋🏽",
    "中文字 日本語 한국어 العربية",
    "é combined é and ﬁne",
    "a real � in the text",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("prompt", ["", "Once upon a time, ☃"])
def test_pieces_join_to_the_text(
    text: str, prompt: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    prompt_ids = tokenizer(prompt).input_ids
    detokenizer = StreamingDetokenizer(tokenizer, prompt_ids)
    pieces = [detokenizer.add(token_id) for token_id in tokenizer(text).input_ids]
    assert "".join(pieces) + detokenizer.finish() == text


@pytest.mark.parametrize("text", TEXTS[:4])
def test_no_piece_holds_half_a_character(text: str, tokenizer: PreTrainedTokenizerFast) -> None:
    detokenizer = StreamingDetokenizer(tokenizer, [])
    shown = ""
    for token_id in tokenizer(text).input_ids:
        shown += detokenizer.add(token_id)
        assert text.startswith(shown)


def test_incomplete_bytes_are_shown_at_the_end_and_in_the_middle(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    half = tokenizer("😀").input_ids[:2]
    detokenizer = StreamingDetokenizer(tokenizer, [])
    assert [detokenizer.add(token_id) for token_id in half] == ["", ""]
    assert "�" in detokenizer.finish()
    detokenizer = StreamingDetokenizer(tokenizer, [])
    ids = [*half, *tokenizer("ok").input_ids]
    pieces = [detokenizer.add(token_id) for token_id in ids]
    assert "".join(pieces) + detokenizer.finish() == tokenizer.decode(ids)


def test_special_tokens_are_not_text(tokenizer: PreTrainedTokenizerFast) -> None:
    detokenizer = StreamingDetokenizer(tokenizer, [])
    assert detokenizer.add(tokenizer.eos_token_id) == ""
    assert detokenizer.finish() == ""


def test_long_answers_stay_whole(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "Snow ☃ fell on the 屋根. " * 40
    detokenizer = StreamingDetokenizer(tokenizer, [])
    pieces = [detokenizer.add(token_id) for token_id in tokenizer(text).input_ids]
    assert "".join(pieces) + detokenizer.finish() == text


def test_the_vocabulary_has_each_token_s_own_text(tokenizer: PreTrainedTokenizerFast) -> None:
    vocabulary = vocabulary_of(tokenizer)
    assert len(vocabulary) == len(tokenizer)
    assert vocabulary == tuple(
        tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        for token_id in range(len(tokenizer))
    )
