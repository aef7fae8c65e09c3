"""Levels for a mean number of experts on a tiny model: hit, by layer, checked, refused, stopped."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from bh_studio.engine.calibration.recorder import calibration_text
from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.experiments.budget.budget import find_budget, planned_passes
from bh_studio.engine.experiments.budget.layer_curves import measure_curves
from bh_studio.engine.experiments.budget.level_fit import POINTS, LevelFit
from bh_studio.engine.experiments.evaluation.evaluation import evaluate
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.protocol.events import FitProgress
from bh_studio.engine.protocol.experiments import BudgetRequest, EvaluationRequest
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.budget import ACCEPTED, TOLERANCE, Budget
from bh_studio.engine.records.evaluation import Control, Scores
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import format_rule, parse_rule
from tests.tiny_olmoe import CONTEXT, LAYERS, TOP_K, save_tiny_checkpoint

FIT = Text("fit", calibration_text()[: 6 * CONTEXT + 1])
OTHER = Text("other", calibration_text()[4000 : 4000 + 4 * CONTEXT])
BH = RuleParameters(max_k=6)
# Few scores in a tiny null: it says so at strict levels, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:The null holds")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(str(save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-olmoe"))))


@pytest.fixture
def loaded(tiny: LoadedModel) -> Iterator[LoadedModel]:
    """A copy of the model, which must come back as it was."""
    fresh = dataclasses.replace(tiny, model=copy.deepcopy(tiny.model))
    yield fresh
    for module in fresh.model.modules():
        assert "forward" not in vars(module)
        assert not module._forward_pre_hooks


def find(loaded: LoadedModel, target: float, rule: RuleParameters = BH, **more: Any) -> Budget:
    return find_budget(loaded, BudgetRequest(target, rule, (FIT,), **more))


def evaluated(loaded: LoadedModel, text: Text, rule: RuleParameters) -> Scores:
    """`rule` on `text` in whole windows, as a fit reads it."""
    *_, last = evaluate(loaded, EvaluationRequest((text,), (rule,), stride=CONTEXT))
    return last.evaluation.scores()[1]


@pytest.fixture(scope="module")
def whole(tiny: LoadedModel) -> Budget:
    """Everything at once: both solutions and their check."""
    return find(tiny, 3.0, by_layer=True, check=(OTHER,))


@pytest.mark.parametrize(
    "rule", ["bh", "by:0.1", "storey:0.1", "top-p:0.5", "min-p:0.2", "cut:0.1", "bh,null=pooled"]
)
def test_one_level_hits_the_target(rule: str, loaded: LoadedModel) -> None:
    solution = find(loaded, 3.0, parse_rule(rule)).one_level
    assert solution.mean == pytest.approx(3.0, rel=TOLERANCE)
    assert not solution.is_nearest_only
    found = parse_rule(format_rule(solution.parameters))
    scores = evaluated(loaded, FIT, found)
    assert scores.mean_experts.value == pytest.approx(solution.mean, rel=1e-9)
    assert scores.per_layer_experts == pytest.approx(solution.per_layer)


def test_every_token_is_read_once(loaded: LoadedModel) -> None:
    uneven = Text("uneven", FIT.content[: 2 * CONTEXT + 50])
    assert LevelFit(loaded, [uneven, Text("note", "abc")], BH, 3.0).tokens == 2 * CONTEXT + 49 + 2


def test_more_experts_take_a_looser_level(loaded: LoadedModel) -> None:
    targets = (2.2, 3.0, 4.5, 5.8)
    levels = [find(loaded, target).one_level.parameters.level for target in targets]
    assert levels == sorted(levels)
    assert len(set(levels)) == len(targets)


def test_levels_by_layer_hit_the_target_where_the_layers_lose_little(
    whole: Budget, loaded: LoadedModel
) -> None:
    _, solution = whole.solutions
    assert solution.mean == pytest.approx(3.0, rel=ACCEPTED)
    assert isinstance(solution.parameters.level, tuple)
    scores = evaluated(loaded, FIT, parse_rule(format_rule(solution.parameters)))
    assert scores.per_layer_experts == pytest.approx(solution.per_layer)
    one_level = evaluated(loaded, FIT, whole.one_level.parameters)
    assert scores.kl.value < 1.02 * one_level.kl.value
    # What the layers lose alone adds up about, and moves their means only a little.
    allocation = solution.allocation
    assert allocation is not None
    assert allocation.means.mean() == pytest.approx(3.0)
    assert solution.per_layer == pytest.approx(allocation.means, rel=0.1)
    assert allocation.predicted_kl == pytest.approx(scores.kl.value, rel=0.3)


def test_a_curve_is_the_rule_in_one_layer_and_the_model_elsewhere(loaded: LoadedModel) -> None:
    ids = torch.tensor(loaded.tokenizer(FIT.content).input_ids)
    inputs = list(ids[:-1].split(CONTEXT))
    grid = [parse_rule("top-k:2/1/3"), BH]
    curves = measure_curves(loaded, inputs, grid, lambda: None)
    assert curves.shape == (LAYERS, 2, 2)
    for layer, k in enumerate((2, 1, 3)):
        alone = [TOP_K] * LAYERS
        alone[layer] = k
        scores = evaluated(loaded, FIT, parse_rule("top-k:" + "/".join(map(str, alone))))
        assert curves[layer, 0, 0] == k == scores.per_layer_experts[layer]
        assert curves[layer, 0, 1] == pytest.approx(scores.kl.value, rel=1e-4)
    # Up to the first layer that a rule changes, its counts are those of the rule everywhere.
    assert curves[0, 1, 0] == pytest.approx(evaluated(loaded, FIT, BH).per_layer_experts[0])


def test_curves_fall_as_their_levels_are_loosened(whole: Budget) -> None:
    allocation = whole.solutions[1].allocation
    assert allocation is not None
    means, losses = np.moveaxis(allocation.curves, -1, 0)
    assert (np.diff(allocation.levels, axis=1) > 0).all()
    assert (np.diff(means, axis=1) >= 0).all()
    assert (losses[:, 0] > losses[:, -1]).all()
    assert means.min() < 2
    assert means.max() > 0.9 * TOP_K


def test_the_plan_is_about_what_it_takes(whole: Budget) -> None:
    taken = sum(solution.passes for solution in whole.solutions)
    assert taken == pytest.approx(planned_passes(LAYERS, by_layer=True), abs=8)


def test_the_same_request_gives_the_same_result(loaded: LoadedModel) -> None:
    first, second = (
        find(loaded, 3.0, by_layer=True, check=(OTHER,), tokens=300).to_json() for _ in range(2)
    )
    assert first == second
    assert first["fit"]["tokens"] < len(FIT.content) / 2


def test_the_check_reads_other_texts_with_controls(whole: Budget) -> None:
    assert whole.check is not None
    assert whole.check.texts[0][0] == "other"
    controls = [c.control for c in whole.check.contenders if c.parameters is not None]
    assert controls.count(None) == controls.count(Control.FIXED) == 2
    found = [whole.checked(solution) for solution in whole.solutions]
    assert all(found)
    one_level, by_layer = (scores for scores in found if scores)
    assert whole.missed(whole.one_level) == pytest.approx(one_level.mean_experts.value / 3 - 1)
    gain = whole.gain()
    assert gain is not None
    assert gain.value == pytest.approx(by_layer.nats.value - one_level.nats.value)
    assert gain.low < gain.high


def test_the_document_is_plain_json(whole: Budget) -> None:
    document = json.loads(json.dumps(whole.to_json(), allow_nan=False))
    assert document["kind"] == "budget"
    assert parse_rule(document["by_layer"]["rule"]) == whole.solutions[1].parameters
    curves = document["by_layer"]["allocation"]["curves"]
    assert [len(curve) for curve in curves] == [POINTS] * LAYERS
    check = document["check"]["one_level"]
    assert check["is_missed"] is (abs(check["mean_experts"]["value"] / 3 - 1) > ACCEPTED)


def test_without_a_check_and_layers_there_is_neither(loaded: LoadedModel) -> None:
    budget = find(loaded, 2.5)
    assert budget.gain() is None
    assert budget.checked(budget.one_level) is None
    assert budget.missed(budget.one_level) is None
    document = budget.to_json()
    assert document["check"] is document["by_layer"] is None


def test_empty_selections_that_fall_back_set_a_floor(loaded: LoadedModel) -> None:
    rule = parse_rule("bh,on_empty=top_k,max_k=6")
    with pytest.raises(
        EngineError, match="cannot be reached: on this text the rule uses"
    ) as refusal:
        find(loaded, 1.5, rule)
    floor = float(str(refusal.value).split("uses ")[1].split(" to ")[0])
    assert 1.5 < floor < 6
    assert find(loaded, floor + 1, rule).one_level.mean == pytest.approx(floor + 1, rel=ACCEPTED)


@pytest.mark.parametrize(
    ("target", "rule", "sentence"),
    [
        (0.5, "bh", "must lie between 1 and the 16 experts"),
        (float("nan"), "bh", "must lie between 1 and the 16 experts"),
        (17.0, "bh", "must lie between 1 and the 16 experts"),
        (7.0, "bh,max_k=6", "min_k and max_k allow 1 to 6"),
        (1.5, "bh,min_k=2", "min_k and max_k allow 2 to 8"),
        # The smallest p-value: below it, no token selects anything.
        (1.15, "bh", r"jumps from 1\.0\d+ to 1\.[23]\d+"),
    ],
)
def test_targets_out_of_reach_are_refused(
    target: float, rule: str, sentence: str, loaded: LoadedModel
) -> None:
    with pytest.raises(EngineError, match=sentence):
        find(loaded, target, parse_rule(rule))


@pytest.mark.parametrize("rule", ["bh,max_k=3", "bh,min_k=5"])
def test_levels_by_layer_need_the_models_own_count(rule: str, loaded: LoadedModel) -> None:
    fit = LevelFit(loaded, [FIT], parse_rule(rule), 3.0 if "max" in rule else 5.5)
    with pytest.raises(EngineError, match="around the 4 experts"):
        fit.by_layer()


def test_bad_requests_are_refused_before_anything_is_read(loaded: LoadedModel) -> None:
    read: list[int] = []
    hook = loaded.model.register_forward_pre_hook(lambda *_: read.append(1))
    for request, kind, sentence in (
        (BudgetRequest(3.0, BH, ()), EngineError, "no text"),
        (BudgetRequest(3.0, BH, (Text("short", "a"),)), EngineError, "fewer than two tokens"),
        (BudgetRequest(3.0, BH, (FIT,), (FIT,)), EngineError, "one of those that the level"),
        (BudgetRequest(3.0, parse_rule("top-k:3"), (FIT,)), ValueError, "No level between 0 and 1"),
        (BudgetRequest(3.0, RuleParameters(max_k=17), (FIT,)), ValueError, "the 16 experts"),
    ):
        with pytest.raises(kind, match=sentence):
            find_budget(loaded, request)
    hook.remove()
    assert not read


@pytest.mark.parametrize("stage", ["one level", "curves", "levels together", "check"])
def test_it_stops_in_every_stage(stage: str, loaded: LoadedModel) -> None:
    cancel = CancelToken()
    seen: list[str] = []

    def report(progress: FitProgress) -> None:
        assert 0 <= progress.done <= progress.total
        seen.append(progress.stage)
        if progress.stage == stage:
            cancel.cancel()

    request = BudgetRequest(2.5, BH, (FIT,), (OTHER,), by_layer=True, tokens=400, cancel=cancel)
    with pytest.raises(Cancelled):
        find_budget(loaded, request, report)
    assert seen[-1] == stage


def test_a_model_that_gives_nan_is_named(loaded: LoadedModel) -> None:
    hook = loaded.model.lm_head.register_forward_hook(lambda _module, _inputs, out: out * torch.nan)
    with pytest.raises(EngineError, match="not finite"):
        LevelFit(loaded, [FIT], BH, 3.0).by_layer()
    hook.remove()
