"""KL of written answers: against a reading of the same text and the distributions, to the bit."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from msgspec import structs

from bh_studio.engine.calibration.recorder import calibration_text
from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.execution.host import Host
from bh_studio.engine.experiments.written_kl import kl_to_first
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import KlMeasured
from bh_studio.engine.protocol.experiments import Comparison, SameText
from bh_studio.engine.protocol.requests import MeasureKl
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import parse_rule
from tests.engine.experiments.running import result_of
from tests.tiny_olmoe import CONTEXT, EXPERTS, TOP_K

TEXT = Text("tale.txt", calibration_text()[:60])
BH = parse_rule("bh:0.3,max_k=6")
ONE = parse_rule("top-k:1")
OWN = parse_rule(f"top-k:{TOP_K}")


def asked(
    loaded: LoadedModel, *sides: RuleParameters | None, prompt: int = 12, tokens: int = 48
) -> MeasureKl:
    """The first tokens of the text as a prompt, those behind them as the answer."""
    ids = loaded.tokenizer(TEXT.content).input_ids
    answer = tuple(ids[prompt : prompt + tokens])
    return MeasureKl(loaded.info, sides, tuple(ids[:prompt]), answer)


def measured(loaded: LoadedModel, question: MeasureKl) -> np.ndarray:
    host = Host()
    host.loaded = loaded
    (event,) = host.answer(question, CancelToken())
    assert isinstance(event, KlMeasured)
    return event.kl


@pytest.fixture
def own(loaded: LoadedModel) -> LoadedModel:
    """The tiny model, to be changed or watched."""
    return dataclasses.replace(loaded, model=copy.deepcopy(loaded.model))


def test_it_is_what_a_reading_of_the_same_text_says(loaded: LoadedModel) -> None:
    sides = (None, BH, ONE)
    result: SameTextResult = result_of(loaded, SameText(text=TEXT, sides=sides))
    kl = measured(loaded, asked(loaded, *sides))
    assert kl.shape == (3, 48)
    for of_side, reading in zip(kl, result.readings, strict=True):
        # Both read the whole in one pass; the products of the head are of fewer rows.
        np.testing.assert_allclose(of_side, reading.kl[11:], rtol=1e-4, atol=1e-6)
    assert kl[2].min() > 0
    whole = measured(loaded, asked(loaded, *sides, prompt=1, tokens=59))
    for of_side, reading in zip(whole, result.readings, strict=True):
        np.testing.assert_array_equal(of_side, reading.kl)


def test_it_is_that_of_the_distributions_themselves(loaded: LoadedModel) -> None:
    question = asked(loaded, None, ONE)
    ids = torch.tensor([[*question.prompt_token_ids, *question.token_ids]])
    found = []
    for top_k in (TOP_K, 1):
        model = copy.deepcopy(loaded.model)
        for layer in model.model.layers:
            layer.mlp.gate.top_k = top_k
        with torch.inference_mode():
            found.append(model(ids).logits[0, 11:-1].double().log_softmax(-1))
    p, q = found
    expected = (p.exp() * (p - q)).sum(-1).numpy()
    np.testing.assert_allclose(measured(loaded, question)[1], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "rule", [f"top-k:{TOP_K}", f"bh:0.3,min_k={TOP_K},max_k={TOP_K}", "top-k:1,mode=analyze"]
)
def test_a_rule_that_keeps_the_models_own_experts_has_exactly_none(
    rule: str, loaded: LoadedModel
) -> None:
    kl = measured(loaded, asked(loaded, None, parse_rule(rule), ONE))
    assert not kl[:2].any()
    assert kl[2].any()


def test_any_side_can_be_the_first(loaded: LoadedModel) -> None:
    kl = measured(loaded, asked(loaded, ONE, None, OWN))
    assert not kl[0].any()
    assert kl[1].min() > 0
    np.testing.assert_array_equal(kl[1], kl[2])


def test_tokens_are_read_as_they_are(own: LoadedModel) -> None:
    # No tokenizer makes two of a character that is one to it.
    prompt, answer = (256, 5, 256), (7, 256, 9)
    read: list[torch.Tensor] = []
    own.model.model.register_forward_pre_hook(
        lambda _m, inputs, named: read.append(named.get("input_ids", *inputs)), with_kwargs=True
    )
    measured(own, MeasureKl(own.info, (None, ONE), prompt, answer))
    # What comes last is predicted, and nothing is behind it.
    assert [ids.tolist() for ids in read] == [[[256, 5, 256, 7, 256]]] * 2


def test_an_answer_is_predicted_up_to_its_first_difference(loaded: LoadedModel) -> None:
    definition = Comparison(
        prompt="Once upon a time",
        sides=(None, ONE),
        generation=GenerationParameters(40, sampling=False),
    )
    session: Session = result_of(loaded, definition)
    first, other = session.records
    parted = next(
        place for place, pair in enumerate(zip(first.token_ids, other.token_ids, strict=False))
        if pair[0] != pair[1]
    )  # fmt: skip
    question = MeasureKl(
        session.model, session.sides, first.prompt_token_ids, first.token_ids[: parted + 1]
    )
    kl = measured(loaded, question)
    assert kl.shape == (2, parted + 1)
    # There both have read the same, and what they say of it differs.
    assert kl[1, parted] > 0
    with_its_own = structs.replace(question, token_ids=other.token_ids[: parted + 1])
    np.testing.assert_array_equal(measured(loaded, with_its_own), kl)


def test_one_token_is_enough_and_all_the_model_can_read_not_too_many(loaded: LoadedModel) -> None:
    assert measured(loaded, asked(loaded, None, BH, tokens=1)).shape == (2, 1)
    whole = MeasureKl(loaded.info, (None, BH), (3,) * 8, (3,) * (CONTEXT - 8))
    assert measured(loaded, whole).shape == (2, CONTEXT - 8)


@pytest.mark.parametrize(
    ("prompt", "answer", "sentence"),
    [
        ((3,), (3,) * CONTEXT, "129 tokens with their prompt; this model reads at most 128"),
        ((3,), (), "no token to predict"),
        ((), (3,), "no token to predict"),
        ((3,), (3, 257), "a token that the loaded model lacks"),
        ((-1,), (3,), "a token that the loaded model lacks"),
    ],
)
def test_what_cannot_be_read_is_refused_before_any_pass(
    prompt: tuple[int, ...], answer: tuple[int, ...], sentence: str, own: LoadedModel
) -> None:
    own.model.register_forward_pre_hook(lambda *_: pytest.fail("it was read"))
    own.model.model.register_forward_pre_hook(lambda *_: pytest.fail("it was read"))
    with pytest.raises(EngineError, match=sentence) as raised:
        measured(own, MeasureKl(own.info, (None, BH), prompt, answer))
    assert raised.value.advice


def test_another_model_and_another_null_are_refused(loaded: LoadedModel) -> None:
    other = dataclasses.replace(loaded.info, fingerprint="0" * 32, name="other")
    with pytest.raises(EngineError, match="of another model than") as raised:
        measured(loaded, structs.replace(asked(loaded, None, ONE), model=other))
    assert raised.value.advice == "Load other, as it was then."
    elsewhere = dataclasses.replace(loaded.info, null_sha256="0" * 64)
    with pytest.raises(EngineError, match="another null"):
        measured(loaded, structs.replace(asked(loaded, None, BH), model=elsewhere))
    # A rule that tests nothing has none.
    kl = measured(loaded, structs.replace(asked(loaded, None, ONE), model=elsewhere))
    np.testing.assert_array_equal(kl, measured(loaded, asked(loaded, None, ONE)))


def test_sides_that_fit_no_model_of_this_shape_are_refused(loaded: LoadedModel) -> None:
    with pytest.raises(ValueError, match=str(EXPERTS)):
        measured(loaded, asked(loaded, None, parse_rule(f"top-k:2,max_k={EXPERTS + 1}")))
    with pytest.raises(ValueError, match="1 to 4 sides"):
        measured(loaded, asked(loaded, None, *[ONE] * 4))


def test_it_ends_between_two_sides(own: LoadedModel) -> None:
    cancel, passes = CancelToken(), []

    def stop(*_: object) -> None:
        passes.append(1)
        cancel.cancel()

    own.model.model.register_forward_pre_hook(stop)
    with pytest.raises(Cancelled):
        kl_to_first(own, asked(own, None, BH, ONE), cancel)
    assert len(passes) == 1


def test_the_model_is_left_as_it_was(own: LoadedModel) -> None:
    before = result_of(own, SameText(text=TEXT, sides=(None,))).readings[0]
    measured(own, asked(own, None, BH))
    after = result_of(own, SameText(text=TEXT, sides=(None,))).readings[0]
    np.testing.assert_array_equal(before.log_probabilities, after.log_probabilities)
