"""What a comparison keeps of each position comes back from its session file and from its folder."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bh_studio.engine.execution.recorded_routing import RecordedRouting
from bh_studio.engine.execution.run_keeping import kept
from bh_studio.engine.experiments.runner import run
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.protocol.events import Event, Finished, KeptIn
from bh_studio.engine.protocol.experiments import Comparison
from bh_studio.engine.protocol.requests import InspectToken
from bh_studio.engine.records.decisions.routed_experts import NO_EXPERT
from bh_studio.engine.records.decisions.router_rows import rows_name
from bh_studio.engine.records.decisions.token_inspection import InspectedLayer
from bh_studio.engine.records.runs.lines import EVENTS
from bh_studio.engine.records.runs.reader import load_run
from bh_studio.engine.records.session import Session, SessionError, SideRecord
from bh_studio.engine.records.session_file import load_session, save_session
from bh_studio.engine.records.sessions.exports import export_csv, export_routed_experts
from bh_studio.engine.records.terms import GenerationParameters, Keep
from bh_studio.engine.routing.drift import drift_of
from bh_studio.engine.routing.replay import replay
from bh_studio.engine.rules.parameters import Mode, RuleParameters
from bh_studio.engine.rules.text import parse_rule

RULES = (
    "bh:0.05", "bh:0.2,mode=analyze", "bh:0.05,null=pooled,weights=renormalize", "by:0.2",
    "storey:0.05", "hc:0.5", "top-k:5", "top-p:0.3,max_k=10", "min-p:0.1,weights=match",
    "cut:0.04", "entropy:0.8", "bh:0.05,score=logit",
)  # fmt: skip
# As the service has it: its nulls are sorted once.
ROUTING = RecordedRouting()
SIDES = (None, *map(parse_rule, ("bh:0.05", "cut:0.04,max_k=12", "bh:0.2,mode=analyze")))


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("embedded")


def comparison(**given: Any) -> Comparison:
    return Comparison(
        **{
            "prompt": "Once upon a time there was",
            "sides": SIDES,
            "generation": GenerationParameters(6),
            **given,
        }
    )


def events_of(loaded: LoadedModel, history: Path, **given: Any) -> tuple[list[Event], Session]:
    events = list(kept(run(loaded, comparison(**given)), history))
    (session,) = [event.document for event in events if isinstance(event, Finished)]
    return events, session


@pytest.fixture(scope="module")
def both(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Path]:
    """A session of four sides, and the folder of its run."""
    events, session = events_of(loaded, tmp_path_factory.mktemp("history"))
    (folder,) = [event.folder for event in events if isinstance(event, KeptIn)]
    return session, folder


@pytest.fixture
def session(both: tuple[Session, Path]) -> Session:
    return both[0]


def all_rows(record: SideRecord) -> np.ndarray:
    assert record.router_logits is not None
    return record.router_logits.rows(0, record.router_logits.shape[0])


def assert_equal(found: Session, expected: Session) -> None:
    assert found.to_json() == expected.to_json()
    for one, other in zip(found.records, expected.records, strict=True):
        assert one.keeps is Keep.LOGITS
        np.testing.assert_array_equal(all_rows(one), all_rows(other))
        assert one.routed_experts is not None
        np.testing.assert_array_equal(one.routed_experts, other.routed_experts)
        assert one.choices is not None
        for field in dataclasses.fields(one.choices):
            left, right = (getattr(choices, field.name) for choices in (one.choices, other.choices))
            np.testing.assert_array_equal(left, right)
            assert left.dtype == right.dtype


def test_a_session_file_holds_all_of_it_and_is_read_where_it_lies(
    session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    found = load_session(path)
    assert_equal(found, session)
    rows = found.records[1].router_logits
    assert rows is not None
    for position in range(rows.shape[0]):
        expected = all_rows(session.records[1])[position]
        np.testing.assert_array_equal(rows.rows(position, position + 1), expected[None])
    # Also where it is saved from, onto itself.
    save_session(found, path)
    assert_equal(found, session)
    assert_equal(load_session(path), session)
    with zipfile.ZipFile(path) as bundle:
        assert "expert_counts" not in bundle.read("session.json").decode()
        sizes = {info.filename: info.file_size for info in bundle.infolist()}
    layers, experts = session.model.layers, session.model.experts
    positions = len(session.records[0].prompt_token_ids) + 5
    assert sizes["0_router_logits.f32"] == positions * layers * experts * 4


def test_the_folder_of_a_run_holds_all_of_it(both: tuple[Session, Path], tmp_path: Path) -> None:
    session, folder = both
    assert_equal(load_run(folder), session)
    # Its export is a session file as any other.
    save_session(load_run(folder), tmp_path / "a.bhsession")
    assert_equal(load_session(tmp_path / "a.bhsession"), session)


def test_a_run_that_was_cut_off_has_what_its_lines_speak_of(
    both: tuple[Session, Path], tmp_path: Path
) -> None:
    session, folder = both
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    lines = (folder / EVENTS).read_bytes().splitlines(keepends=True)
    (tmp_path / EVENTS).write_bytes(b"".join(lines[:-9]) + lines[-9][:30])
    for record, whole in zip(load_run(tmp_path).records, session.records, strict=True):
        read = len(record.prompt_token_ids) - 1 + len(record.token_ids)
        assert len(record.token_ids) < len(whole.token_ids)
        np.testing.assert_array_equal(all_rows(record), all_rows(whole)[:read])
        assert record.routed_experts is not None
        assert len(record.routed_experts) == read
    # Logits that are not all there are none; the rest stays.
    short = tmp_path / rows_name(2)
    short.write_bytes(short.read_bytes()[:-20000])
    records = load_run(tmp_path).records
    assert [record.keeps for record in records] == [
        Keep.LOGITS, Keep.LOGITS, Keep.COUNTS, Keep.LOGITS,
    ]  # fmt: skip
    short.unlink()
    short.symlink_to(folder / rows_name(2))
    assert load_run(tmp_path).records[2].router_logits is None


def first_choice(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """Changes what the first token of a run says of its choice."""

    def changed(events: bytes) -> bytes:
        lines = events.splitlines(keepends=True)
        number = next(n for n, line in enumerate(lines) if b'"choice"' in line)
        values = json.loads(lines[number])
        change(values["choice"])
        lines[number] = json.dumps(values).encode() + b"\n"
        return b"".join(lines)

    return changed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["top_ids"].pop(), "one number of alternatives"),
        (lambda c: c["top_log_probabilities"].pop(), "one number of alternatives"),
        (lambda c: c.update(log_probability=1e300), "its probabilities are none"),
        (lambda c: c.update(top_log_probabilities=[-1e300] * 5), "its probabilities are none"),
        (lambda c: c.update(rank=0), "its ranks or alternatives are none"),
        (lambda c: c.update(rank=2**40), "a value in it is not what it should be"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_choices_that_no_run_can_have_made_are_refused(
    change: Callable[[dict[str, Any]], object], said: str, both: tuple[Session, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    for path in both[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    events = tmp_path / EVENTS
    events.write_bytes(first_choice(change)(events.read_bytes()))
    with pytest.raises(SessionError, match=said):
        load_run(tmp_path)


def test_logits_are_left_out_on_wish(loaded: LoadedModel, tmp_path: Path) -> None:
    events, session = events_of(loaded, tmp_path / "history", keep=Keep.COUNTS)
    (folder,) = [event.folder for event in events if isinstance(event, KeptIn)]
    assert not list(folder.glob("*.f32"))
    save_session(session, tmp_path / "a.bhsession")
    for found in (session, load_run(folder), load_session(tmp_path / "a.bhsession")):
        assert [record.keeps for record in found.records] == [Keep.COUNTS] * 4
    assert session.to_json()["sides"][0]["keeps"] == "counts"


def inspected(
    session: Session, record: SideRecord, position: int, rule: RuleParameters
) -> tuple[InspectedLayer, ...]:
    """What the window draws of a position."""
    asked = InspectToken(session.model, record.router_logits, position, rule)
    return ROUTING.inspect(asked).layers


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rule", RULES)
def test_counts_experts_and_logits_of_every_token_agree(
    rule: str, seed: int, loaded: LoadedModel, tmp_path: Path
) -> None:
    parameters = parse_rule(rule)
    generation = GenerationParameters(6, seed=seed, temperature=1.5)
    _, session = events_of(
        loaded, tmp_path, sides=(None, parameters), generation=generation, prompt="The king " * seed
        or "Once",
    )  # fmt: skip
    save_session(session, tmp_path / "a.bhsession")
    own, other = load_session(tmp_path / "a.bhsession").records
    stored = np.concatenate([other.prompt_expert_counts, other.expert_counts])
    raw = np.concatenate([other.prompt_raw_counts, other.raw_counts])
    logits = all_rows(other).swapaxes(0, 1)
    again = replay(logits, parameters, loaded.recording, session.model.top_k)
    np.testing.assert_array_equal(again.counts, stored)
    np.testing.assert_array_equal(again.raw_counts, raw)
    drawn = [inspected(session, other, position, parameters) for position in range(len(stored))]
    np.testing.assert_array_equal([[layer.count for layer in layers] for layers in drawn], stored)
    np.testing.assert_array_equal([[layer.raw_count for layer in layers] for layers in drawn], raw)
    assert other.routed_experts is not None
    ran = (other.routed_experts != NO_EXPERT).sum(-1)
    analyzes = parameters.mode is Mode.ANALYZE
    np.testing.assert_array_equal(ran, session.model.top_k if analyzes else stored)
    assert own.routed_experts is not None
    most_probable = np.argsort(-all_rows(own), axis=-1, kind="stable")[..., :8]
    np.testing.assert_array_equal(np.sort(own.routed_experts), np.sort(most_probable))


Members = dict[str, bytes]


def members_of(path: Path) -> Members:
    with zipfile.ZipFile(path) as bundle:
        return {name: bundle.read(name) for name in bundle.namelist()}


def arrays_changed(members: Members, **changes: Callable[[np.ndarray], np.ndarray]) -> None:
    arrays = dict(np.load(io.BytesIO(members["arrays.npz"])))
    for name, change in changes.items():
        arrays[f"1_{name}"] = change(arrays[f"1_{name}"])
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    members["arrays.npz"] = packed.getvalue()


def keeps(members: Members, what: object) -> None:
    document = json.loads(members["session.json"])
    document["sides"][1]["keeps"] = what
    members["session.json"] = json.dumps(document).encode()


LOGITS = "1_router_logits.f32"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.pop(LOGITS), r"^a\.bhsession is damaged: it holds no 1_router_logits\.f32\.$"),
        (lambda m: m.pop("arrays.npz"), r"^a\.bhsession is damaged: it holds no arrays\.npz\.$"),
        (lambda m: m.update({LOGITS: m[LOGITS][:-4]}), "that can be read where they lie"),
        (lambda m: m.update({LOGITS: m[LOGITS] + b"1234"}), "that can be read where they lie"),
        (lambda m: keeps(m, "everything"), "keeps"),
        (lambda m: keeps(m, 3), "keeps"),
        (
            lambda m: arrays_changed(m, routed_experts=lambda a: a[:-1]),
            "not those of its positions",
        ),
        (lambda m: arrays_changed(m, routed_experts=lambda a: a * 0), "names an expert twice"),
        (lambda m: arrays_changed(m, routed_experts=lambda a: a | 64), "names more experts"),
        (
            lambda m: arrays_changed(m, routed_experts=lambda a: a[..., ::-1].copy()),
            "behind an unused slot",
        ),
        (
            lambda m: arrays_changed(m, routed_experts=lambda a: np.repeat(a, 40, axis=2)),
            "its experts are",
        ),
        (lambda m: arrays_changed(m, ranks=lambda a: a * 0), "its ranks or alternatives"),
        (lambda m: arrays_changed(m, ranks=lambda a: a[1:]), "its choices are not those"),
        (lambda m: arrays_changed(m, top_ids=lambda a: a - 9000), "its ranks or alternatives"),
        (lambda m: arrays_changed(m, log_probabilities=lambda a: -a), "its probabilities are none"),
        (
            lambda m: arrays_changed(m, top_log_probabilities=lambda a: a * np.nan),
            "its probabilities are none",
        ),
        (
            lambda m: arrays_changed(m, top_ids=lambda a: np.repeat(a, 2, axis=1)),
            "its choices are",
        ),
    ],
)
def test_what_cannot_have_been_decided_is_refused(
    change: Callable[[Members], None], said: str, session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    members = members_of(path)
    change(members)
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    with pytest.raises(SessionError, match=said):
        load_session(path)


def test_packed_logits_are_refused(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    members = members_of(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    with pytest.raises(SessionError, match="that can be read where they lie"):
        load_session(path)


def test_logits_that_are_no_numbers_are_refused_when_they_are_read(
    session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as bundle:
        data = bundle.read(LOGITS)
    at = content.index(data)
    path.write_bytes(content[:at] + b"\xff" * 4 + content[at + 4 :])
    rows = load_session(path).records[1].router_logits
    assert rows is not None
    rows.rows(1, 2)
    with pytest.raises(ValueError, match="are not finite"):
        rows.rows(0, 1)


def test_a_file_that_became_shorter_is_told(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    rows = load_session(path).records[3].router_logits
    assert rows is not None
    with path.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ValueError, match=r"a\.bhsession has become shorter"):
        rows.rows(0, 1)


def test_exports_say_which_experts_ran(session: Session, tmp_path: Path) -> None:
    export_routed_experts(session, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        for letter, record in zip("ABCD", session.records, strict=True):
            ran, token_ids = arrays[f"{letter}_routed_experts"], arrays[f"{letter}_token_ids"]
            experts = record.routed_experts
            assert experts is not None
            assert ran.dtype == np.int32
            np.testing.assert_array_equal(ran == -1, experts == NO_EXPERT)
            np.testing.assert_array_equal(ran[ran >= 0], experts[experts != NO_EXPERT])
            read = (*record.prompt_token_ids, *record.token_ids)[:-1]
            assert token_ids.tolist() == list(read)
    export_csv(session, tmp_path / "a.csv")
    last = (tmp_path / "a.csv").read_text().splitlines()[-1].split(",")
    record = session.records[3]
    assert record.routed_experts is not None
    assert record.choices is not None
    assert last[-3] == " ".join(map(str, record.routed_experts[-1, -1]))
    assert float(last[-2]) == float(record.choices.log_probabilities[-1])
    assert int(last[-1]) == record.choices.ranks[-1]


def test_each_side_is_judged_by_what_it_read_and_wrote(
    loaded: LoadedModel, session: Session, tmp_path: Path
) -> None:
    for record in session.records:
        logits = record.router_logits
        assert logits is not None
        assert record.drift == drift_of(loaded.recording, logits.rows(0, logits.shape[0]))
        assert record.drift is not None
        assert record.drift.verdict == "too short to tell"
    _, counted = events_of(loaded, tmp_path, keep=Keep.COUNTS)
    assert [record.drift for record in counted.records] == [None] * len(SIDES)
