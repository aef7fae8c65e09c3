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
from bh_studio.engine.experiments.budget.budget import planned_passes
from bh_studio.engine.experiments.budget.layer_curves import curves_in
from bh_studio.engine.experiments.budget.level_fit import POINTS, LevelFit
from bh_studio.engine.experiments.runner import run
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.protocol.events import Progress
from bh_studio.engine.protocol.experiments import Budget, Evaluation
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.budget import ACCEPTED, TOLERANCE, BudgetResult
from bh_studio.engine.records.evaluation import Control, Scores
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.engine.rules.text import format_rule, parse_rule
from bh_studio.engine.steps import result_of_steps
from tests.engine.experiments.running import result_of, rows_of
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


def wanted(target: float = 3.0, rule: RuleParameters = BH, **more: Any) -> Budget:
    return Budget(**{"target": target, "rule": rule, "fit": (FIT,), **more})


def find(
    loaded: LoadedModel, target: float, rule: RuleParameters = BH, **more: Any
) -> BudgetResult:
    budget: BudgetResult = result_of(loaded, wanted(target, rule, **more))
    return budget


def evaluated(loaded: LoadedModel, text: Text, rule: RuleParameters) -> Scores:
    """`rule` on `text` in whole windows, as a fit reads it."""
    result = result_of(loaded, Evaluation(texts=(text,), rules=(rule,), stride=CONTEXT))
    scores: Scores = result.scores()[1]
    return scores


def curve_of(loaded: LoadedModel, ids: torch.Tensor, grid: list[RuleParameters]) -> np.ndarray:
    """Sums over one window, (layer, rule, 2)."""
    return result_of_steps(curves_in(loaded, ids, grid, CancelToken()))


@pytest.fixture(scope="module")
def whole(tiny: LoadedModel) -> BudgetResult:
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
    fit = LevelFit(loaded, wanted(fit=(uneven, Text("note", "abc"))))
    assert fit.tokens == 2 * CONTEXT + 49 + 2


def test_more_experts_take_a_looser_level(loaded: LoadedModel) -> None:
    targets = (2.2, 3.0, 4.5, 5.8)
    levels = [find(loaded, target).one_level.parameters.level for target in targets]
    assert levels == sorted(levels)
    assert len(set(levels)) == len(targets)


def test_levels_by_layer_hit_the_target_where_the_layers_lose_little(
    whole: BudgetResult, loaded: LoadedModel
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
    curves = np.stack([curve_of(loaded, window, grid) for window in inputs]).sum(0)
    curves /= len(ids) - 1
    assert curves.shape == (LAYERS, 2, 2)
    for layer, k in enumerate((2, 1, 3)):
        alone = [TOP_K] * LAYERS
        alone[layer] = k
        scores = evaluated(loaded, FIT, parse_rule("top-k:" + "/".join(map(str, alone))))
        assert curves[layer, 0, 0] == k == scores.per_layer_experts[layer]
        assert curves[layer, 0, 1] == pytest.approx(scores.kl.value, rel=1e-4)
    # Up to the first layer that a rule changes, its counts are those of the rule everywhere.
    assert curves[0, 1, 0] == pytest.approx(evaluated(loaded, FIT, BH).per_layer_experts[0])


def test_curves_fall_as_their_levels_are_loosened(whole: BudgetResult) -> None:
    allocation = whole.solutions[1].allocation
    assert allocation is not None
    means, losses = np.moveaxis(allocation.curves, -1, 0)
    assert (np.diff(allocation.levels, axis=1) > 0).all()
    assert (np.diff(means, axis=1) >= 0).all()
    assert (losses[:, 0] > losses[:, -1]).all()
    assert means.min() < 2
    assert means.max() > 0.9 * TOP_K


def test_the_plan_is_about_what_it_takes(whole: BudgetResult) -> None:
    taken = sum(solution.passes for solution in whole.solutions)
    assert taken == pytest.approx(planned_passes(LAYERS, by_layer=True), abs=8)


@pytest.mark.parametrize("known", [1, 4, 9, 13, 17])
def test_going_on_gives_the_very_numbers_of_an_undisturbed_run(
    known: int, whole: BudgetResult, loaded: LoadedModel
) -> None:
    definition = wanted(by_layer=True, check=(OTHER,))
    rows = rows_of(loaded, definition, known)
    assert len(rows) == known
    assert result_of(loaded, definition, rows).to_json() == whole.to_json()


def test_the_same_request_gives_the_same_result(loaded: LoadedModel) -> None:
    first, second = (
        find(loaded, 3.0, by_layer=True, check=(OTHER,), tokens=300).to_json() for _ in range(2)
    )
    assert first == second
    assert first["fit"]["tokens"] < len(FIT.content) / 2


def test_the_check_reads_other_texts_with_controls(whole: BudgetResult) -> None:
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


def test_the_document_is_plain_json(whole: BudgetResult) -> None:
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


@pytest.mark.parametrize("target", [0.5, float("nan"), float("inf")])
def test_targets_that_no_model_can_reach_are_no_definition(target: float) -> None:
    with pytest.raises(ValueError, match="a number of experts from 1"):
        wanted(target, parse_rule("bh"))


@pytest.mark.parametrize("rule", ["bh,max_k=3", "bh,min_k=5"])
def test_levels_by_layer_need_the_models_own_count(rule: str, loaded: LoadedModel) -> None:
    target = 2.5 if "max" in rule else 5.5
    with pytest.raises(EngineError, match="around the 4 experts"):
        LevelFit(loaded, wanted(target, parse_rule(rule), by_layer=True))


def test_bad_definitions_are_refused_before_anything_is_read(loaded: LoadedModel) -> None:
    read: list[int] = []
    hook = loaded.model.register_forward_pre_hook(lambda *_: read.append(1))
    for options, kind, sentence in (
        ({"fit": ()}, EngineError, "no text"),
        ({"fit": (Text("short", "a"),)}, EngineError, "fewer than two tokens"),
        ({"check": (FIT,)}, EngineError, "one of those that the level"),
        ({"rule": parse_rule("top-k:3")}, ValueError, "No level between 0 and 1"),
        ({"rule": RuleParameters(max_k=17)}, ValueError, "the 16 experts"),
        ({"tokens": 0}, ValueError, "tokens must be at least 1"),
    ):
        with pytest.raises(kind, match=sentence):
            result_of(loaded, wanted(**options))
    hook.remove()
    assert not read


@pytest.mark.parametrize(
    "stage", ["one level", "curves", "levels together", "check rules", "check controls"]
)
def test_it_stops_in_every_stage(stage: str, loaded: LoadedModel) -> None:
    cancel = CancelToken()
    seen: list[str] = []
    definition = wanted(2.5, check=(OTHER,), by_layer=True, tokens=400)
    events = run(loaded, definition, {}, cancel)

    def listen() -> None:
        for event in events:
            if isinstance(event, Progress):
                assert 0 <= event.done <= event.total
                seen.append(event.stage)
                if event.stage == stage:
                    cancel.cancel()

    with pytest.raises(Cancelled):
        listen()
    assert seen[-1] == stage


def test_a_model_that_gives_nan_is_named(loaded: LoadedModel) -> None:
    hook = loaded.model.lm_head.register_forward_hook(lambda _module, _inputs, out: out * torch.nan)
    with pytest.raises(EngineError, match="not finite"):
        find(loaded, 3.0, by_layer=True)
    hook.remove()
