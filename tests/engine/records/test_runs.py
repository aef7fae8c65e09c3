"""Folders of runs: what is written comes back, also cut short, and nothing else is taken."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from itertools import chain, zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import msgspec
import numpy as np
import pytest
from msgspec import UNSET, UnsetType

import bh_studio
from bh_studio.engine.errors import InputError
from bh_studio.engine.files.lock import locked
from bh_studio.engine.records.decisions.drift import Drift
from bh_studio.engine.records.proofs.proof import Check, Proof
from bh_studio.engine.records.runs import kept
from bh_studio.engine.records.runs import writer as writer_module
from bh_studio.engine.records.runs.kept import KeptRun, kept_runs, new_run_folder, take_cut_off
from bh_studio.engine.records.runs.lines import (
    EVENTS,
    HEADER,
    EndLine,
    Line,
    NoticeLine,
    PromptLine,
    RunEnd,
    RunHeader,
    SideLine,
    TokenLine,
)
from bh_studio.engine.records.runs.reader import load_run, open_session, read_end
from bh_studio.engine.records.runs.size import HistorySize, history_size, remove_oldest
from bh_studio.engine.records.runs.writer import RunWriter
from bh_studio.engine.records.session import Session, SessionError, SideRecord
from bh_studio.engine.records.session_file import load_session, save_session
from bh_studio.engine.records.terms import FinishReason

FORMER = Path(__file__).parents[2] / "data" / "former" / "sessions"
SAVED = FORMER / "schema_3.bhsession"


@pytest.fixture(scope="module")
def session() -> Session:
    return load_session(SAVED)


def header_of(session: Session) -> RunHeader:
    return RunHeader(
        model=session.model,
        sides=session.sides,
        generation=session.generation,
        prompt=session.prompt,
        conversation=session.conversation,
        prompt_token_ids=tuple(record.prompt_token_ids for record in session.records),
        environment=session.environment,
        started_at=session.started_at,
    )


def lines_of(side: int, record: SideRecord) -> list[Line]:
    prompt = PromptLine(
        side, record.prompt_expert_counts.tolist(), record.prompt_raw_counts.tolist()
    )
    tokens = [
        TokenLine(side, token, text, used.tolist(), raw.tolist(), float(seconds))
        for token, text, used, raw, seconds in zip(
            record.token_ids,
            record.token_texts,
            record.expert_counts,
            record.raw_counts,
            record.token_seconds,
            strict=True,
        )
    ]
    return [prompt, *tokens, SideLine(side, "", record.finish_reason, record.drift)]


def written(session: Session, folder: Path, proof: Proof | UnsetType = UNSET) -> Path:
    """`folder` with the run that `session` is."""
    writer = RunWriter(folder, header_of(session))
    sides = [lines_of(side, record) for side, record in enumerate(session.records)]
    writer.add(NoticeLine("A fact."))
    for line in chain.from_iterable(zip_longest(*sides)):
        if line is not None:
            writer.add(line)
    writer.close(EndLine(RunEnd.COMPLETE, session.finished_at, proof=proof))
    assert not writer.problem
    return folder


@pytest.fixture
def folder(session: Session, tmp_path: Path) -> Path:
    return written(session, new_run_folder(tmp_path / "runs"))


def assert_equal(found: Session, expected: Session) -> None:
    for field in dataclasses.fields(Session):
        if field.name != "records":
            assert getattr(found, field.name) == getattr(expected, field.name)
    for one, other in zip(found.records, expected.records, strict=True):
        for field in dataclasses.fields(SideRecord):
            value, wanted = getattr(one, field.name), getattr(other, field.name)
            np.testing.assert_array_equal(value, wanted)
            assert getattr(value, "dtype", None) == getattr(wanted, "dtype", None)


def test_a_run_comes_back_as_the_session_that_it_was(session: Session, folder: Path) -> None:
    assert_equal(load_run(folder), session)
    assert sorted(path.name for path in folder.iterdir()) == [EVENTS, HEADER]
    again = bh_studio.read(folder)
    assert isinstance(again, Session)
    assert again.to_json() == session.to_json()
    assert open_session(SAVED).to_json() == session.to_json()


def with_drift(session: Session, layers: int) -> Session:
    drift = Drift(100, 0.2, 0.1, (0.05,) * layers, (0.5,) * layers)
    records = tuple(dataclasses.replace(record, drift=drift) for record in session.records)
    return dataclasses.replace(session, records=records)


def test_a_drift_comes_back_with_its_run(session: Session, tmp_path: Path) -> None:
    session = with_drift(session, session.model.layers)
    assert_equal(load_run(written(session, tmp_path / "run")), session)


def test_a_drift_of_another_model_is_refused(session: Session, tmp_path: Path) -> None:
    session = with_drift(session, session.model.layers + 1)
    with pytest.raises(SessionError, match=r"^run is damaged: .*drift"):
        load_run(written(session, tmp_path / "run"))


def test_a_proof_of_any_length_comes_back_with_its_run(session: Session, tmp_path: Path) -> None:
    long = "\N{LEAF FLUTTERING IN WIND}" * 500
    checks = (Check(long[:40], False, long, 2**24, 1024, 2**53, long),) * 12
    folder = written(session, tmp_path / "run", Proof(checks))
    assert_equal(load_run(folder), dataclasses.replace(session, proof=Proof(checks)))
    end = read_end(folder)
    assert end is not None
    assert (end.how, end.proof) == (RunEnd.COMPLETE, Proof(checks))
    whole = (folder / EVENTS).read_text()
    (folder / EVENTS).write_text(whole.replace('"layers":1024', '"layers":1025'))
    with pytest.raises(SessionError, match=r"run is damaged: line \d+ of its events.jsonl"):
        load_run(folder)


def test_a_run_as_far_as_it_came_can_be_saved_as_a_session(
    session: Session, folder: Path, tmp_path: Path
) -> None:
    whole = (folder / EVENTS).read_bytes()
    ends = [place for place, byte in enumerate(whole, start=1) if byte == ord("\n")]
    # At each end of a line, and within the line that follows.
    for end in [0, *ends[::7], *[end + 9 for end in ends[:-1:11]]]:
        (folder / EVENTS).write_bytes(whole[:end])
        found = load_run(folder)
        assert found.is_broken_off is (end < ends[-2])
        for one, other in zip(found.records, session.records, strict=True):
            tokens = len(one.token_ids)
            assert one.token_ids == other.token_ids[:tokens]
            np.testing.assert_array_equal(one.raw_counts, other.raw_counts[:tokens])
            assert one.prompt_token_ids == other.prompt_token_ids
        save_session(found, tmp_path / "saved.bhsession")
        assert_equal(load_session(tmp_path / "saved.bhsession"), found)


def test_while_a_run_is_written_it_can_be_read(session: Session, tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", header_of(session))
    deadline = time.monotonic() + 60
    while not (writer.folder / HEADER).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [len(record.token_ids) for record in load_run(writer.folder).records] == [0, 0]
    assert read_end(writer.folder) is None
    writer.close(EndLine(RunEnd.FAILED, session.finished_at, "Out of memory."))
    end = read_end(writer.folder)
    assert end == EndLine(RunEnd.FAILED, session.finished_at, "Out of memory.")


def test_held_back_characters_belong_to_the_last_token(session: Session, tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", header_of(session))
    for line in lines_of(0, session.records[0])[:-1]:
        writer.add(line)
    writer.add(SideLine(0, "�", FinishReason.STOPPED))
    writer.close(EndLine(RunEnd.STOPPED, session.finished_at))
    record = load_run(tmp_path / "run").records[0]
    assert record.text == session.records[0].text + "�"
    assert record.token_texts[-1] == session.records[0].token_texts[-1] + "�"


def changed_line(number: int, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        lines = (folder / EVENTS).read_bytes().splitlines()
        values = json.loads(lines[number])
        change(values)
        lines[number] = json.dumps(values).encode()
        (folder / EVENTS).write_bytes(b"\n".join(lines) + b"\n")

    return apply


def changed_header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        values = json.loads((folder / HEADER).read_bytes())
        change(values)
        (folder / HEADER).write_text(json.dumps(values))

    return apply


def swapped(folder: Path) -> None:
    lines = (folder / EVENTS).read_bytes().splitlines(keepends=True)
    (folder / EVENTS).write_bytes(b"".join([lines[0], lines[3], lines[1], *lines[4:]]))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / HEADER).unlink(), "is no folder of a run: it has no run.json"),
        (lambda folder: (folder / EVENTS).unlink(), "cannot be read"),
        (lambda folder: (folder / HEADER).write_bytes(b"{"), "its run.json is not valid JSON"),
        (lambda folder: (folder / HEADER).write_bytes(b"[1]"), "has format None"),
        (changed_header(lambda d: d.update(format=2)), "has format 2; this program reads format 1"),
        (changed_header(lambda d: d.update(format=True)), "has format True"),
        (changed_header(lambda d: d.pop("prompt")), "'prompt' is missing"),
        (changed_header(lambda d: d.update(sides=[])), "1 to 4 sides, .* got 0"),
        (changed_header(lambda d: d.update(sides=[None] * 5)), "1 to 4 sides, .* got 5"),
        (changed_header(lambda d: d.update(prompt="\ud800")), "a character that is no JSON"),
        (changed_header(lambda d: d["prompt_token_ids"].pop()), "its prompt is not that of each"),
        (changed_header(lambda d: d["prompt_token_ids"][0].append(-1)), "a token below 0"),
        (changed_header(lambda d: d["model"].update(layers=10**9)), "layers is 1000000000"),
        (
            changed_header(
                lambda d: d.update(
                    conversation={"system": "", "turns": [{"prompt": "a", "answers": ["b"]}]}
                )
            ),
            "a turn of its conversation",
        ),
        (changed_line(2, lambda d: d.update(side=2)), r"line 3 of its events.jsonl: .* no side 2"),
        (changed_line(2, lambda d: d.update(side=-1)), "there is no side -1"),
        (changed_line(2, lambda d: d.update(event="other")), "line 3 of its events.jsonl"),
        (changed_line(3, lambda d: d.update(token_id=-1)), "a token below 0"),
        (changed_line(3, lambda d: d.update(token_id=2**31)), "side A has a token that no model"),
        (
            changed_header(lambda d: d["prompt_token_ids"][0].__setitem__(0, 2**63)),
            "side A has a token that no model has",
        ),
        (changed_line(3, lambda d: d.update(token_id=1.5)), "line 4 of its events.jsonl"),
        (changed_line(3, lambda d: d["raw_counts"].pop()), "one count for each of"),
        (changed_line(3, lambda d: d.update(seconds=float("nan"))), "line 4 of its events"),
        (changed_line(3, lambda d: d.update(seconds=1e300)), "the times of side A do not rise"),
        (changed_line(3, lambda d: d["raw_counts"].__setitem__(0, 200)), "more experts than the"),
        (changed_line(3, lambda d: d["raw_counts"].__setitem__(0, 256)), "line 4 of its events"),
        (changed_line(1, lambda d: d["prompt_raw_counts"].pop()), "the counts of side A are not"),
        (swapped, "line 2 of its events.jsonl: it comes where it cannot"),
        (lambda folder: (folder / EVENTS).write_bytes(b"[" * 10**5 + b"\n"), "line 1 of its"),
    ],
)
def test_a_damaged_folder_is_refused_in_a_sentence(
    folder: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    damage(folder)
    with pytest.raises(SessionError, match=sentence) as caught:
        load_run(folder)
    assert str(caught.value).endswith(".")
    with pytest.raises(InputError, match=sentence):
        bh_studio.read(folder)


def test_what_a_later_version_adds_to_lines_is_left_out(session: Session, folder: Path) -> None:
    changed_line(2, lambda d: d.update(gates=[0.5]))(folder)
    assert_equal(load_run(folder), session)


def test_a_disk_that_refuses_stops_the_writing_alone(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter(tmp_path / "run", header_of(session))
    for line in lines_of(0, session.records[0])[:3]:
        writer.add(line)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer_module, "os", SimpleNamespace(fsync=full))
    writer.close(EndLine(RunEnd.COMPLETE, session.finished_at))
    assert writer.problem == "No space left on device."
    # Whoever looks for runs that were cut off finds no lock.
    assert sorted(path.name for path in writer.folder.iterdir()) == [EVENTS, HEADER]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_what_a_full_disk_refuses_is_said_in_a_sentence(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = Path.open

    def open_full(path: Path, *given: Any, **named: Any) -> Any:
        is_run = path.name == EVENTS
        return real_open(Path("/dev/full"), "wb") if is_run else real_open(path, *given, **named)

    uncaught: list[object] = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)
    monkeypatch.setattr(Path, "open", open_full)
    writer = RunWriter(tmp_path / "run", header_of(session))
    writer.add(lines_of(0, session.records[0])[0])
    writer.close(EndLine(RunEnd.COMPLETE, session.finished_at))
    assert writer.problem == "No space left on device."
    assert uncaught == []


@pytest.mark.skipif(os.name == "nt", reason="what is open cannot be removed there")
def test_a_folder_that_is_removed_while_its_run_goes_on_is_told(
    session: Session, tmp_path: Path
) -> None:
    writer = RunWriter(tmp_path / "run", header_of(session))
    lines = lines_of(0, session.records[0])
    writer.add(lines[0])
    while not (writer.folder / HEADER).exists():
        time.sleep(0.01)
    shutil.rmtree(writer.folder)
    writer.add(lines[1])
    writer.close(EndLine(RunEnd.COMPLETE, session.finished_at))
    assert writer.problem == "Its folder was removed."


def cut_off(folder: Path) -> None:
    """Leave `folder` as a program that was killed does."""
    data = (folder / EVENTS).read_bytes()
    (folder / EVENTS).write_bytes(data[: len(data) // 2])
    (folder / f".{EVENTS}.lock").write_bytes(b"")


def test_a_run_that_was_cut_off_is_found_once(session: Session, tmp_path: Path) -> None:
    history = tmp_path / "runs"
    folders = [written(session, new_run_folder(history)) for _ in range(4)]
    assert take_cut_off(history) == ()
    cut_off(folders[1])
    cut_off(folders[2])
    cut_off(folders[3])
    # Nothing had been said yet.
    (folders[3] / EVENTS).write_bytes(b"")
    with locked(folders[1] / EVENTS):
        (found,) = take_cut_off(history)
    assert (found.path, found.end, found.prompt) == (folders[2], RunEnd.CUT_OFF, session.prompt)
    assert take_cut_off(history) == ()
    cut_off(folders[1])
    assert [run.path for run in take_cut_off(history)] == [folders[1]]
    assert take_cut_off(history) == ()
    assert load_run(folders[2]).is_broken_off
    assert not list(history.rglob("*.lock"))


def test_a_run_whose_program_was_killed_is_listed_as_cut_off(
    session: Session, tmp_path: Path
) -> None:
    history = tmp_path / "runs"
    killed, moved, going_on = (written(session, new_run_folder(history)) for _ in range(3))
    for folder in (killed, moved, going_on):
        cut_off(folder)
    # Not everybody who copies a folder copies what is hidden in it.
    (moved / f".{EVENTS}.lock").unlink()
    with locked(going_on / EVENTS):
        found = {run.path: run.end for run in kept_runs(history, tmp_path)}
    assert found == {killed: RunEnd.CUT_OFF, moved: RunEnd.CUT_OFF, going_on: None}
    assert load_run(killed).is_broken_off


def test_where_there_are_no_locks_a_run_may_go_on(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(session, new_run_folder(tmp_path))
    cut_off(folder)
    before = (folder / EVENTS).read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    assert take_cut_off(tmp_path) == ()
    assert [run.end for run in kept_runs(tmp_path, tmp_path)] == [None]
    assert (folder / EVENTS).read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_what_is_no_file_in_a_folder_is_not_waited_for(session: Session, tmp_path: Path) -> None:
    good, bad = (written(session, new_run_folder(tmp_path)) for _ in range(2))
    cut_off(bad)
    (bad / EVENTS).unlink()
    os.mkfifo(bad / EVENTS)
    assert take_cut_off(tmp_path) == ()
    found: list[KeptRun] = []
    looks = threading.Thread(target=lambda: found.extend(kept_runs(tmp_path, tmp_path)))
    looks.daemon = True
    looks.start()
    looks.join(30)
    assert [run.path for run in found] == [good]


def test_what_a_link_leads_to_is_not_written_to(session: Session, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("the first line\nand a last one that has no end")
    folder = written(session, new_run_folder(tmp_path))
    cut_off(folder)
    (folder / EVENTS).unlink()
    (folder / EVENTS).symlink_to(notes)
    assert take_cut_off(tmp_path) == ()
    kept_runs(tmp_path, tmp_path)
    assert notes.read_text() == "the first line\nand a last one that has no end"


@pytest.mark.parametrize(
    "time",
    ["0001-01-01T00:00:00", "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", "soon"],
)
def test_a_run_of_a_time_that_cannot_be_takes_no_other_from_the_list(
    session: Session, tmp_path: Path, time: str
) -> None:
    good, bad = (written(session, new_run_folder(tmp_path / "runs")) for _ in range(2))
    changed_header(lambda d: d.update(started_at=time))(bad)
    former = tmp_path / "autosave"
    former.mkdir()
    save_session(dataclasses.replace(session, started_at=time), former / "a.bhsession")
    assert [run.path for run in kept_runs(tmp_path / "runs", former)] == [good]


def test_the_kept_runs_are_listed_newest_first_with_those_of_earlier_versions(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history, former = tmp_path / "runs", tmp_path / "autosave"
    assert kept_runs(history, former) == ()
    former.mkdir()
    shutil.copy(SAVED, former / "2026-01-02 03-04-05-006.bhsession")
    (former / "bad.bhsession").write_bytes(b"PK")
    for hour in (13, 11, 12):
        started = f"2030-01-02T{hour}:00:00.000+00:00"
        again = dataclasses.replace(session, prompt=f"at {hour}", started_at=started)
        written(again, history / "2030" / "01" / f"2030-01-02T{hour}-00-00_0a0b")
    (history / "2030" / "01" / "2030-01-02T14-00-00_0a0b").mkdir()
    bad = history / "2030" / "01" / "2030-01-02T15-00-00_0a0b"
    bad.mkdir()
    (bad / HEADER).write_text("{}")
    found = kept_runs(history, former)
    assert [run.prompt for run in found] == ["at 13", "at 12", "at 11", session.prompt]
    assert {run.end for run in found} == {RunEnd.COMPLETE}
    assert found[3].path.parent == former
    assert found[0].sides == session.sides
    monkeypatch.setattr(kept, "_MOST", 2)
    assert [run.prompt for run in kept_runs(history, former)] == ["at 13", "at 12"]


def test_lines_are_what_is_promised_of_their_format(session: Session, folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / EVENTS).read_text().splitlines()]
    assert [line["event"] for line in lines[:4]] == ["notice", "prompt", "prompt", "token"]
    assert lines[-1] == {
        "event": "ended", "how": "complete", "at": session.finished_at, "message": "",
    }  # fmt: skip
    header = json.loads((folder / HEADER).read_text())
    assert (header["format"], header["kind"]) == (1, "comparison")
    assert msgspec.json.decode(json.dumps(lines[3]).encode(), type=Line) == TokenLine(
        0,
        session.records[0].token_ids[0],
        session.records[0].token_texts[0],
        session.records[0].expert_counts[0].tolist(),
        session.records[0].raw_counts[0].tolist(),
        float(session.records[0].token_seconds[0]),
    )


def test_the_oldest_make_room_but_for_what_is_being_written(
    session: Session, tmp_path: Path
) -> None:
    history = tmp_path / "runs"
    assert history_size(history, 0) == HistorySize(0, 0)
    names = [f"2030-01-02T0{hour}-00-00_0a0b" for hour in range(1, 6)]
    for name in reversed(names):
        written(session, history / "2030" / "01" / name)
    (history / "2030" / "01" / "2030-01-02T00-00-00_0a0b").symlink_to(FORMER)
    (history / "2030" / "01" / "2029-of-another-program").mkdir()
    (one,) = {
        sum(path.stat().st_size for path in (history / "2030" / "01" / name).iterdir())
        for name in names
    }
    for wanted, surplus in ((5 * one, 0), (5 * one - 1, 1), (2 * one, 3), (0, 5)):
        assert history_size(history, wanted) == HistorySize(5 * one, surplus)
    with locked(history / "2030" / "01" / names[0] / EVENTS):
        assert remove_oldest(history, 3) == 2
    left = {path.name for path in (history / "2030" / "01").iterdir()}
    assert left == {
        names[0], names[3], names[4], "2030-01-02T00-00-00_0a0b", "2029-of-another-program",
    }  # fmt: skip
    assert remove_oldest(history, 9) == 3
    assert FORMER.is_dir()
