"""What definitions leave open, and what is made of that with a model."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from bh_studio.engine.protocol.experiments import (
    Batch,
    Comparison,
    Evaluation,
    Sweep,
    conversation_of,
    kind_of,
    settled,
)
from bh_studio.engine.records.rows import FilePrompt
from bh_studio.engine.records.terms import Conversation, GenerationParameters, ModelInfo
from bh_studio.engine.rules.parameters import RuleParameters

SIDES, GENERATION = (None, RuleParameters()), GenerationParameters()
COMPARISON = Comparison(prompt="Who?", sides=SIDES, generation=GENERATION)
SWEEP = Sweep(prompts=("Who?",), sides=SIDES, generation=GENERATION)
BATCH = Batch(
    prompts=(FilePrompt(3, "Who?", {"id": 1}),), prompts_sha256="abc", sides=SIDES,
    generation=GENERATION,
)  # fmt: skip
BASE = ModelInfo(
    id="embedded", name="tiny", architecture="olmoe", fingerprint="f", layers=2, experts=8,
    top_k=2, context_length=64, parameter_count=1, dtype="float32", device="cpu", expert_path="",
    null_sha256="", null_samples=1,
)  # fmt: skip
INSTRUCT = replace(BASE, has_chat_template=True)
BRIEF = Conversation("Be brief.")

Open = Comparison | Sweep | Batch


@pytest.mark.parametrize("definition", [COMPARISON, SWEEP, BATCH], ids=kind_of)
def test_what_is_left_open_the_model_says(definition: Open) -> None:
    assert "prompt_format" not in definition.settings()
    assert conversation_of(definition, BASE) is None
    assert conversation_of(definition, INSTRUCT) == Conversation()
    assert settled(definition, BASE).settings() == {
        **definition.settings(), "prompt_format": "plain text"
    }  # fmt: skip
    assert settled(definition, INSTRUCT).settings() == {
        **definition.settings(), "prompt_format": "chat", "system_prompt": ""
    }  # fmt: skip


@pytest.mark.parametrize("definition", [COMPARISON, SWEEP, BATCH], ids=kind_of)
@pytest.mark.parametrize("conversation", [None, BRIEF], ids=["text", "chat"])
def test_what_is_decided_stays_as_it_is_with_every_model(
    definition: Open, conversation: Conversation | None
) -> None:
    decided = msgspec.structs.replace(definition, conversation=conversation)
    for model in (BASE, INSTRUCT):
        assert conversation_of(decided, model) == conversation
        assert settled(decided, model) == decided


def test_what_leaves_nothing_open_is_settled() -> None:
    evaluation = Evaluation(texts=(), rules=())
    assert settled(evaluation, INSTRUCT) == evaluation


@pytest.mark.parametrize("definition", [COMPARISON, SWEEP, BATCH], ids=kind_of)
def test_json_tells_open_from_decided_for_plain_text(
    definition: Open,
) -> None:
    kind = type(definition)
    written = msgspec.json.encode(definition)
    assert b"conversation" not in written
    assert msgspec.json.decode(written, type=kind) == definition
    for conversation in (None, BRIEF):
        decided = msgspec.structs.replace(definition, conversation=conversation)
        again = msgspec.json.decode(msgspec.json.encode(decided), type=kind)
        assert again == decided
        assert again.conversation == conversation
