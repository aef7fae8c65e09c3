"""What definitions refuse by themselves, and what they refuse of a model."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from bh_studio.engine.errors import EngineError
from bh_studio.engine.protocol.experiments import (
    Batch,
    Budget,
    Comparison,
    Evaluation,
    Experiment,
    SameText,
    Sweep,
)
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.rows import FilePrompt, SkippedRow
from bh_studio.engine.records.terms import Conversation, GenerationParameters, ModelInfo, Turn
from bh_studio.engine.rules import RuleParameters, parse_rule

MODEL = ModelInfo(
    id="tiny", name="tiny", architecture="OlmoeForCausalLM", fingerprint="f" * 32, layers=3,
    experts=16, top_k=4, context_length=64, parameter_count=10, dtype="float32", device="cpu",
    expert_path="", null_sha256="0" * 64, null_samples=1000,
)  # fmt: skip
RULE, TEXT = RuleParameters(), Text("tale", "Once upon a time")


def comparison(**values: Any) -> Comparison:
    usual = {"prompt": "a", "sides": (None, RULE), "generation": GenerationParameters()}
    return Comparison(**{**usual, **values})


def batch(**values: Any) -> Batch:
    usual = {"prompts_sha256": "", "sides": (None, RULE), "generation": GenerationParameters()}
    return Batch(prompts=(FilePrompt(1, "a"),), **{**usual, **values})


def sweep(**values: Any) -> Sweep:
    usual = {"prompts": ("a",), "sides": (None, RULE), "generation": GenerationParameters()}
    return Sweep(**{**usual, **values})


ANSWERING = (comparison, batch, sweep)


def test_only_a_comparison_that_is_to_be_proved_says_so() -> None:
    assert comparison().settings()["prove"] is False
    assert comparison(prove=True).settings()["prove"] is True


TOP_3 = parse_rule("top-k:3")


@pytest.mark.parametrize("make", [comparison, batch])
@pytest.mark.parametrize(
    "sides",
    [(None,), (RULE,), (RULE, None), (RULE, TOP_3), (TOP_3, None, RULE, parse_rule("top-k:4"))],
)
def test_one_to_four_sides_are_compared(make: Any, sides: tuple[Any, ...]) -> None:
    assert make(sides=sides).sides == sides
    said = make(sides=sides).settings()["sides"]
    assert [None if text is None else parse_rule(text) for text in said] == list(sides)


@pytest.mark.parametrize("make", [comparison, batch])
@pytest.mark.parametrize(
    ("sides", "sentence"),
    [
        ((), "1 to 4 sides, the model's own routing among them; got 0"),
        ((None, *map(parse_rule, ("top-k:1", "top-k:2", "top-k:3", "top-k:4"))), "got 5"),
        ((None, None), "The model's own routing is given twice"),
        ((None, RULE, RULE), "The rule bh:0.05 is given twice; give each once"),
    ],
)
def test_other_sides_are_refused(make: Any, sides: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make(sides=sides)


@pytest.mark.parametrize(
    ("sides", "sentence"),
    [
        ((), "A comparison has 1 to 4 sides, the model's own routing among them; got 0."),
        (
            (None, *(parse_rule(f"top-k:{k}") for k in range(1, 5))),
            "A comparison has 1 to 4 sides, the model's own routing among them; got 5.",
        ),
        ((None, RULE, None), "The model's own routing is given twice; give each once."),
        ((RULE, None, RULE), "The rule bh:0.05 is given twice; give each once."),
    ],
)
def test_one_to_four_different_sides_read_a_text(sides: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        SameText(text=TEXT, sides=sides)


@pytest.mark.parametrize("make", ANSWERING)
@pytest.mark.parametrize("answers", [(), ("a",), ("a", "b", "c")])
def test_each_side_has_an_answer_to_each_earlier_turn(make: Any, answers: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="answers of 2 sides"):
        make(conversation=Conversation("", (Turn("Who?", answers),)))


@pytest.mark.parametrize("make", ANSWERING)
def test_only_a_model_with_a_template_has_conversations(make: Any) -> None:
    make().check_model(MODEL)
    with pytest.raises(EngineError, match="tiny continues texts"):
        make(conversation=Conversation()).check_model(MODEL)


@pytest.mark.parametrize("rule", ["bh:0.1,max_k=17", "top-k:17", "bh:0.1/0.2"])
def test_rules_fit_the_experts_and_layers(rule: str) -> None:
    wrong = parse_rule(rule)
    definitions: list[Experiment] = [make(sides=(None, wrong)) for make in ANSWERING]
    definitions.append(Evaluation(texts=(TEXT,), rules=(RULE, wrong)))
    definitions.append(SameText(text=TEXT, sides=(wrong,)))
    if not rule.startswith("top-k"):
        definitions.append(Budget(target=4, rule=wrong, fit=(TEXT,)))
    for definition in definitions:
        with pytest.raises(ValueError, match=r"16 experts|3 layers"):
            definition.check_model(MODEL)


def test_the_rows_of_a_batch_can_be_told_apart() -> None:
    twice = (FilePrompt(1, "a"), FilePrompt(1, "b"))
    for values, sentence in (
        ({"prompts": ()}, "needs a prompt"),
        ({"prompts": twice}, "Line 1 has more than one row"),
        ({"unusable": (SkippedRow(1, "No."),)}, "Line 1 has more than one row"),
    ):
        with pytest.raises(ValueError, match=sentence):
            msgspec.structs.replace(batch(), **values)


@pytest.mark.parametrize("target", [-1.0, 0.5, math.inf, math.nan])
def test_a_mean_is_a_number_of_experts(target: float) -> None:
    with pytest.raises(ValueError, match="target must be a number of experts from 1"):
        Budget(target=target, rule=RULE, fit=(TEXT,))


@pytest.mark.parametrize(("seed", "seeds"), [(0, 0), (0, 10**9), (2**63 - 1, 2)])
def test_every_seed_of_a_sweep_is_one(seed: int, seeds: int) -> None:
    generation = GenerationParameters(seed=seed)
    with pytest.raises(ValueError, match="seed"):
        Sweep(prompts=("a",), sides=(None, RULE), generation=generation, seeds=seeds)
