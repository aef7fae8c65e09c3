"""Rules on the router logits of a session: its own counts, other rules, nulls found or refused."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bh_studio import paths
from bh_studio.engine.calibration.diagnostics import diagnose
from bh_studio.engine.calibration.recorder import make_recording
from bh_studio.engine.errors import CancelToken, InputError
from bh_studio.engine.execution import recorded_routing
from bh_studio.engine.execution.clerk import Clerk
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.protocol.events import SessionNullJudged, SideReplayed, TokenInspected
from bh_studio.engine.protocol.requests import InspectToken, JudgeSessionNull, ReplaySide
from bh_studio.engine.records.decisions.router_rows import HeldRows, RouterRows
from bh_studio.engine.records.decisions.session_null import session_recording
from bh_studio.engine.records.decisions.side_replay import ReplayedSide
from bh_studio.engine.records.decisions.token_inspection import InspectedToken
from bh_studio.engine.records.diagnostics import NullFit
from bh_studio.engine.records.recording import RecordedLogits
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.terms import ModelInfo
from bh_studio.engine.routing.recordings import save_recording
from bh_studio.engine.routing.selection import RoutingRule
from bh_studio.engine.rules.parameters import MixingWeights, RuleParameters, ScoreName
from bh_studio.engine.rules.text import parse_rule
from tests.recorded_sessions import positions, recorded_session
from tests.tiny_olmoe import EXPERTS, LAYERS, TOP_K, save_tiny_checkpoint

ROOT = Path(__file__).resolve().parents[3]
SIDES = (
    "bh:0.3,max_k=4",
    "bh:0.3,max_k=4,mode=analyze",
    "by:0.4,null=pooled,max_k=6,weights=match",
    "storey:0.3,score=logit,min_k=2,max_k=4",
    "hc:0.5,null=gaussian",
    "bh:0.3,null=per-expert,max_k=4",
    "bh:0.3,null=robust",
    "top-k:4/2/3",
    "top-p:0.5,weights=renormalize",
    "min-p:0.3,max_k=4",
    "cut:0.1,max_k=4",
    "entropy:0.8,min_k=2,max_k=4",
)
BH = parse_rule(SIDES[0])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-olmoe")))


@pytest.fixture(scope="module")
def loaded(checkpoint: str) -> LoadedModel:
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def session(loaded: LoadedModel) -> Session:
    """The model's own routing and BH."""
    return recorded_session(loaded, (None, BH))


def replayed(asked: ReplaySide, clerk: Clerk | None = None) -> ReplayedSide:
    (event,) = (clerk or Clerk()).answer(asked, CancelToken())
    assert isinstance(event, SideReplayed)
    return event.replayed


def inspected(asked: InspectToken, clerk: Clerk | None = None) -> InspectedToken:
    (event,) = (clerk or Clerk()).answer(asked, CancelToken())
    assert isinstance(event, TokenInspected)
    return event.token


def judged(asked: JudgeSessionNull, clerk: Clerk | None = None) -> NullFit:
    (event,) = (clerk or Clerk()).answer(asked, CancelToken())
    assert isinstance(event, SessionNullJudged)
    return event.fit


def of_side(session: Session, side: int, rule: RuleParameters | None, **changed: Any) -> ReplaySide:
    return ReplaySide(session.model, session.records[side], rule, **changed)


def at(
    session: Session, side: int, position: int, rule: RuleParameters | None, **changed: Any
) -> InspectToken:
    logits = session.records[side].router_logits
    return InspectToken(session.model, logits, position, rule, **changed)


# A side's own rule


@pytest.mark.parametrize("text", [None, *SIDES])
def test_a_sides_own_rule_gives_every_count_that_it_recorded(
    text: str | None, loaded: LoadedModel
) -> None:
    rule = None if text is None else parse_rule(text)
    session = recorded_session(loaded, (rule,))
    record = session.records[0]
    clerk = Clerk()
    found = replayed(of_side(session, 0, rule), clerk)
    raw = np.concatenate([record.prompt_raw_counts, record.raw_counts])
    assert found.counts.dtype == found.raw_counts.dtype == np.uint8
    np.testing.assert_array_equal(found.counts, positions(session, 0))
    np.testing.assert_array_equal(found.raw_counts, raw)
    assert found.is_equal
    assert found.answer.to_dict() == record.statistics()["answer"]
    assert found.prompt.to_dict() == record.statistics()["prompt"]
    assert rule is None or len(np.unique(raw)) > 1
    for position in range(len(raw)):
        layers = inspected(at(session, 0, position, rule), clerk).layers
        assert [layer.count for layer in layers] == found.counts[position].tolist()
        assert [layer.raw_count for layer in layers] == raw[position].tolist()


def test_another_rule_is_replayed_and_compared(session: Session, loaded: LoadedModel) -> None:
    own = replayed(of_side(session, 0, BH))
    logits = session.records[0].router_logits
    assert logits is not None
    rule = RoutingRule(BH, loaded.recording, loaded.shape)
    rows = torch.from_numpy(logits.rows(0, logits.shape[0]))
    expected = torch.stack([rule.select(n, rows[:, n]).counts for n in range(LAYERS)], dim=1)
    assert own.counts.tolist() == expected.tolist()
    assert own.equal_counts == int((expected == TOP_K).sum())
    assert not own.is_equal
    document = own.to_json()
    assert (document["equal_counts"], document["counts"]) == (own.equal_counts, expected.numel())


def test_blocks_change_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = replayed(of_side(session, 1, BH))
    monkeypatch.setattr("bh_studio.engine.routing.replay._TOKENS_AT_ONCE", 5)
    in_blocks = replayed(of_side(session, 1, BH))
    np.testing.assert_array_equal(at_once.counts, in_blocks.counts)
    np.testing.assert_array_equal(at_once.raw_counts, in_blocks.raw_counts)


def test_mixing_weights_are_told_where_it_is_known_how_the_model_scales_them(
    session: Session,
) -> None:
    former = dataclasses.replace(
        session, model=dataclasses.replace(session.model, norm_topk_prob=None)
    )
    assert inspected(at(session, 1, 3, BH)).layers[0].weights is not None
    assert inspected(at(former, 1, 3, BH)).layers[0].weights is None
    scaled = dataclasses.replace(BH, weights=MixingWeights.RENORMALIZE)
    weights = inspected(at(former, 1, 3, scaled)).layers[0].weights
    assert weights is not None
    assert weights.sum() == pytest.approx(1)


def test_an_inspected_token_is_json(session: Session) -> None:
    document = inspected(at(session, 1, 3, parse_rule("hc:0.2"))).to_json()
    assert document["position"] == 3
    layer = document["layers"][0]
    assert layer["criterion"]["points"][-1] is None  # beyond alpha0 m
    assert len(layer["weights"]) == layer["count"]


# What cannot be


def without_logits(session: Session) -> ReplaySide:
    return of_side(
        dataclasses.replace(
            session,
            records=tuple(dataclasses.replace(r, router_logits=None) for r in session.records),
        ),
        1,
        BH,
    )


def with_logits(session: Session, logits: RouterRows) -> ReplaySide:
    return of_side(
        dataclasses.replace(
            session,
            records=tuple(dataclasses.replace(r, router_logits=logits) for r in session.records),
        ),
        1,
        BH,
    )


def test_without_logits_it_is_said_what_to_do(session: Session) -> None:
    asked = without_logits(session)
    with pytest.raises(
        InputError, match=r"no router logits: .* not all of them are left.*without --keep counts"
    ):
        replayed(asked)
    with pytest.raises(InputError, match=r"no router logits.*without --keep counts"):
        inspected(InspectToken(session.model, None, 0, BH))


@pytest.mark.parametrize("position", [-1, 10**9])
def test_a_position_that_is_not_there_is_refused(session: Session, position: int) -> None:
    logits = session.records[1].router_logits
    assert logits is not None
    sentence = f"There is no position {position}; this side has read {logits.shape[0]}"
    with pytest.raises(InputError, match=sentence):
        inspected(at(session, 1, position, BH))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("top-k:17", "max_k must not exceed the 16 experts"),
        ("bh:0.1/0.2", "alpha has 2 values for the 3 layers"),
        ("bh:0.1,score=output", "a factor of each expert that was not measured"),
    ],
)
def test_a_rule_that_does_not_fit_is_refused(session: Session, text: str, reason: str) -> None:
    rule = parse_rule(text)
    for ask in (
        lambda: replayed(of_side(session, 1, rule)),
        lambda: inspected(at(session, 1, 0, rule)),
    ):
        with pytest.raises(InputError, match=reason) as refused:
            ask()
        assert str(refused.value).startswith(f"{text} cannot be replayed: ")


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((40, LAYERS + 1, EXPERTS), "of 4 layers of 16 experts, and the model has 3 of 16"),
        ((40, LAYERS, EXPERTS - 1), "of 3 layers of 15 experts"),
        ((2, LAYERS, EXPERTS), "positions, and they are of 2"),
    ],
)
def test_logits_that_are_not_of_the_session_are_refused(
    session: Session, shape: tuple[int, int, int], reason: str
) -> None:
    logits = HeldRows(np.zeros(shape, np.float32))
    with pytest.raises(InputError, match=f"damaged: .*{reason}"):
        replayed(with_logits(session, logits))


def test_logits_that_are_no_numbers_or_cannot_be_read_are_refused(session: Session) -> None:
    class Gone:
        shape = (40, LAYERS, EXPERTS)

        def rows(self, start: int, stop: int) -> np.ndarray:
            raise OSError(5, "Input/output error")

    nan = HeldRows(np.full((40, LAYERS, EXPERTS), np.nan, np.float32))
    for logits, reason in ((nan, "not finite"), (Gone(), "Input/output error.")):
        with pytest.raises(InputError, match=reason):
            replayed(with_logits(session, logits))
        with pytest.raises(InputError, match=reason):
            inspected(InspectToken(session.model, logits, 1, BH))


# The null


@pytest.fixture
def cache(loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for what is kept on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    nulls = paths.cache_dir() / "nulls"
    assert nulls.is_relative_to(tmp_path)
    return nulls


def test_a_null_that_is_not_here_is_refused_and_other_rules_are_not(
    session: Session, cache: Path
) -> None:
    reason = r"not on this machine: nothing is kept of .*Load that model once.*--calibration"
    with pytest.raises(InputError, match=reason):
        replayed(of_side(session, 1, BH))
    with pytest.raises(InputError, match=reason):
        inspected(at(session, 1, 0, BH))
    assert replayed(of_side(session, 1, parse_rule("top-p:0.5"))).counts.size
    assert inspected(at(session, 1, 0, None)).layers[0].count == TOP_K


def test_a_null_of_another_text_is_refused(
    session: Session, loaded: LoadedModel, cache: Path, tmp_path: Path
) -> None:
    other = make_recording(loaded.model, loaded.tokenizer, "Another text. " * 40)
    save_recording(other, cache / f"{session.model.fingerprint}-0123456789abcdef.npz")
    reason = r"what is kept of .* was recorded on another text.*--calibration"
    with pytest.raises(InputError, match=reason):
        replayed(of_side(session, 1, BH))
    # The right one beside it is found, whatever it is called, and a damaged one is no matter.
    (cache / f"{session.model.fingerprint}-0.npz").write_bytes(b"PK")
    save_recording(loaded.recording, cache / f"{session.model.fingerprint}-f.npz")
    assert replayed(of_side(session, 1, BH)).is_equal


def test_a_fingerprint_out_of_a_file_leads_to_no_other_folder(
    session: Session, loaded: LoadedModel, cache: Path
) -> None:
    save_recording(loaded.recording, cache.parent / "elsewhere-0.npz")
    (cache).mkdir()
    for fingerprint in ("../elsewhere", "*", "", str(cache.parent / "elsewhere")):
        model = dataclasses.replace(session.model, fingerprint=fingerprint)
        with pytest.raises(InputError, match="nothing is kept"):
            session_recording(model)


def test_a_calibration_is_taken_if_it_is_the_one(
    session: Session, loaded: LoadedModel, cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / "null.npz"
    save_recording(loaded.recording, path)
    assert replayed(of_side(session, 1, BH, calibration=path)).is_equal
    scored = make_recording(
        loaded.model, loaded.tokenizer, "Another text. " * 40, factors=[ScoreName.OUTPUT]
    )
    save_recording(scored, path)
    with pytest.raises(InputError, match=r"null\.npz is not what the nulls of this session"):
        replayed(of_side(session, 1, BH, calibration=path))
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"null\.npz cannot be used: null\.npz is"):
        replayed(of_side(session, 1, BH, calibration=path))
    with pytest.raises(InputError, match=r"none\.npz cannot be used: No such file"):
        replayed(of_side(session, 1, BH, calibration=tmp_path / "none.npz"))


def test_a_null_of_another_shape_is_refused(
    session: Session, loaded: LoadedModel, cache: Path
) -> None:
    fewer = dataclasses.replace(loaded.recording, logits=loaded.recording.logits[:2])
    save_recording(fewer, cache / f"{session.model.fingerprint}-0.npz")
    model = dataclasses.replace(session.model, null_sha256=fewer.sha256)
    with pytest.raises(InputError, match="The null has 2 layers of 16 experts"):
        replayed(of_side(dataclasses.replace(session, model=model), 1, BH))


def test_what_is_fitted_is_kept_for_the_next_request_and_little_of_it(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(model: ModelInfo, calibration: Path | None) -> RecordedLogits:
        read.append(model.name)
        named = dataclasses.replace(model, null_sha256=session.model.null_sha256)
        return session_recording(named, calibration)

    monkeypatch.setattr(recorded_routing, "session_recording", counted)
    clerk = Clerk()
    for position in range(3):
        inspected(at(session, 1, position, BH), clerk)
    replayed(of_side(session, 1, BH), clerk)
    assert len(read) == 1
    # Three models by turns: the two that were asked for last are kept.
    others = [
        dataclasses.replace(
            session, model=dataclasses.replace(session.model, name=name, null_sha256=name)
        )
        for name in ("b", "c")
    ]
    for one in (*others, others[0], session):
        inspected(at(one, 1, 0, BH), clerk)
    assert read[1:] == ["b", "c", session.model.name]


# How well it fits


def test_the_null_of_a_rule_is_judged(session: Session, loaded: LoadedModel) -> None:
    found = judged(JudgeSessionNull(session.model, BH))
    assert found.rule == BH
    assert found.layers == diagnose(loaded.recording, alpha=0.3).layers


def test_what_was_judged_is_kept(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    clerk = Clerk()
    first = judged(JudgeSessionNull(session.model, BH), clerk)
    assert judged(JudgeSessionNull(session.model, BH), clerk) is first
    other = judged(JudgeSessionNull(session.model, dataclasses.replace(BH, level=0.2)), clerk)
    assert other is not first
    monkeypatch.setattr(recorded_routing, "_MOST_FITS", 1)
    judged(JudgeSessionNull(session.model, parse_rule(SIDES[2])), clerk)
    assert judged(JudgeSessionNull(session.model, BH), clerk) is not first


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (None, "The model's own routing"),
        ("cut:0.1", "cut:0.1"),
        ("cut:0.1,score=output", "cut:0.1,score=output"),
        ("top-p:0.5", "top-p:0.5"),
    ],
)
def test_a_rule_that_tests_nothing_has_no_null(
    text: str | None, name: str, session: Session
) -> None:
    rule = None if text is None else parse_rule(text)
    with pytest.raises(InputError, match=f"^{name} has no null: it tests nothing. Choose a side"):
        judged(JudgeSessionNull(session.model, rule))


def test_a_null_that_cannot_be_judged_is_refused(
    session: Session, loaded: LoadedModel, cache: Path
) -> None:
    with pytest.raises(InputError, match=r"not on this machine: nothing is kept of .*Load that"):
        judged(JudgeSessionNull(session.model, BH))
    origin = dataclasses.replace(loaded.recording.origin, tokens=1)
    one = dataclasses.replace(
        loaded.recording, logits=loaded.recording.logits[:, :1].contiguous(), origin=origin
    )
    path = cache / "one.npz"
    save_recording(one, path)
    model = dataclasses.replace(session.model, null_sha256=one.sha256)
    reason = r"The null of bh:0\.3,max_k=4 cannot be judged: .* a single token; .*longer text\."
    with pytest.raises(InputError, match=reason):
        judged(JudgeSessionNull(model, BH, path))


def test_neither_transformers_nor_a_model_is_loaded(session: Session) -> None:
    code = """
import sys
import numpy as np
from bh_studio.engine.errors import CancelToken, InputError
from bh_studio.engine.execution.clerk import Clerk
from bh_studio.engine.protocol.requests import InspectToken, JudgeSessionNull
from bh_studio.engine.records.decisions.router_rows import HeldRows
from bh_studio.engine.records.terms import ModelInfo
from bh_studio.engine.rules import parse_rule
assert "torch" not in sys.modules
model = ModelInfo("a", "a", "", "", 2, 8, 2, 9, 9, "float32", "cpu", "", "", 9)
rows = HeldRows(np.random.default_rng(0).normal(size=(3, 2, 8)).astype("f4"))
(event,) = Clerk().answer(InspectToken(model, rows, 1, parse_rule("top-p:0.5")), CancelToken())
assert len(event.token.layers) == 2
try:
    list(Clerk().answer(JudgeSessionNull(model, parse_rule("bh:0.05")), CancelToken()))
except InputError:
    pass
assert {"transformers", "tokenizers", "PySide6"}.isdisjoint(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
