"""One text for all sides: against the distributions themselves, evaluate, sorting, to the bit."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from bh_studio.engine.calibration.recorder import calibration_text
from bh_studio.engine.errors import CancelToken, EngineError
from bh_studio.engine.experiments import same_text
from bh_studio.engine.experiments.evaluation import one_pass
from bh_studio.engine.experiments.runner import RowError, run
from bh_studio.engine.loading import LoadedModel
from bh_studio.engine.protocol.events import Finished, Notice, RowReady
from bh_studio.engine.protocol.experiments import Evaluation, SameText
from bh_studio.engine.protocol.texts import Text, TextTooLong
from bh_studio.engine.records.decisions.routed_experts import NO_EXPERT
from bh_studio.engine.records.same_text.as_answer import as_answer
from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.records.same_text.side_reading import SideReading
from bh_studio.engine.routing.drift import drift_of
from bh_studio.engine.routing.replay import replayed_counts
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import parse_rule
from tests.engine.experiments.running import result_of, rows_of
from tests.tiny_olmoe import CONTEXT, END_OF_TEXT, EXPERTS, LAYERS, TOP_K

# A token a byte; the last one is never read, for nothing follows it.
TEXT = Text("tale.txt", calibration_text()[:CONTEXT])
BH = parse_rule("bh:0.3,max_k=6")
ONE = parse_rule("top-k:1")


def read(loaded: LoadedModel, *sides: RuleParameters | None, text: Text = TEXT) -> SameTextResult:
    result: SameTextResult = result_of(loaded, SameText(text=text, sides=sides))
    return result


@pytest.fixture
def own(loaded: LoadedModel) -> LoadedModel:
    """The tiny model, to be changed."""
    return dataclasses.replace(loaded, model=copy.deepcopy(loaded.model))


def distributions(loaded: LoadedModel, top_k: int) -> torch.Tensor:
    """Log-probabilities of each next token with a fixed top-k: (position, vocabulary) float64."""
    model = copy.deepcopy(loaded.model)
    for layer in model.model.layers:
        layer.mlp.gate.top_k = top_k
    ids = torch.tensor([loaded.tokenizer(TEXT.content).input_ids])
    with torch.inference_mode():
        return model(ids).logits[0, :-1].double().log_softmax(-1)


def test_every_number_is_that_of_the_distributions_themselves(loaded: LoadedModel) -> None:
    result = read(loaded, None, ONE)
    p, q = distributions(loaded, TOP_K), distributions(loaded, 1)
    targets = torch.tensor(result.token_ids[1:])
    assert len(targets) == CONTEXT - 1
    for reading, log_p in zip(result.readings, (p, q), strict=True):
        expected = log_p.gather(-1, targets[:, None]).squeeze(-1).numpy()
        np.testing.assert_allclose(reading.log_probabilities, expected, rtol=0, atol=1e-5)
        divergence = (p.exp() * (p - log_p)).sum(-1).numpy()
        np.testing.assert_allclose(reading.kl, divergence, rtol=1e-4, atol=1e-6)
        assert reading.nats == pytest.approx(-expected.mean(), abs=1e-6)
        assert reading.perplexity == pytest.approx(np.exp(-expected.mean()), rel=1e-5)
        assert reading.mean_kl == pytest.approx(divergence.mean(), abs=1e-6)
    assert result.readings[1].mean_kl > 0.001


def test_the_totals_are_those_of_an_evaluation_of_the_same_window(loaded: LoadedModel) -> None:
    result = read(loaded, None, BH, ONE)
    evaluation = result_of(loaded, Evaluation(texts=(TEXT,), rules=(BH, ONE), window=CONTEXT))
    assert evaluation.tokens.tolist() == [CONTEXT - 1]
    for reading, scores in zip(result.readings, evaluation.scores(), strict=True):
        assert reading.nats == pytest.approx(scores.nats.value, rel=1e-6)
        assert reading.mean_kl == pytest.approx(scores.kl.value, rel=1e-4, abs=1e-7)
        assert reading.statistics.mean == pytest.approx(scores.mean_experts.value, rel=1e-12)
        assert reading.statistics.share_clamped_max == pytest.approx(scores.share_lowered.value)


@pytest.mark.parametrize(
    "rule", [f"top-k:{TOP_K}", f"bh:0.3,min_k={TOP_K},max_k={TOP_K}", "top-k:1,mode=analyze"]
)
def test_a_rule_that_keeps_the_models_own_experts_is_side_a_to_the_bit(
    rule: str, loaded: LoadedModel
) -> None:
    first, other = read(loaded, None, parse_rule(rule)).readings
    assert not first.kl.any()
    assert not other.kl.any()
    np.testing.assert_array_equal(first.log_probabilities, other.log_probabilities)
    np.testing.assert_array_equal(first.ranks, other.ranks)


def test_any_side_can_be_the_first(loaded: LoadedModel) -> None:
    (forward, own_first) = read(loaded, ONE, None).readings, read(loaded, None, ONE).readings
    assert not forward[0].kl.any()
    assert forward[1].kl.mean() > 0
    for here, there in zip(forward, reversed(own_first), strict=True):
        np.testing.assert_array_equal(here.log_probabilities, there.log_probabilities)
    (alone,) = read(loaded, BH).readings
    assert alone.rule == BH
    assert not alone.kl.any()


def test_a_rank_is_the_place_by_probability_and_equals_share_the_best(own: LoadedModel) -> None:
    # Every second token is exactly as probable as the one before it.
    head = own.model.lm_head.weight
    head.data[1:256:2] = head.data[:256:2]
    ids = torch.tensor([own.tokenizer(TEXT.content).input_ids])
    with torch.inference_mode():
        logits = own.model(ids).logits[0, :-1]
    ranks = read(own, None).readings[0].ranks
    for row, token, rank in zip(logits, ids[0, 1:], ranks, strict=True):
        in_order = row.sort(descending=True).values
        assert rank == 1 + in_order.tolist().index(row[token].item())
    pairs = [(row == row[token]).sum() for row, token in zip(logits, ids[0, 1:], strict=True)]
    assert all(equal >= 2 for equal in pairs)


def test_experts_are_counted_where_the_token_is_predicted(loaded: LoadedModel) -> None:
    first, free, limited = read(
        loaded, None, parse_rule(f"bh:0.3,max_k={EXPERTS}"), parse_rule("bh:0.3,min_k=2,max_k=3")
    ).readings
    assert first.counts.shape == (CONTEXT - 1, LAYERS)
    assert (first.counts == TOP_K).all()
    assert (first.raw_counts == TOP_K).all()
    # Up to the first layer all sides have read the same.
    np.testing.assert_array_equal(free.raw_counts[:, 0], limited.raw_counts[:, 0])
    np.testing.assert_array_equal(limited.counts, limited.raw_counts.clip(2, 3))
    assert len(np.unique(free.counts)) > 2


def test_an_analyzing_side_says_what_its_rule_would_use(loaded: LoadedModel) -> None:
    _, simulated = read(loaded, None, parse_rule("top-k:1,mode=analyze")).readings
    assert (simulated.counts == 1).all()


def test_each_side_reads_once_and_few_words_are_judged_at_once(
    own: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read(own, None, BH)
    passes, rows = [], []
    own.model.model.register_forward_pre_hook(lambda *_: passes.append(1))
    own.model.lm_head.register_forward_hook(lambda _m, _i, logits: rows.append(len(logits)))
    monkeypatch.setattr(one_pass, "_MOST_LOGITS", 10 * 257 + 1)
    parted = read(own, None, BH)
    assert len(passes) == 2
    assert max(rows) == 10
    assert sum(rows) == 3 * (CONTEXT - 1)
    for one, other in zip(whole.readings, parted.readings, strict=True):
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-5)
        np.testing.assert_allclose(one.kl, other.kl, atol=1e-6)
        np.testing.assert_array_equal(one.counts, other.counts)


def test_a_token_is_predicted_from_those_before_it_alone(loaded: LoadedModel) -> None:
    short = read(loaded, None, BH, text=Text("short", TEXT.content[:40])).readings
    for one, whole in zip(short, read(loaded, None, BH).readings, strict=True):
        np.testing.assert_allclose(
            one.log_probabilities, whole.log_probabilities[:39], rtol=0, atol=1e-5
        )
        np.testing.assert_array_equal(one.counts, whole.counts[:39])


def test_the_texts_of_the_tokens_are_the_text(loaded: LoadedModel) -> None:
    text = Text("odd", f" Ein König 👑,\r\n\tsagt man{END_OF_TEXT}.\n")
    result = read(loaded, None, text=text)
    assert "".join(result.token_texts) == text.content.replace(END_OF_TEXT, "")
    assert len(result.token_texts) == len(result.token_ids)
    assert (result.text_name, result.text_sha256) == (text.name, text.sha256)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a", "tale.txt has fewer than two tokens, so there is nothing to predict."),
        (
            "x" * (CONTEXT + 1),
            "tale.txt has 129 tokens, 1 too many: this model reads at most 128 at once.",
        ),
        (
            "x" * 2000,
            "tale.txt has 2,000 tokens, 1,872 too many: this model reads at most 128 at once.",
        ),
    ],
)
def test_texts_that_cannot_be_read_so_are_refused_before_any_pass(
    content: str, sentence: str, own: LoadedModel
) -> None:
    own.model.register_forward_pre_hook(lambda *_: pytest.fail("it was read"))
    with pytest.raises(EngineError) as raised:
        read(own, None, BH, text=Text("tale.txt", content))
    assert raised.value.message == sentence
    assert raised.value.advice


@pytest.mark.parametrize(
    "content",
    ["x" * (CONTEXT + 1), "x" * 2000, f"Ein König 👑{END_OF_TEXT}sagt\r\n" * 40, "👑" * CONTEXT],
)
def test_of_a_text_that_is_too_long_the_beginning_is_given_that_fits(
    content: str, loaded: LoadedModel
) -> None:
    with pytest.raises(TextTooLong) as raised:
        read(loaded, None, text=Text("tale.txt", content))
    beginning = raised.value.beginning
    assert beginning.name == "tale.txt (beginning)"
    assert content.startswith(beginning.content)
    assert f"Its first {len(beginning.content):,} characters fit." in raised.value.advice
    assert len(read(loaded, None, text=beginning).token_ids) <= CONTEXT
    one_more = Text("one more", content[: len(beginning.content) + 1])
    with pytest.raises(TextTooLong):
        read(loaded, None, text=one_more)


def test_a_model_that_is_far_off_has_no_perplexity(own: LoadedModel) -> None:
    own.model.lm_head.weight.data *= 10_000
    (reading,) = read(own, None).readings
    assert reading.nats > 1000
    assert reading.perplexity is None


def test_two_tokens_are_enough(loaded: LoadedModel) -> None:
    result = read(loaded, None, BH, text=Text("ab", "ab"))
    assert [reading.log_probabilities.shape for reading in result.readings] == [(1,), (1,)]


@pytest.mark.parametrize("known", [["side 0"], ["side 1"], ["side 0", "side 1", "side 2"]])
def test_going_on_gives_the_very_numbers_of_an_undisturbed_run(
    known: list[str], loaded: LoadedModel
) -> None:
    definition = SameText(text=TEXT, sides=(None, BH, ONE))
    whole, rows = result_of(loaded, definition), rows_of(loaded, definition)
    again = result_of(loaded, definition, {key: rows[key] for key in known})
    for one, other in zip(whole.readings, again.readings, strict=True):
        assert one.to_json() == other.to_json()
    assert whole.to_json()["totals"] == again.to_json()["totals"]


def test_rows_of_another_text_are_refused(loaded: LoadedModel) -> None:
    definition = SameText(text=TEXT, sides=(None, BH))
    rows = rows_of(loaded, definition)
    shorter = SameText(text=Text("short", "Once upon"), sides=(None, BH))
    for other, found in (
        (shorter, rows),
        (definition, {"side 0": rows["side 1"]}),
        (definition, {"side 0": {**rows["side 0"], "counts": [[10**9] * LAYERS] * (CONTEXT - 1)}}),
        (definition, {"side 0": {**rows["side 0"], "ranks": [0] * (CONTEXT - 1)}}),
        (definition, {"side 0": {**rows["side 0"], "rule": 7}}),
    ):
        with pytest.raises(RowError, match="none of this experiment"):
            result_of(loaded, other, found)


def test_a_stopped_run_keeps_the_sides_that_have_read(loaded: LoadedModel) -> None:
    cancel = CancelToken()
    for event in run(loaded, SameText(text=TEXT, sides=(None, BH, ONE)), {}, cancel):
        if isinstance(event, RowReady) and event.key == "side 1":
            cancel.cancel()
    assert isinstance(event, Finished)
    assert not event.is_complete
    result = event.document
    assert (len(result.readings), len(result.sides), result.is_complete) == (2, 3, False)


def test_a_null_that_is_too_small_is_said(loaded: LoadedModel) -> None:
    rule = parse_rule("bh:0.000001")
    events = list(run(loaded, SameText(text=TEXT, sides=(None, rule))))
    assert [event for event in events if isinstance(event, Notice)]


def test_the_most_different_positions_come_by_their_divergence(loaded: LoadedModel) -> None:
    result = read(loaded, None, BH, ONE)
    largest = np.max([reading.kl for reading in result.readings], axis=0)
    found = result.most_different(10)
    assert largest[found].tolist() == sorted(largest.tolist(), reverse=True)[:10]
    assert read(loaded, None, parse_rule(f"top-k:{TOP_K}")).most_different(10) == []


def test_what_the_routers_decided_is_kept_beside_the_rows(loaded: LoadedModel) -> None:
    result = read(loaded, None, BH)
    for reading in result.readings:
        decision = reading.decision
        assert decision is not None
        assert decision.router_logits is not None
        ran = (decision.experts != NO_EXPERT).sum(axis=-1)
        np.testing.assert_array_equal(ran, reading.counts)
        answer = as_answer(result, reading)
        assert answer.choices is not None
        answer.choices.check(len(answer.token_ids))
        assert answer.router_logits is not None
        if reading.rule is not None:
            rule = RoutingRule(reading.rule, loaded.recording, loaded.shape)
            counts, raw = replayed_counts(rule, answer.router_logits, len(answer.token_ids))
            np.testing.assert_array_equal(counts, reading.counts)
            np.testing.assert_array_equal(raw, reading.raw_counts)
        assert "decision" not in reading.to_json()


def test_each_side_is_judged_by_its_own_logits(loaded: LoadedModel) -> None:
    result = read(loaded, None, BH)
    for reading in result.readings:
        assert reading.decision is not None
        assert reading.decision.router_logits is not None
        assert reading.drift == drift_of(loaded.recording, reading.decision.router_logits)
        assert as_answer(result, reading).drift == reading.drift
    first, other = (reading.drift for reading in result.readings)
    assert first != other
    # As rows were before there were drifts.
    row = result.readings[0].to_json()
    assert SideReading.from_json(row).drift == first
    del row["drift"]
    assert SideReading.from_json(row).drift is None


def test_of_a_very_long_text_it_is_not_kept(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = read(loaded, None, BH)
    monkeypatch.setattr(same_text, "_MOST_KEPT", 100)
    result = read(loaded, None, BH)
    for reading, other in zip(result.readings, kept.readings, strict=True):
        assert reading.decision is None
        assert as_answer(result, reading).router_logits is None
        assert reading.drift is None
        assert reading.to_json() == {**other.to_json(), "drift": None}
