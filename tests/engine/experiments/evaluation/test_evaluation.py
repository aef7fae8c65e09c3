"""Teacher-forced quality: against transformers' own loss, identity to the bit, controls, errors."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from bh_studio.engine.calibration.recorder import calibration_text, make_recording
from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.experiments.evaluation.windows import windows
from bh_studio.engine.experiments.runner import run as run_experiment
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.moe.router_capture import RouterCapture
from bh_studio.engine.protocol.events import Finished, Progress
from bh_studio.engine.protocol.experiments import Evaluation
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.evaluation import Control, EvaluationResult, Scores
from bh_studio.engine.records.temperature_scaling import TEMPERATURES
from bh_studio.engine.routing.drift import drift_of
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import parse_rule
from tests.engine.experiments.running import Rows, result_of, rows_of
from tests.tiny_olmoe import CONTEXT, EXPERTS, LAYERS, TOP_K, save_tiny_checkpoint, tiny_model

TEXT = Text("tale", calibration_text()[:900])
NOTE = Text("note", calibration_text()[4000:4300])
# Whole windows, a byte a token: without overlap every position that is read is scored.
WHOLE = Text("whole", calibration_text()[: 6 * CONTEXT + 1])
BH = RuleParameters(level=0.3, max_k=6)
GONE_ON = Evaluation(
    texts=(TEXT, NOTE), rules=(BH, parse_rule("top-p:0.5")), with_controls=True, stride=32, batch=3
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(str(save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-olmoe"))))


@pytest.fixture
def loaded(tiny: LoadedModel) -> LoadedModel:
    return dataclasses.replace(tiny, model=copy.deepcopy(tiny.model))


@pytest.fixture(scope="module")
def undisturbed(tiny: LoadedModel) -> tuple[dict[str, Any], Rows]:
    """What GONE_ON says at its end, and its rows."""
    return result_of(tiny, GONE_ON).to_json(), rows_of(tiny, GONE_ON)


def run(loaded: LoadedModel, *rules: RuleParameters, **options: Any) -> EvaluationResult:
    definition = Evaluation(**{"texts": (TEXT, NOTE), "rules": rules, **options})
    result: EvaluationResult = result_of(loaded, definition)
    return result


def by_label(evaluation: EvaluationResult) -> dict[str, Scores]:
    labels = [contender.label for contender in evaluation.contenders]
    return dict(zip(labels, evaluation.scores(), strict=True))


@pytest.mark.parametrize("stride", [20, 64, CONTEXT])
def test_the_baseline_is_transformers_own_loss(loaded: LoadedModel, stride: int) -> None:
    evaluation = run(loaded, stride=stride)
    total, count = 0.0, 0
    for text in (TEXT, NOTE):
        ids = torch.tensor(loaded.tokenizer(text.content).input_ids)
        for _, start, end, first in windows([len(ids)], CONTEXT, stride):
            with torch.inference_mode():
                logits = loaded.model(ids[None, start:end]).logits[0, first - start :]
            losses = torch.nn.functional.cross_entropy(
                logits, ids[first + 1 : end + 1], reduction="sum"
            )
            total, count = total + float(losses), count + end - first
    assert int(evaluation.tokens.sum()) == count
    assert evaluation.scores()[0].nats.value == pytest.approx(total / count, rel=1e-6)
    assert evaluation.scores()[0].perplexity == pytest.approx(math.exp(total / count), rel=1e-5)


def test_the_models_own_routing_has_a_divergence_of_exactly_zero(loaded: LoadedModel) -> None:
    found = by_label(run(loaded, parse_rule(f"top-k:{TOP_K}"), BH, with_controls=True))
    for label in (f"top-k:{TOP_K}", "baseline (again)"):
        assert found[label].kl == (0.0, 0.0, 0.0)
        assert found[label].nats_increase == (0.0, 0.0, 0.0)
        assert found[label].agreement == (1.0, 1.0, 1.0)
    assert found["bh:0.3,max_k=6"].kl.low > 0


def test_divergence_and_agreement_are_those_of_the_two_distributions(loaded: LoadedModel) -> None:
    rule = parse_rule("top-k:1")
    scores = by_label(run(loaded, rule, stride=CONTEXT))["top-k:1"]
    one = copy.deepcopy(loaded.model)
    for layer in one.model.layers:
        layer.mlp.gate.top_k = 1
    divergence, agreements, count = 0.0, 0, 0
    for text in (TEXT, NOTE):
        ids = torch.tensor(loaded.tokenizer(text.content).input_ids)
        for _, start, end, first in windows([len(ids)], CONTEXT, CONTEXT):
            inputs = ids[None, start:end]
            with torch.inference_mode():
                p, q = (
                    m(inputs).logits[0, first - start :].double().log_softmax(-1)
                    for m in (loaded.model, one)
                )
            divergence += float((p.exp() * (p - q)).sum())
            agreements += int((p.argmax(-1) == q.argmax(-1)).sum())
            count += len(p)
    assert scores.kl.value == pytest.approx(divergence / count, rel=1e-4)
    assert scores.agreement.value == pytest.approx(agreements / count, abs=2 / count)
    assert scores.mean_experts.value == 1.0


def test_reported_experts_are_those_that_ran(loaded: LoadedModel) -> None:
    without_overlap = {"texts": (WHOLE,), "stride": CONTEXT}
    found = by_label(run(loaded, BH, parse_rule("top-k:2"), **without_overlap))
    assert found["bh:0.3,max_k=6"].expert_rows < 6
    for scores in found.values():
        assert scores.expert_rows == pytest.approx(scores.mean_experts.value, rel=1e-12)
        assert np.mean(scores.per_layer_experts) == pytest.approx(scores.mean_experts.value)
    # transformers' own computations run the slots of weight 0 too, and the count says so.
    loaded.model.set_experts_implementation("grouped_mm")
    scores = by_label(run(loaded, BH, **without_overlap))["bh:0.3,max_k=6"]
    assert scores.expert_rows == 6
    assert scores.mean_experts.value < 6


def test_limits_that_decide_are_counted(loaded: LoadedModel) -> None:
    always = by_label(run(loaded, RuleParameters(level=0.3, min_k=TOP_K, max_k=TOP_K)))
    (scores,) = [value for label, value in always.items() if label != "baseline"]
    wide = by_label(run(loaded, RuleParameters(level=0.3, max_k=EXPERTS)))
    (free,) = [value for label, value in wide.items() if label != "baseline"]
    assert scores.share_raised.value + scores.share_lowered.value > 0.3
    assert free.share_lowered.value == 0
    assert free.share_raised.value == free.share_empty.value < scores.share_raised.value
    assert free.std_experts > 0
    assert scores.std_experts == 0


def test_controls_use_as_many_experts_as_their_rule(loaded: LoadedModel) -> None:
    evaluation = run(loaded, BH, texts=(WHOLE,), stride=CONTEXT, with_controls=True)
    found = {c.control: s for c, s in zip(evaluation.contenders, evaluation.scores(), strict=True)
             if c.parameters}  # fmt: skip
    rule = found[None]
    pairs = int(evaluation.tokens.sum()) * LAYERS
    margin = 4 * 0.5 / math.sqrt(pairs)
    assert found[Control.FIXED].mean_experts.value == pytest.approx(
        rule.mean_experts.value, abs=margin
    )
    assert found[Control.FIXED].per_layer_experts == pytest.approx(
        [rule.mean_experts.value] * LAYERS, abs=margin * LAYERS
    )
    assert found[Control.FIXED_BY_LAYER].per_layer_experts == pytest.approx(
        list(rule.per_layer_experts), abs=margin * LAYERS
    )
    assert found[Control.FIXED].std_experts < 0.6
    # Counts of one layer are only dealt out anew; later layers see other hidden states.
    assert found[Control.SHUFFLED].per_layer_experts[0] == pytest.approx(rule.per_layer_experts[0])
    assert found[Control.SHUFFLED].std_experts == pytest.approx(rule.std_experts, rel=0.1)
    assert found[Control.SHUFFLED].kl.value != rule.kl.value


def test_fixed_top_k_gets_no_control_of_itself(loaded: LoadedModel) -> None:
    evaluation = run(loaded, parse_rule("top-k:2"), with_controls=True)
    assert [c.label for c in evaluation.contenders] == ["baseline", "top-k:2", "baseline (again)"]


def test_progress_rises_to_the_total(loaded: LoadedModel) -> None:
    definition = Evaluation(texts=(TEXT,), rules=(BH,), with_controls=True, stride=16)
    events = list(run_experiment(loaded, definition))
    progress = [event for event in events if isinstance(event, Progress)]
    done = [event.done for event in progress]
    assert done == sorted(done)
    assert progress[-1].done == progress[-1].total
    assert {event.total for event in progress} == {progress[-1].total}
    assert [event.is_complete for event in events if isinstance(event, Finished)] == [True]


def test_a_cancelled_evaluation_keeps_windows_that_all_have_read(loaded: LoadedModel) -> None:
    definition = Evaluation(texts=(TEXT,), rules=(BH,), stride=16, batch=1)
    cancel = CancelToken()
    for event in run_experiment(loaded, definition, {}, cancel):
        # In the fourth window, which the baseline has read by then.
        if isinstance(event, Progress) and event.done == 7:
            cancel.cancel()
    assert isinstance(event, Finished)
    assert not event.is_complete
    kept = event.document
    assert not kept.is_complete
    assert len(kept.tokens) == 3
    assert all(len(sums.nats) == 3 for sums in kept.sums)
    whole = run(loaded, BH, texts=(TEXT,), stride=16, batch=1)
    np.testing.assert_array_equal(kept.sums[1].nats, whole.sums[1].nats[:3])


@pytest.mark.parametrize("known", [0, 1, 4, 9, 14])
def test_going_on_gives_the_very_numbers_of_an_undisturbed_run(
    known: int, loaded: LoadedModel, undisturbed: tuple[dict[str, Any], Rows]
) -> None:
    whole, rows = undisturbed
    assert len(rows) > 14
    # Rows may have come in any order, from several workers.
    some = dict(list(reversed(rows.items()))[:known] if known % 2 else list(rows.items())[:known])
    assert result_of(loaded, GONE_ON, some).to_json() == whole


def test_going_on_leaves_the_rows_what_they_were(
    loaded: LoadedModel, undisturbed: tuple[dict[str, Any], Rows]
) -> None:
    _, rows = undisturbed
    result_of(loaded, GONE_ON, dict(list(rows.items())[:4]))
    assert rows_of(loaded, GONE_ON) == rows


def test_what_is_drawn_depends_on_the_window_and_not_on_how_windows_are_read(
    loaded: LoadedModel,
) -> None:
    options = {"texts": (WHOLE,), "stride": CONTEXT, "with_controls": True}
    one, three = (run(loaded, BH, **options, batch=batch) for batch in (1, 3))
    for left, right in zip(one.sums, three.sums, strict=True):
        np.testing.assert_array_equal(left.counts[:, 0, 0], right.counts[:, 0, 0])
        np.testing.assert_allclose(left.quality, right.quality, rtol=1e-4, atol=1e-5)


def test_rows_of_another_experiment_are_refused(loaded: LoadedModel) -> None:
    definition = Evaluation(texts=(TEXT,), rules=(BH,))
    for row in ({}, {"contenders": 3}, {"contenders": [{"quality": [[1, "a", 2]]}]}):
        with pytest.raises(ValueError, match="'rules 0' is none of this experiment"):
            list(run_experiment(loaded, definition, {"rules 0": row}))


def test_cancelling_at_once_leaves_nothing(loaded: LoadedModel) -> None:
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        list(run_experiment(loaded, Evaluation(texts=(TEXT,), rules=(BH,)), {}, cancel))
    assert not any(module._forward_pre_hooks for module in loaded.model.modules())


@pytest.mark.parametrize("name", ["window", "stride", "tokens", "batch"])
def test_sizes_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
        Evaluation(**{"texts": (TEXT,), "rules": (BH,), name: 0})  # type: ignore[arg-type]


def test_each_text_is_judged_by_its_first_window(loaded: LoadedModel) -> None:
    evaluation = run(loaded, BH, batch=2, stride=32, with_controls=True)
    expected = []
    for text in (TEXT, NOTE):
        ids = torch.tensor(loaded.tokenizer(text.content).input_ids)[:-1][:CONTEXT]
        with RouterCapture(loaded.model) as capture, torch.inference_mode():
            loaded.model(ids[None])
        logits = torch.stack([logits for logits, *_ in capture.outputs], dim=1).numpy()
        expected.append(drift_of(loaded.recording, logits))
    assert len(evaluation.drifts) == 2
    for drift, of_text in zip(evaluation.drifts, expected, strict=True):
        assert drift is not None
        assert of_text is not None
        assert drift.tokens == of_text.tokens
        np.testing.assert_allclose(drift.mean_places, of_text.mean_places, atol=1e-4)
        np.testing.assert_allclose(drift.tail_shares, of_text.tail_shares, atol=1e-3)
    said = [text["drift"] for text in evaluation.to_json()["texts"]]
    assert said == [drift and drift.to_json() for drift in evaluation.drifts]


def test_the_document_is_plain_json(loaded: LoadedModel) -> None:
    document = json.loads(json.dumps(run(loaded, BH).to_json(), allow_nan=False))
    assert document["schema_version"] == 2
    assert document["scored_tokens"] == sum(document["window_tokens"])
    assert [entry["label"] for entry in document["contenders"]] == ["baseline", "bh:0.3,max_k=6"]
    assert document["contenders"][1]["parameters"]["level"] == 0.3
    # The baseline has the most experts and no rule loses nothing here, so both are on the front.
    assert [entry["on_front"] for entry in document["contenders"]] == [True, True]
    assert [text["name"] for text in document["texts"]] == ["tale", "note"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ((), "no text"),
        ((Text("hollow", ""),), "hollow has fewer than two tokens"),
        ((TEXT, Text("short", "a")), "short has fewer than two tokens"),
    ],
)
def test_texts_with_nothing_to_predict_are_refused(
    texts: tuple[Text, ...], message: str, loaded: LoadedModel
) -> None:
    with pytest.raises(EngineError, match=message):
        result_of(loaded, Evaluation(texts=texts, rules=(BH,)))


def test_rules_that_do_not_fit_are_refused_before_anything_is_read(loaded: LoadedModel) -> None:
    read = []
    loaded.model.register_forward_pre_hook(lambda *_: read.append(1))
    for rule, message in (
        (RuleParameters(max_k=EXPERTS + 1), "max_k must not exceed the 16 experts"),
        (RuleParameters(level=(0.1,) * 5), "5 values for the 3 layers"),
    ):
        with pytest.raises(ValueError, match=message):
            result_of(loaded, Evaluation(texts=(TEXT,), rules=(rule,)))
    assert not read


def test_a_model_that_gives_nan_is_named(loaded: LoadedModel) -> None:
    loaded.model.lm_head.register_forward_hook(lambda _module, _inputs, logits: logits * torch.nan)
    with pytest.raises(EngineError, match="not finite"):
        run(loaded, BH)


def test_a_divergence_that_is_no_number_is_named(loaded: LoadedModel) -> None:
    def without_the_first(_module: Any, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.full_like(logits[..., :1], -torch.inf), logits[..., 1:]], -1)

    loaded.model.lm_head.register_forward_hook(without_the_first)
    with pytest.raises(EngineError, match="not finite"):
        run(loaded, BH)


def test_the_null_of_another_model_is_refused(
    loaded: LoadedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    other = make_recording(tiny_model(seed=3), tokenizer, calibration_text()[:2000])
    with pytest.raises(ValueError, match="another model"):
        run(dataclasses.replace(loaded, recording=other), BH)


def test_temperatures_divide_the_logits(loaded: LoadedModel) -> None:
    definition = Evaluation(texts=(TEXT, NOTE), rules=(BH,), stride=CONTEXT, with_temperatures=True)
    evaluation = result_of(loaded, definition)
    expected = np.zeros(len(TEMPERATURES))
    for text in (TEXT, NOTE):
        ids = torch.tensor(loaded.tokenizer(text.content).input_ids)
        for _, start, end, first in windows([len(ids)], CONTEXT, CONTEXT):
            with torch.inference_mode():
                logits = loaded.model(ids[None, start:end]).logits[0, first - start :]
            expected += [
                float(
                    torch.nn.functional.cross_entropy(
                        logits / temperature, ids[first + 1 : end + 1], reduction="sum"
                    )
                )
                for temperature in TEMPERATURES
            ]
    baseline = evaluation.sums[0]
    np.testing.assert_allclose(baseline.scaled.sum(0), expected, rtol=1e-5)
    at_one = int(np.abs(TEMPERATURES - 1).argmin())
    np.testing.assert_allclose(baseline.scaled[:, at_one], baseline.nats, rtol=1e-5)
    own, of_rule = evaluation.scores()
    assert own.scaled_increase == (0, 0, 0)
    assert of_rule.temperature > 0

    # The rows say all of it.
    rows = rows_of(loaded, definition)
    listed = [{"key": key, **row} for key, row in rows.items()]
    again = EvaluationResult.from_json({**evaluation.to_json(), "rows": listed})
    assert again.scores() == evaluation.scores()


@pytest.mark.parametrize("damage", ["lost", "huge", "negative", "short"])
def test_temperatures_that_cannot_be_are_refused(loaded: LoadedModel, damage: str) -> None:
    definition = Evaluation(texts=(NOTE,), rules=(BH,), stride=32, with_temperatures=True, batch=1)
    evaluation = result_of(loaded, definition)
    listed = [{"key": key, **row} for key, row in rows_of(loaded, definition).items()]
    of_rule = listed[1]["contenders"][1]
    if damage == "lost":
        del of_rule["scaled"]
    else:
        values = of_rule["scaled"][0]
        of_rule["scaled"][0] = {
            "huge": [1e300, *values[1:]], "negative": [-1.0, *values[1:]], "short": values[1:],
        }[damage]  # fmt: skip
    with pytest.raises(ValueError):  # noqa: PT011 - a row that is short numpy refuses in its words
        EvaluationResult.from_json({**evaluation.to_json(), "rows": listed})
