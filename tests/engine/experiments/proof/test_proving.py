"""A proof passes where nothing is wrong, and each check fails where its fault is planted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from bh_studio.engine.decoding import cpu_step
from bh_studio.engine.decoding.cpu_step import CpuStep
from bh_studio.engine.decoding.paths import GPU, STOCK, DecodePath
from bh_studio.engine.decoding.step import hook_problem
from bh_studio.engine.decoding.stock_step import StockStep
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.experiments.proof import reading
from bh_studio.engine.experiments.proof.fingerprints import PrintedLogits
from bh_studio.engine.experiments.proof.model_state import ModelState
from bh_studio.engine.experiments.proof.repeat import check_repeat
from bh_studio.engine.experiments.sides import answer_in_turns, routings_of
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.moe import experts_cpu
from bh_studio.engine.moe.experts import selected_experts_forward
from bh_studio.engine.moe.replacement import Replacement
from bh_studio.engine.records.session import Session, SideRecord
from bh_studio.engine.records.terms import FinishReason, GenerationParameters
from bh_studio.engine.routing.selection import RoutingRule, Selection
from bh_studio.engine.rules.text import parse_rule
from bh_studio.engine.steps import result_of_steps
from tests.engine.experiments.proof.proved import (
    TOKENS,
    comparison,
    finished,
    problems,
    proof_of,
)
from tests.tiny_moe import save_tiny_of_type
from tests.tiny_olmoe import LAYERS, TOP_K

RULE = "bh:0.1,max_k=4"
PROMPT_TOKENS = len("Once upon a time")
CHECKS = [
    "repeat", "experts of A", "experts of B", "own k in one pass", "own k step by step",
    "model restored",
]  # fmt: skip


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def embedded(request: pytest.FixtureRequest) -> LoadedModel:
    return load_model(device="cpu", dtype=request.param)


@pytest.mark.parametrize(
    "rules",
    [
        ("bh:0.05",),
        ("bh:0.05,mode=analyze",),
        ("bh:0.05,weights=renormalize", "top-p:0.45,weights=match"),
        ("bh:0.05,score=logit,temperature=2", "top-k:12", "min-p:0.2"),
    ],
)
def test_a_proof_of_the_embedded_model_passes(
    rules: tuple[str, ...], embedded: LoadedModel
) -> None:
    session: Session = finished(embedded, comparison(*rules)).document
    assert session.proof is not None
    assert problems(session.proof.checks) == {}
    experts = [f"experts of {letter}" for letter in "ABCD"[: 1 + len(rules)]]
    assert [check.name for check in session.proof.checks] == [
        "repeat", *experts, "own k in one pass", "own k step by step", "model restored",
    ]  # fmt: skip
    vocabulary = embedded.model.config.vocab_size
    prompt = len(session.records[0].prompt_token_ids)
    repeat, first, *_, one_pass, steps, _ = session.proof.checks
    assert {c.layers for c in session.proof.checks} == {embedded.info.layers}
    assert repeat.positions == first.positions == one_pass.positions == prompt + TOKENS - 1
    assert (steps.positions, steps.numbers) == (TOKENS, TOKENS * vocabulary)
    assert one_pass.numbers == one_pass.positions * vocabulary
    assert "own forward on the CPU" in first.compared


@pytest.mark.parametrize("model_type", ["flex_olmo", "qwen3_moe"])
def test_a_proof_of_other_models_passes(model_type: str, tmp_path: Path) -> None:
    other = load_model(str(save_tiny_of_type(model_type, tmp_path)), device="cpu")
    proof = proof_of(other, comparison(RULE, "top-p:0.5,max_k=6,weights=match"))
    assert problems(proof.checks) == {}
    assert STOCK in proof.checks[1].compared


def test_what_is_proved_answers_as_it_does_unproved(loaded: LoadedModel) -> None:
    for sampling in (False, True):
        generation = GenerationParameters(TOKENS, sampling=sampling, temperature=1.5, seed=3)
        proved = comparison(RULE, generation=generation)
        plain = msgspec.structs.replace(proved, prove=False)
        one: Session = finished(loaded, proved).document
        other: Session = finished(loaded, plain).document
        assert other.proof is None
        assert one.proof is not None
        assert problems(one.proof.checks) == {}
        for mine, its in zip(one.records, other.records, strict=True):
            assert mine.token_ids == its.token_ids
            np.testing.assert_array_equal(mine.raw_counts, its.raw_counts)


@pytest.mark.parametrize("rules", [(RULE,), (RULE, "top-k:2")])
def test_without_the_models_own_routing_a_proof_passes(
    rules: tuple[str, ...], loaded: LoadedModel
) -> None:
    assert problems(proof_of(loaded, comparison(*rules, own=False)).checks) == {}


@pytest.mark.parametrize("tokens", [1, 2])
def test_the_shortest_answers_are_proved(tokens: int, loaded: LoadedModel) -> None:
    definition = comparison(RULE, generation=GenerationParameters(tokens, sampling=False))
    proof = proof_of(loaded, definition)
    assert [check.name for check in proof.checks] == CHECKS
    assert problems(proof.checks) == {}


def test_between_two_checks_the_model_is_as_it_was(loaded: LoadedModel) -> None:
    told: list[tuple[str, str]] = []
    proof_of(loaded, comparison(RULE), lambda name: told.append((name, hook_problem(loaded.model))))
    assert told == [(name, "") for name in CHECKS]


# A router that changes one bit.


def one_bit_more(weights: Tensor) -> Tensor:
    changed = weights.clone()
    changed[0, 0] = torch.nextafter(changed[0, 0], torch.tensor(1.0))
    return changed


def test_one_bit_of_a_mixing_weight_fails_the_proof_in_one_pass(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    select = RoutingRule.select

    def faulty(rule: RoutingRule, layer: int, logits: Tensor) -> Selection:
        found = select(rule, layer, logits)
        # In the pass that reads prompt and answer together, and not in that of the prompt.
        if layer != 1 or len(logits) in (1, PROMPT_TOKENS):
            return found
        return found._replace(weights=one_bit_more(found.weights))

    monkeypatch.setattr(RoutingRule, "select", faulty)
    failed = problems(proof_of(loaded, comparison(RULE)).checks)
    assert list(failed) == ["own k in one pass"]
    assert failed["own k in one pass"] == "The logits first differ at position 0 of the prompt."


def test_one_bit_of_a_mixing_weight_fails_the_proof_step_by_step(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    select_one = RoutingRule.select_one

    def faulty(rule: RoutingRule, layer: int, logits: Tensor) -> tuple[Tensor, Tensor, int]:
        indices, weights, raw = select_one(rule, layer, logits)
        return indices, one_bit_more(weights) if layer == 1 else weights, raw

    monkeypatch.setattr(RoutingRule, "select_one", faulty)
    failed = problems(proof_of(loaded, comparison(RULE)).checks)
    assert list(failed) == ["own k step by step"]
    assert failed["own k step by step"] == "The logits first differ at token 1."


# An unpatching that leaves something, and whatever else a model may be left with.


def test_a_router_that_is_not_given_back_fails_the_proof(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo, router = Replacement.undo, loaded.model.model.layers[2].mlp.gate

    def forgetful(replacement: Replacement) -> None:
        if replacement._attributes is vars(router):
            router.forward = replacement._class_forward
        else:
            undo(replacement)

    monkeypatch.setattr(Replacement, "undo", forgetful)
    try:
        failed = problems(proof_of(loaded, comparison(RULE)).checks)
    finally:
        vars(router).pop("forward", None)
    assert failed["model restored"].startswith("On model.layers.2.mlp.gate a forward")


def flipped(weight: Tensor) -> Callable[[], None]:
    """Change a bit of a number of `weight`; what changes it back.

    Not the last bit: some processors round it away in a sum.
    """

    def flip() -> None:
        with torch.no_grad():
            weight.view(torch.int32)[0, 0] ^= 1 << 20

    flip()
    return flip


def hooked(module: Any) -> Callable[[], None]:
    handle: Callable[[], None] = module.register_forward_hook(lambda *_: None).remove
    return handle


def marked(module: Any) -> Callable[[], None]:
    module.left = True
    return lambda: delattr(module, "left")


def wrapped(module: Any) -> Callable[[], None]:
    module.forward = module.forward
    return lambda: delattr(module, "forward")


@pytest.mark.parametrize(
    ("leave", "sentence"),
    [
        (lambda m: flipped(m.model.layers[1].mlp.gate.weight), "The router of layer 1 does not"),
        (lambda m: flipped(m.lm_head.weight), "The logits at position 0 of the prompt are not"),
        (lambda m: hooked(m.model.layers[1].mlp), "On model.layers.1.mlp a forward, a hook"),
        (lambda m: marked(m.model.layers[0].mlp.gate), "On model.layers.0.mlp.gate a forward"),
        (lambda m: wrapped(m.model), "On model a forward, a hook or a mark is not what it was."),
        (wrapped, "On the model a forward"),
    ],
)
def test_what_is_left_behind_is_named(
    leave: Callable[[Any], Callable[[], None]], sentence: str, loaded: LoadedModel
) -> None:
    state = ModelState(loaded, [1, 2, 3])
    assert state.check().passed
    take_back = leave(loaded.model)
    try:
        check = state.check()
    finally:
        take_back()
    assert check.passed is False
    assert check.problem.startswith(sentence)
    assert state.check().passed


def test_a_forward_that_was_replaced_before_has_to_be_that_one(loaded: LoadedModel) -> None:
    module = loaded.model.model.layers[1].mlp
    own = module.forward
    module.forward = lambda *inputs: own(*inputs)
    try:
        state = ModelState(loaded, [1, 2, 3])
        assert state.check().passed
        module.forward = lambda *inputs: own(*inputs)
        assert state.check().problem.startswith("On model.layers.1.mlp a forward")
    finally:
        del module.forward


# Experts that run and are not those that are counted.


def one_expert_less(
    experts: Any, row: Tensor, indices: Tensor, weights: Tensor, former: Any
) -> Tensor:
    output: Tensor = former(experts, row, indices[:, :-1], weights[:, :-1])
    return output


def test_a_step_that_runs_fewer_experts_than_it_counts_fails_the_proof(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = selected_experts_forward
    experts = loaded.model.model.layers[1].mlp.experts

    def lazy(module: Any, row: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        if module is experts and indices.shape[1] == TOP_K:
            return one_expert_less(module, row, indices, weights, former)
        return former(module, row, indices, weights)

    monkeypatch.setattr(cpu_step, "selected_experts_forward", lazy)
    failed = problems(proof_of(loaded, comparison("top-k:2")).checks)
    assert failed == {"experts of A": "At token 1, in layer 1, 3 experts ran and not 4."}


def test_a_prompt_that_runs_fewer_experts_than_it_is_given_fails_the_proof(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_rows = experts_cpu._many_rows

    def lazy(experts: Any, rows: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        weights = weights.clone()
        weights[3, 1] = 0
        return many_rows(experts, rows, indices, weights)

    monkeypatch.setattr(experts_cpu, "_many_rows", lazy)
    failed = problems(proof_of(loaded, comparison("top-k:2")).checks)
    assert failed == {
        f"experts of {letter}": f"In layer 0 the experts computed {rows - 1} rows for the prompt "
        f"and not {rows}."
        for letter, rows in (("A", PROMPT_TOKENS * TOP_K), ("B", PROMPT_TOKENS * 2))
    }


def test_a_rule_that_counts_others_than_it_selects_fails_the_proof(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    select, select_one = RoutingRule.select, RoutingRule.select_one

    def in_prompt(rule: RoutingRule, layer: int, logits: Tensor) -> Selection:
        found = select(rule, layer, logits)
        if layer != 2 or rule.parameters.level != 2 or len(logits) == 1:
            return found
        raw = found.raw_counts.clone()
        raw[5] += 1
        return found._replace(raw_counts=raw)

    monkeypatch.setattr(RoutingRule, "select", in_prompt)
    failed = problems(proof_of(loaded, comparison("top-k:2", "top-k:3")).checks)
    sentence = "At position 5 of the prompt, in layer 2, 2 experts ran and not 3."
    assert failed == {"experts of B": sentence}
    monkeypatch.setattr(RoutingRule, "select", select)

    def in_step(rule: RoutingRule, layer: int, logits: Tensor) -> tuple[Tensor, Tensor, int]:
        indices, weights, raw = select_one(rule, layer, logits)
        return indices, weights, raw + (layer == 0)

    monkeypatch.setattr(RoutingRule, "select_one", in_step)
    failed = problems(proof_of(loaded, comparison("top-k:2", "top-k:4,mode=analyze")).checks)
    assert failed == {"experts of B": "At token 1, in layer 0, 2 experts ran and not 3."}


def test_a_rule_that_only_counts_and_selects_all_the_same_fails_the_proof(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An analyze side reports what would run, so that the model's own k is what has to run."""
    former = cpu_step._rule_route
    patching = parse_rule("top-k:2")

    def route(rule: RoutingRule) -> Any:
        return former(RoutingRule(patching, None, loaded.shape))

    monkeypatch.setattr(cpu_step, "_rule_route", route)
    failed = problems(proof_of(loaded, comparison("top-k:2,mode=analyze")).checks)
    assert failed["experts of B"] == "At token 1, in layer 0, 2 experts ran and not 4."


def test_experts_that_were_others_only_while_the_answer_was_made_fail_the_proof(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = selected_experts_forward

    def lazy(module: Any, row: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        return one_expert_less(module, row, indices, weights, former)

    monkeypatch.setattr(cpu_step, "selected_experts_forward", lazy)
    failed = problems(
        proof_of(
            loaded,
            comparison("top-k:3"),
            lambda name: monkeypatch.setattr(cpu_step, "selected_experts_forward", former),
        ).checks
    )
    assert set(failed) == {"repeat", "experts of A", "experts of B", "own k step by step"}
    assert failed["experts of A"].startswith("The logits of token 1 are not those of the answer")


# An answer that does not come out the same.


@pytest.fixture
def answer(loaded: LoadedModel) -> Callable[..., str]:
    """Has A answer, changes what is known of that, and has it checked: the problem."""
    (routing,) = routings_of(loaded, (parse_rule(RULE),))
    generation = GenerationParameters(TOKENS, sampling=False)
    logits, token = PrintedLogits(), CancelToken()
    prompt = loaded.tokenizer("Once upon a time").input_ids
    asked = (loaded, [prompt], (routing,), generation, token)
    (record,) = result_of_steps(answer_in_turns(*asked, watches=[logits]))
    prints = logits.of(TOKENS)

    def problem(change: Callable[[SideRecord, np.ndarray], SideRecord | None]) -> str:
        mine = dataclasses.replace(
            record,
            **{
                name: getattr(record, name).copy()
                for name in (
                    "expert_counts", "raw_counts", "prompt_expert_counts", "prompt_raw_counts",
                )
            },
        )  # fmt: skip
        mine_prints = prints.copy()
        changed = change(mine, mine_prints) or mine
        check = check_repeat(loaded, routing, generation, changed, mine_prints, token)
        assert check.passed is not bool(check.problem)
        return check.problem

    return problem


def test_what_comes_out_the_same_is_equal_in_everything(answer: Callable[..., str]) -> None:
    assert answer(lambda record, prints: None) == ""


def other_token(record: SideRecord, _prints: np.ndarray) -> SideRecord:
    ids = list(record.token_ids)
    ids[4] += 1
    return dataclasses.replace(record, token_ids=tuple(ids))


def shorter(record: SideRecord, _prints: np.ndarray) -> SideRecord:
    return dataclasses.replace(record, token_ids=record.token_ids[:-1])


def adding(name: str, row: int) -> Callable[[SideRecord, np.ndarray], None]:
    def add(record: SideRecord, _prints: np.ndarray) -> None:
        getattr(record, name)[row, 1] += 1

    return add


def print_changed(_record: SideRecord, prints: np.ndarray) -> None:
    prints[6:] += 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (other_token, "first differs at token 4, in the token itself: differences between"),
        (shorter, f"first differs at token {TOKENS - 1}, in the token itself"),
        (print_changed, "first differs at token 6, in the bits of its logits"),
        (adding("expert_counts", 5), "first differs at token 5, in its experts: "),
        (adding("raw_counts", 0), "first differs at token 0, in its experts before the limits"),
        (adding("prompt_expert_counts", 3), "already in the experts of position 3 of the prompt"),
        (adding("prompt_raw_counts", 0), "already in the experts of position 0 of the prompt"),
    ],
)
def test_where_an_answer_first_differs_is_said(
    change: Any, sentence: str, answer: Callable[..., str]
) -> None:
    assert sentence in answer(change)


def test_an_answer_with_another_bit_the_second_time_fails_the_proof(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, numbers = CpuStep._read, count()
    # After the two answers, of which each reads all tokens but the last, at token 5 of the third.
    faulty_at = 2 * (TOKENS - 1) + 4

    def drifting(step: CpuStep, token_id: int) -> tuple[Tensor, np.ndarray | None]:
        logits, raw = read(step, token_id)
        if next(numbers) == faulty_at:
            logits[0, 0] = torch.nextafter(logits[0, 0], torch.tensor(0.0))
        return logits, raw

    monkeypatch.setattr(CpuStep, "_read", drifting)
    failed = problems(proof_of(loaded, comparison(RULE)).checks)
    assert list(failed) == ["repeat"]
    assert failed["repeat"] == (
        "The second answer first differs at token 5, in the bits of its logits: differences "
        "between the sides at or after token 5 may be noise of this machine."
    )


# Stopping, errors, and ways to decode that cannot be watched.


@pytest.mark.parametrize("name", CHECKS)
def test_a_proof_that_is_stopped_keeps_the_answers_and_what_is_known(
    name: str, loaded: LoadedModel
) -> None:
    cancel = CancelToken()
    end = finished(
        loaded, comparison(RULE), lambda told: cancel.cancel() if told == name else None, cancel
    )
    assert not end.is_complete
    session: Session = end.document
    assert {r.finish_reason for r in session.records} == {FinishReason.MAX_NEW_TOKENS}
    assert session.proof is not None
    done = CHECKS.index(name)
    assert [check.name for check in session.proof.checks] == CHECKS[: done + 1]
    assert [check.passed for check in session.proof.checks] == [True] * done + [None]
    assert session.proof.checks[-1].problem == "It was stopped."


@pytest.mark.parametrize(("name", "polls"), [("repeat", 3), ("experts of B", 4)])
def test_a_stop_takes_effect_within_a_token(name: str, polls: int, loaded: LoadedModel) -> None:
    class LateToken(CancelToken):
        left: int | None = None

        @property
        def is_cancelled(self) -> bool:
            if self.left is None:
                return False
            self.left -= 1
            return self.left < 0

    cancel = LateToken()

    def arm(told: str) -> None:
        if told == name:
            cancel.left = polls

    session: Session = finished(loaded, comparison(RULE), arm, cancel).document
    assert session.proof is not None
    assert [check.name for check in session.proof.unfinished] == [name]
    assert not hook_problem(loaded.model)


def test_answers_that_are_stopped_are_not_proved(loaded: LoadedModel) -> None:
    cancel = CancelToken()
    cancel.cancel()
    assert finished(loaded, comparison(RULE), cancel=cancel).document.proof is None


def test_an_error_in_a_check_costs_neither_answers_nor_the_other_checks(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = CpuStep.submit
    names: list[str] = []

    def failing(step: CpuStep) -> object:
        if names and names[-1] == "experts of B":
            raise RuntimeError("CUDA out of memory\n\x1b[2J" + "x" * 1000)
        return submit(step)

    monkeypatch.setattr(CpuStep, "submit", failing)
    end = finished(loaded, comparison(RULE), names.append)
    assert end.is_complete
    session: Session = end.document
    assert session.proof is not None
    assert names == CHECKS
    assert [check.passed for check in session.proof.checks] == [True, True, None, True, True, True]
    assert session.proof.unfinished[0].problem.startswith("It broke off: CUDA out of memory")
    assert [len(record.token_ids) for record in session.records] == [TOKENS] * 2


def test_a_way_that_cannot_be_watched_is_named_and_another_is(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "decode_path", lambda model: DecodePath(GPU))
    submit, submitted = StockStep.submit, count()

    def counted(step: StockStep) -> object:
        next(submitted)
        return submit(step)

    monkeypatch.setattr(StockStep, "submit", counted)
    proof = proof_of(loaded, comparison(RULE))
    assert problems(proof.checks) == {}
    watched = [check for check in proof.checks if check.name.startswith("experts of")]
    for check in watched:
        assert f"read again by {STOCK} with the counts of that pass" in check.compared
        assert "how it was answered cannot be watched" in check.compared
        assert check.numbers == (PROMPT_TOKENS + TOKENS - 1) * LAYERS + LAYERS
    assert next(submitted) == 2 * (TOKENS - 1)


def test_experts_of_a_way_that_is_not_the_own_are_checked_too(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "decode_path", lambda model: DecodePath(GPU))
    one_row = experts_cpu._one_row

    def lazy(experts: Any, row: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        return one_row(experts, row, indices[:-1], weights[:-1])

    monkeypatch.setattr(experts_cpu, "_one_row", lazy)
    failed = problems(proof_of(loaded, comparison("top-k:2")).checks)
    assert failed["experts of A"] == "At token 1, in layer 0, 3 experts ran and not 4."
    assert failed["experts of B"] == "At token 1, in layer 0, 1 expert ran and not 2."
