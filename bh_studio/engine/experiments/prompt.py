"""The tokens that a side reads of a prompt: plain text, or a conversation in the model's own words.

Knows no routing; of a side only its number, by which it remembers its own earlier answers.
"""

from __future__ import annotations

import secrets

from transformers import PreTrainedTokenizerBase

from bh_studio.engine.errors import EngineError, reason
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.moe.vocabulary import check_characters, check_token_ids
from bh_studio.engine.records.terms import Conversation


def encode_prompt(
    loaded: LoadedModel,
    prompt: str,
    conversation: Conversation | None = None,
    side: int = 0,
) -> list[int]:
    """The tokens of `prompt`, with what precedes it for `side` in `conversation`.

    Plain text is read as the tokenizer reads any text, names of special tokens included. In a
    conversation only the chat template writes special tokens; their names in what a person or the
    model wrote are words like others. So are names of other added tokens in what a person wrote;
    runs of spaces, which tokenizers add too, are no names.
    Raises EngineError if the prompt is empty, if it is too long for the model or has characters or
    tokens that the model lacks, and if that has no chat template for a conversation or one that
    refuses it.
    """
    if not prompt.strip():
        advice = "Type the beginning of a text." if conversation is None else "Type a message."
        raise EngineError("The prompt is empty.", advice)
    check_characters(prompt, "The prompt")
    if conversation is None:
        token_ids: list[int] = loaded.tokenizer(prompt, verbose=False).input_ids
    else:
        token_ids = _encode_chat(loaded, prompt, conversation, side)
    check_token_ids(loaded.model, loaded.tokenizer, token_ids, "The prompt")
    if len(token_ids) >= loaded.info.context_length:
        has_turns = conversation is not None and bool(conversation.turns)
        what = "conversation, this prompt included," if has_turns else "prompt"
        raise EngineError(
            f"The {what} has {len(token_ids)} tokens; this model reads at most "
            f"{loaded.info.context_length}, the answer included.",
            "Start a new conversation." if has_turns else "Shorten the prompt.",
        )
    return token_ids


def _encode_chat(
    loaded: LoadedModel, prompt: str, conversation: Conversation, side: int
) -> list[int]:
    loaded.info.check_chat_template()
    check_characters(conversation.system, "The system prompt")
    try:
        token_ids = _apply_template(loaded.tokenizer, _messages(prompt, conversation, side))
        if not token_ids:
            raise ValueError("it writes nothing")
        return token_ids
    except Exception as error:
        # A template is a program from a file, which can raise whatever it wants.
        advice = "Leave the system prompt out, or use" if conversation.system else "Use"
        raise EngineError(
            f"The model's chat template refuses this conversation: {reason(error).rstrip('.')}.",
            f"{advice} plain text.",
        ) from error


def _messages(prompt: str, conversation: Conversation, side: int) -> list[dict[str, str]]:
    messages = []
    if conversation.system:
        messages.append({"role": "system", "content": conversation.system})
    for turn in conversation.turns:
        messages.append({"role": "user", "content": turn.prompt})
        messages.append({"role": "assistant", "content": turn.answers[side]})
    messages.append({"role": "user", "content": prompt})
    return messages


def _apply_template(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]
) -> list[int]:
    """The tokens that the template makes of `messages`, with no special token but its own."""
    # Longer names first: one may contain another.
    added = sorted(tokenizer.added_tokens_decoder.values(), key=lambda t: len(str(t)), reverse=True)
    special = [str(token) for token in added if token.special]
    typed = [str(token) for token in added if token.special or len(str(token).strip()) > 1]
    # A name that is broken in two is no name any more. Nobody can have typed the break.
    gap = secrets.token_hex(16)
    broken = []
    for message in messages:
        # What is not special in its own words a template may look for, such as the end of thoughts.
        names = special if message["role"] == "assistant" else typed
        broken.append({**message, "content": _break_names(message["content"], names, gap)})
    if broken == messages:
        token_ids: list[int] = tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            return_dict=False,
            tokenizer_kwargs={"verbose": False},
        )
        return token_ids
    text = tokenizer.apply_chat_template(broken, add_generation_prompt=True, tokenize=False)
    parts = [
        tokenizer(part, add_special_tokens=False, verbose=False).input_ids
        for part in text.split(gap)
    ]
    return [token_id for part in parts for token_id in part]


def _break_names(text: str, names: list[str], gap: str) -> str:
    for name in names:
        text = text.replace(name, f"{name[:1]}{gap}{name[1:]}")
    return text
