"""What is drawn of a rule leads to the very counts, experts and weights that it selects."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from bh_studio.engine.records.decisions.token_inspection import (
    Counting,
    Criterion,
    InspectedLayer,
)
from bh_studio.engine.routing.inspection import inspect_layers
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.selection import RoutingRule, own_routing
from bh_studio.engine.rules.parameters import (
    MixingWeights,
    NullName,
    RouterShape,
    RuleName,
    RuleParameters,
    ScoreName,
)
from bh_studio.engine.rules.text import format_rule, parse_rule
from tests.tiny_olmoe import EXPERTS, LAYERS, TOP_K

SHAPE = RouterShape(LAYERS, EXPERTS, TOP_K, norm_topk_prob=False)
REAL_LOGITS = Path(__file__).parents[2] / "data" / "olmoe_router_logits_160.npz"
# Two a rule: few experts, and many.
LEVELS: dict[RuleName, tuple[float, ...]] = {
    RuleName.BH: (0.02, 0.3),
    RuleName.BY: (0.05, 0.6),
    RuleName.STOREY: (0.02, 0.3),
    RuleName.HIGHER_CRITICISM: (0.2, 1.0),
    RuleName.TOP_K: (2, 9),
    RuleName.TOP_P: (0.3, 1.0),
    RuleName.MIN_P: (0.5, 0.05),
    RuleName.CUT: (0.2, 0.02),
    RuleName.ENTROPY: (0.6, 0.9),
}


def allowed() -> list[RuleParameters]:
    """Every rule with every score and null that goes with it, and every kind of weights."""
    found: list[RuleParameters] = []
    for rule, levels in LEVELS.items():
        for score in ScoreName:
            for null in NullName:
                for number, level in enumerate(levels):
                    weights = list(MixingWeights)[(len(found) + number) % 3]
                    try:
                        found.append(
                            RuleParameters(
                                rule, level, min_k=2, max_k=10, weights=weights, score=score,
                                null=null, temperature=(1.0, 1.7)[number],
                            )
                        )  # fmt: skip
                    except ValueError:
                        continue
    return found


RULES = allowed()


@pytest.fixture(scope="module")
def recording(recording: Recording) -> Recording:
    """The tiny model's own logits, and factors that change the order of its experts."""
    generator = torch.Generator().manual_seed(0)
    factors = 1 + torch.rand(LAYERS, EXPERTS, generator=generator) / 3
    scores = [score for score in ScoreName if score.has_factor]
    return dataclasses.replace(recording, factors=dict.fromkeys(scores, factors))


def random_logits(positions: int, seed: int = 0) -> torch.Tensor:
    """(position, layer, expert), every other position with ties, as bfloat16 makes them."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(positions, LAYERS, EXPERTS, generator=generator)
    logits[::2] = (logits[::2] * 2).round() / 2
    return logits


def read_off(criterion: Criterion, parameters: RuleParameters) -> int:
    """The count that a person reads off the drawing, who knows no rule but how to count."""
    points, line = criterion.points, criterion.line
    match criterion.counting:
        case Counting.LAST_AT_OR_BELOW:
            return max((int(n) + 1 for n in np.flatnonzero(points <= line)), default=0)
        case Counting.FIRST_AT_OR_ABOVE:
            reached = np.flatnonzero(points >= line)
            return int(reached[0]) + 1 if len(reached) else len(points)
        case Counting.ALL_AT_OR_ABOVE:
            return int((points >= line).sum())
        case Counting.HIGHEST:
            if np.isnan(points).all():
                return 0
            highest = int(np.nanargmax(points))
            return highest + 1 if points[highest] > line[highest] else 0
        case Counting.LIMIT:
            return int(line[0])
        case Counting.TWO_COUNTS:
            return parameters.min_k if points[0] < line[0] else parameters.max_k


def check(rule: RoutingRule, layer: int, found: InspectedLayer, row: torch.Tensor) -> None:
    """Compare with what the rule selects, and what is drawn with what is counted."""
    selection = rule.select(layer, row[None])
    count = int(selection.counts)
    assert (found.count, found.raw_count) == (count, int(selection.raw_counts))
    assert found.selected.tolist() == selection.indices[0, :count].tolist()
    assert found.weights is not None
    np.testing.assert_array_equal(found.weights, selection.weights[0, :count].numpy())
    assert read_off(found.criterion, rule.parameters) == found.raw_count
    assert sorted(found.experts.tolist()) == list(range(len(row)))
    probabilities = row.softmax(-1, torch.float32)
    np.testing.assert_array_equal(found.probabilities, probabilities[found.experts].numpy())
    assert found.probabilities.dtype == found.scores.dtype == np.float32


@pytest.mark.parametrize("parameters", RULES, ids=format_rule)
def test_what_is_drawn_is_what_is_selected(
    parameters: RuleParameters, recording: Recording
) -> None:
    rule = RoutingRule(parameters, recording, SHAPE)
    for logits in (*random_logits(12), *recording.logits[:, :12].transpose(0, 1)):
        layers = inspect_layers(rule, logits.numpy())
        for layer, (found, row) in enumerate(zip(layers, logits, strict=True)):
            check(rule, layer, found, row)
            assert (found.p_values is not None) is parameters.is_test
            if found.p_values is not None:
                assert (np.diff(found.p_values) >= 0).all()
            else:
                assert (found.scores[1:] <= found.scores[:-1]).all()


def test_every_rule_is_there() -> None:
    assert {parameters.rule for parameters in RULES} == set(RuleName)
    assert {parameters.null for parameters in RULES} == set(NullName)
    assert {parameters.score for parameters in RULES} == set(ScoreName)


def test_real_router_logits_are_drawn_as_they_are_selected() -> None:
    with np.load(REAL_LOGITS) as file:
        logits = torch.from_numpy(file["logits"].astype(np.float32))
    shape = RouterShape(16, 64, 8, norm_topk_prob=False)
    for text in ("top-p:0.3", "min-p:0.2", "cut:0.03", "entropy:0.8", "top-k:5"):
        rule = RoutingRule(parse_rule(text), None, shape)
        for token in range(logits.shape[1]):
            layers = inspect_layers(rule, logits[:, token].numpy())
            for layer, found in enumerate(layers):
                check(rule, layer, found, logits[layer, token])


@pytest.mark.parametrize("normalizes", [False, True])
def test_the_models_own_routing_is_its_top_k(normalizes: bool) -> None:
    shape = dataclasses.replace(SHAPE, norm_topk_prob=normalizes)
    logits = random_logits(8)
    for position in logits:
        for found, row in zip(
            inspect_layers(own_routing(shape), position.numpy()), position, strict=True
        ):
            top = row.softmax(-1, torch.float32).topk(TOP_K)
            weights = top.values / top.values.sum() if normalizes else top.values
            assert (found.count, found.raw_count) == (TOP_K, TOP_K)
            assert found.selected.tolist() == top.indices.tolist()
            assert found.weights is not None
            np.testing.assert_array_equal(found.weights, weights.numpy())
            assert found.criterion.counting is Counting.LIMIT
            assert found.criterion.line.tolist() == [TOP_K]


def test_weights_are_left_out_where_they_are_not_known() -> None:
    layers = inspect_layers(own_routing(SHAPE), random_logits(1)[0].numpy(), has_weights=False)
    assert [layer.weights for layer in layers] == [None] * LAYERS


def test_logits_of_memory_that_cannot_be_written_are_not_changed() -> None:
    logits = random_logits(1)[0].numpy()
    logits.flags.writeable = False
    before = logits.copy()
    inspect_layers(own_routing(SHAPE), logits)
    np.testing.assert_array_equal(logits, before)


def test_a_damaged_position_is_refused() -> None:
    logits = random_logits(1)[0].numpy()
    logits[1, 3] = np.nan
    with pytest.raises(ValueError, match="not finite in float32, the first in layer 1"):
        inspect_layers(own_routing(SHAPE), logits)
