"""The kernels that select experts against RoutingRule on the CPU, which they stand in for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from bh_studio.engine.experiments.evaluation.controls import ShuffledCounts
from bh_studio.engine.records.recording import RecordingOrigin
from bh_studio.engine.routing.recordings import Recording
from bh_studio.engine.routing.selection import RoutingRule, Selection, SelectionTables, own_tables
from bh_studio.engine.rules.parameters import Mode, RouterShape, ScoreName
from bh_studio.engine.rules.text import parse_rule

pytest.importorskip("triton")

from bh_studio.engine.kernels import decoder_kernels, selection_kernels
from bh_studio.engine.routing import selection_cuda
from tests.engine.interpreted_kernels import DEVICE, kernels_run

# No power of two, so that kernels have to leave some of their places out.
LAYERS, EXPERTS, TOP_K = 3, 12, 4
SHAPE = RouterShape(LAYERS, EXPERTS, TOP_K, norm_topk_prob=False)
NORMALIZED = dataclasses.replace(SHAPE, norm_topk_prob=True)
STEP_UP = [
    "bh:0.2,max_k=9", "bh:0.2,max_k=9,min_k=3", "bh:0.2,max_k=3", "bh:0.01/0.2/0.6,max_k=12",
    "bh:0.02,max_k=9,on_empty=top_k", "bh:0.2,temperature=2", "bh:0.2,score=logit,temperature=0.5",
    "bh:0.2,null=pooled,weights=renormalize", "bh:0.2,null=all,weights=match,max_k=9",
    "by:0.5,max_k=12", "storey:0.2,max_k=9",
]  # fmt: skip
# What the kernels are told the raw counts of.
COUNTED = [
    "hc:0.5", "top-k:5", "top-k:3/5/12,max_k=9", "top-p:0.7,weights=match", "min-p:0.2", "cut:0.06",
    "cut:0.1,temperature=2,on_empty=top_k", "entropy:0.75", "bh:0.2,null=gaussian",
    "bh:0.2,null=robust,weights=renormalize", "bh:0.2,null=softmax",
]  # fmt: skip
# In analyze mode the tables hold the model's own experts, whatever the rule would take.
ANALYZED = ["bh:0.2,null=per-expert", "bh:0.2,score=output", "cut:0.06,score=output"]
# Few scores in a small null: it says so at strict levels, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:The null holds")


@pytest.fixture(scope="module", autouse=True)
def _kernels_run() -> Iterator[None]:
    with kernels_run():
        yield


@pytest.fixture(scope="module")
def recording() -> Recording:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(LAYERS, 300, EXPERTS, generator=generator)
    factors = 1 + torch.rand(LAYERS, EXPERTS, generator=generator)
    return Recording(
        logits, RecordingOrigin("", "", 300, 0, 300, TOP_K), {ScoreName.OUTPUT: factors}
    )


def drawn_logits(rows: int = 6) -> Tensor:
    """Router logits from nearly even to very uneven, (row, expert).

    Not those of the null: a score equal to one of the null's lies within the last bit of a
    threshold, where two ways of rounding a softmax may come to different counts.
    """
    logits = torch.randn(rows, EXPERTS, generator=torch.Generator().manual_seed(1))
    return logits * torch.linspace(0.2, 3, rows)[:, None]


class Selector:
    """Selects experts by the kernels alone, from tables."""

    def __init__(self, tables: SelectionTables) -> None:
        self._tables = [table.to(DEVICE) for table in tables]
        self.indices = torch.zeros(EXPERTS, dtype=torch.int32, device=DEVICE)
        self.weights = torch.full((EXPERTS,), torch.nan, device=DEVICE)
        self.used = torch.zeros(1, dtype=torch.int32, device=DEVICE)
        self.raw_counts = torch.full((LAYERS,), -1, dtype=torch.int32, device=DEVICE)

    def select(self, layer: int, row: Tensor, raw: int | None = None) -> Selection:
        """Of one token, with its logits, (expert,), and their raw count if that is known."""
        logits = self._routed(layer, row, known=raw is not None)
        if raw is not None:
            _, used_of_raw, settings = self._tables
            self.raw_counts[layer] = raw
            selection_kernels.select_counted[(1,)](
                logits, used_of_raw[layer], settings, self.indices, self.weights, self.used,
                self.raw_counts[layer:], TOP_K=TOP_K, EXPERTS=EXPERTS, PADDED=16,
            )  # fmt: skip
        return Selection(
            self.indices.cpu().long(), self.weights.cpu(), self.used.cpu(),
            self.raw_counts[layer].cpu(),
        )  # fmt: skip

    def _routed(self, layer: int, row: Tensor, known: bool) -> Tensor:
        """Logits made by the kernel that selects from them too, unless counts are known.

        The norm of a state of ones is its weights, and the router lets them through.
        """
        ones = torch.ones(EXPERTS, dtype=row.dtype, device=DEVICE)
        logits = torch.empty_like(ones)
        decoder_kernels.route[(2,)](
            ones, row.to(DEVICE), torch.eye(EXPERTS, dtype=row.dtype, device=DEVICE),
            torch.empty_like(ones), logits, torch.zeros(1, dtype=torch.int32, device=DEVICE),
            *self._tables, layer, self.indices, self.weights, self.used, self.raw_counts,
            TOP_K=TOP_K, EPSILON=0.0, SIZE=EXPERTS, PADDED=16, EXPERTS=EXPERTS, PADDED_EXPERTS=16,
            BLOCK=8, SELECT=not known, DEPENDENT=False,
        )  # fmt: skip
        # A GPU may miss a last bit of the norm, of all logits alike.
        torch.testing.assert_close(logits.cpu(), row, rtol=1e-6, atol=0, equal_nan=True)
        return logits


def check(found: Selection, expected: Selection, tolerance: float = 1e-5) -> None:
    """expected: of one token, by a RoutingRule."""
    slots = expected.indices.shape[1]
    assert found.raw_counts == expected.raw_counts
    assert found.counts == expected.counts
    assert torch.equal(found.indices[:slots], expected.indices[0])
    assert found.indices.sort().values.tolist() == list(range(EXPERTS))
    weights = torch.zeros(EXPERTS)
    weights[:slots] = expected.weights[0]
    torch.testing.assert_close(found.weights, weights, rtol=tolerance, atol=0)


def in_order(selection: Selection, row: Tensor) -> Selection:
    """The same of one token, with the first of equal logits first: topk promises no order."""
    order = row.argsort(descending=True, stable=True)
    return selection._replace(indices=order[None, : selection.indices.shape[1]])


def tables_of(rule: RoutingRule) -> SelectionTables:
    tables = rule.tables()
    assert tables is not None
    return tables


def own_selection(shape: RouterShape, logits: Tensor, raw_counts: Tensor) -> Selection:
    """The model's own experts, and the raw counts of a rule that only looks on."""
    weights, indices = logits.softmax(-1, torch.float32).topk(shape.top_k)
    if shape.norm_topk_prob:
        weights = weights / weights.sum(-1, keepdim=True)
    return Selection(indices, weights, torch.full_like(raw_counts, shape.top_k), raw_counts)


@pytest.mark.parametrize("text", STEP_UP)
def test_step_up_rules_select_as_on_the_cpu(text: str, recording: Recording) -> None:
    rule = RoutingRule(parse_rule(text), recording, SHAPE)
    assert rule.is_step_up
    selector = Selector(tables_of(rule))
    counts = set()
    for number, row in enumerate(drawn_logits()):
        layer = number % LAYERS
        expected = rule.select(layer, row[None])
        check(selector.select(layer, row), expected)
        counts.add(int(expected.raw_counts))
    assert len(counts) > 1


@pytest.mark.parametrize("text", COUNTED)
def test_other_rules_select_by_their_own_counts(text: str, recording: Recording) -> None:
    rule = RoutingRule(parse_rule(text), recording, SHAPE)
    assert not rule.is_step_up
    assert rule.is_ordered_by_probability
    selector = Selector(tables_of(rule))
    for number, row in enumerate(drawn_logits()):
        layer = number % LAYERS
        raw = int(rule.counts(layer, row[None])[1])
        check(selector.select(layer, row, raw), rule.select(layer, row[None]))


@pytest.mark.parametrize("shape", [SHAPE, NORMALIZED], ids=["model", "normalized"])
@pytest.mark.parametrize("text", [STEP_UP[0], COUNTED[0], *ANALYZED])
def test_analysis_selects_the_models_own_experts(
    text: str, shape: RouterShape, recording: Recording
) -> None:
    parameters = dataclasses.replace(parse_rule(text), mode=Mode.ANALYZE)
    rule = RoutingRule(parameters, recording, shape)
    selector = Selector(tables_of(rule))
    for row in drawn_logits(3):
        raw = rule.counts(1, row[None])[1]
        known = None if rule.is_step_up else int(raw)
        check(selector.select(1, row, known), own_selection(shape, row[None], raw))


@pytest.mark.parametrize("shape", [SHAPE, NORMALIZED], ids=["model", "normalized"])
def test_without_a_rule_the_models_own_experts_are_selected(shape: RouterShape) -> None:
    selector = Selector(own_tables(shape))
    for row in drawn_logits(3):
        nothing = torch.zeros(1, dtype=torch.int64)
        check(selector.select(2, row), own_selection(shape, row[None], nothing))


def test_a_model_that_normalizes_keeps_doing_so(recording: Recording) -> None:
    rule = RoutingRule(parse_rule("bh:0.2,max_k=9"), recording, NORMALIZED)
    selector = Selector(tables_of(rule))
    for row in drawn_logits(3):
        check(selector.select(0, row), rule.select(0, row[None]))
        assert selector.weights.sum().item() == pytest.approx(1, abs=1e-6)


def test_weights_are_rounded_as_a_router_in_half_precision_rounds_them(
    recording: Recording,
) -> None:
    rule = RoutingRule(parse_rule("bh:0.2,max_k=9"), recording, SHAPE)
    selector = Selector(tables_of(rule))
    for row in drawn_logits().bfloat16():
        found = selector.select(0, row)
        # One step of bfloat16: Triton's interpreter cuts where a GPU rounds to the nearest.
        check(found, in_order(rule.select(0, row[None]), row), tolerance=2**-7)
        assert torch.equal(found.weights, found.weights.bfloat16().float())


def test_of_experts_with_equal_logits_the_first_comes_first(recording: Recording) -> None:
    rule = RoutingRule(parse_rule("bh:0.3,max_k=12"), recording, SHAPE)
    selector = Selector(tables_of(rule))
    for row in (*drawn_logits(4).mul(2).round(), torch.zeros(EXPERTS)):
        assert len(row.unique()) < EXPERTS
        check(selector.select(0, row), in_order(rule.select(0, row[None]), row))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_no_numbers_are_no_discoveries(recording: Recording) -> None:
    rule = RoutingRule(parse_rule("bh:0.6,max_k=12"), recording, SHAPE)
    selector = Selector(tables_of(rule))
    assert selector.select(0, drawn_logits()[0]).raw_counts > 0
    found = selector.select(0, torch.full((EXPERTS,), torch.nan))
    assert int(found.raw_counts) == 0
    assert int(found.counts) == 1
    assert ((found.indices >= 0) & (found.indices < EXPERTS)).all()


def test_tables_say_when_they_cannot_stand_in_for_a_rule(recording: Recording) -> None:
    for text in ANALYZED:
        assert RoutingRule(parse_rule(text), recording, SHAPE).tables() is None
    # A subclass that makes counts of its own asks no thresholds.
    shuffled = ShuffledCounts(parse_rule("bh:0.2"), recording, SHAPE)
    assert not shuffled.is_step_up
    assert torch.isinf(tables_of(shuffled).thresholds).all()


# The model's own forward


@pytest.mark.parametrize("shape", [SHAPE, NORMALIZED], ids=["model", "normalized"])
@pytest.mark.parametrize("text", STEP_UP)
def test_many_tokens_are_limited_as_on_the_cpu_bit_for_bit(
    text: str, shape: RouterShape, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = RoutingRule(parse_rule(text), recording, shape)
    # The null's own scores among them: both ways compare the same numbers, ties included.
    logits = torch.cat([drawn_logits(), recording.logits[1, :6], torch.zeros(1, EXPERTS)])
    expected = rule.select(1, logits)
    limited = []

    def by_kernel(rule: RoutingRule, layer: int, scores: Tensor, weights: Tensor) -> object:
        own = tables_of(rule)
        limited.append(layer)
        found = selection_cuda.limited(
            scores.to(DEVICE), weights.to(DEVICE), own.thresholds[layer].to(DEVICE),
            own.used_of_raw[layer].long().to(DEVICE),
        )  # fmt: skip
        return tuple(tensor.to(scores.device) for tensor in found)

    monkeypatch.setattr(RoutingRule, "_has_kernel", lambda _rule, _device: True)
    monkeypatch.setattr(RoutingRule, "_limited", by_kernel)
    found = rule.select(1, logits)
    # Other scores than the probabilities themselves are compared by PyTorch.
    takes_kernel = "score" not in text and "temperature" not in text
    assert limited == [1] * takes_kernel
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype


def test_no_tokens_need_no_kernel() -> None:
    probabilities, weights = torch.empty(0, EXPERTS), torch.empty(0, TOP_K)
    used = torch.arange(EXPERTS + 1)
    found, counts, raw = selection_cuda.limited(
        probabilities.to(DEVICE), weights.to(DEVICE), torch.zeros(EXPERTS, device=DEVICE),
        used.to(DEVICE),
    )  # fmt: skip
    assert found.shape == (0, TOP_K)
    assert counts.shape == raw.shape == (0,)
