"""`bh-studio replay` and `inspect` on a session, as a person or a script runs them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from bh_studio import cli
from bh_studio.__main__ import build_parser
from bh_studio.cli import sessions
from bh_studio.engine.loading import load_model
from bh_studio.engine.records.session import Session
from bh_studio.engine.records.session_file import save_session
from bh_studio.engine.routing.recordings import save_recording
from bh_studio.engine.rules import format_rule, parse_rule
from tests.recorded_sessions import positions, recorded_session
from tests.tiny_olmoe import EXPERTS, LAYERS, TOP_K

OWN = "bh:0.3,max_k=4"
FORMER = Path(__file__).parents[2] / "data" / "former"
TOKENS = 12


@pytest.fixture(scope="module")
def session(checkpoint: str) -> Session:
    return recorded_session(load_model(checkpoint), (None, parse_rule(OWN)), tokens=TOKENS)


@pytest.fixture
def path(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The session as a file, which is read with its router logits."""
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    monkeypatch.setattr(sessions, "open_session", lambda _: session)
    return str(path)


def command(*arguments: str) -> int:
    return cli.run(build_parser().parse_args(arguments))


def line(out: str, start: str) -> list[str]:
    return next(row for row in out.splitlines() if row.startswith(start)).split()


# replay


def test_without_rules_each_side_is_replayed_with_its_own(
    path: str, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("replay", path) == 0
    out = capsys.readouterr().out
    pairs = positions(session, 0).size
    statistics = session.records[1].statistics()
    assert line(out, "the model's own *")[4:] == [
        "A", f"{TOP_K:.2f}", f"{TOP_K:.2f}", "-", "-", str(pairs), "of", str(pairs),
    ]  # fmt: skip
    means = [f"{statistics[name]['mean']:.2f}" for name in ("answer", "prompt")]
    assert line(out, f"{OWN} *")[2:5] == ["B", *means]
    assert line(out, f"{OWN} *")[-3:] == [str(positions(session, 1).size), "of", str(pairs)]
    assert "would differ" not in out
    assert "does not give" not in out


def test_another_rule_is_replayed_on_every_side_and_it_is_said_what_that_is(
    path: str, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("replay", path, "--rule", "top-k:2", "--rule", OWN, "--layers") == 0
    out = capsys.readouterr().out
    assert [row.split()[1] for row in out.splitlines() if row.startswith("top-k:2 ")] == ["A", "B"]
    assert line(out, f"{OWN} *")[2] == "B"
    assert "later layers would differ in a real run." in " ".join(out.split())
    assert "B, top-k:2\n   2.00  2.00  2.00\n" in out
    assert all(len(row) <= 100 for row in out.splitlines())
    twos = int((positions(session, 1) == 2).sum())
    rows = [row.split() for row in out.splitlines() if row.startswith("top-k:2 ")]
    assert rows[1][-3:] == [str(twos), "of", str(positions(session, 1).size)]


def test_a_session_is_replayed_as_json(
    path: str, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("replay", path, "--rule", OWN, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["session"] == {"file": "a.bhsession", "model": session.model.name}
    assert "would differ in a real run" in document["note"]
    other, own = document["rows"]
    assert (other["side"], other["is_own"], own["side"], own["is_own"]) == ("A", False, "B", True)
    assert own["equal_counts"] == own["counts"] == positions(session, 1).size
    assert own["statistics"] == session.records[1].statistics()


def test_own_counts_that_are_others_are_said_loudly(
    path: str,
    session: Session,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = session.records[1].expert_counts.copy()
    counts[3, 1] += 1
    changed = dataclasses.replace(session.records[1], expert_counts=counts)
    other = dataclasses.replace(session, records=(session.records[0], changed))
    monkeypatch.setattr(sessions, "open_session", lambda _: other)
    assert command("replay", path) == 0
    out = capsys.readouterr().out
    said = " ".join(out.split())
    assert "B: its own rule does not give all counts that it recorded." in said
    # Both are processors here, and may still be two.
    assert "decided on cpu where the session was made, and are replayed on the processor" in said
    assert "A: its own rule" not in out


def test_a_side_without_an_answer_is_left_out(
    path: str,
    session: Session,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = np.empty((0, LAYERS), np.uint8)
    silent = dataclasses.replace(
        session.records[0], text="", token_ids=(), token_texts=(), expert_counts=empty,
        raw_counts=empty, prompt_expert_counts=empty, prompt_raw_counts=empty,
        token_seconds=np.empty(0), router_logits=None,
    )  # fmt: skip
    sides = dataclasses.replace(session, records=(silent, session.records[1]))
    monkeypatch.setattr(sessions, "open_session", lambda _: sides)
    assert command("replay", path, "--rule", "top-k:2", "--json") == 0
    assert [row["side"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["B"]
    none = dataclasses.replace(session, records=(silent, silent))
    monkeypatch.setattr(sessions, "open_session", lambda _: none)
    assert command("replay", path) == 2
    assert "No side of " in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [
        ["--leave-one-out"],
        ["--skip", "1"],
        ["--top-k", "4"],
        ["--out", "a.json"],
        ["--save-definition", "a.json"],
    ],
)
def test_options_of_recordings_are_refused(
    given: list[str],
    path: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert command("replay", path, *given) == 2
    assert f"{given[0]} is for LOGITS.npz, not for a session." in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_the_help_says_what_goes_with_a_session(capsys: pytest.CaptureFixture[str]) -> None:
    for name, sentence in (
        ("replay", "With a session go --calibration, --rule, --layers and --json alone."),
        ("inspect", "(default: what the session had, if that is kept on this machine)"),
    ):
        with pytest.raises(SystemExit):
            build_parser().parse_args([name, "--help"])
        assert sentence in " ".join(capsys.readouterr().out.split())


# inspect


def test_a_token_is_a_line_a_layer(
    path: str, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("inspect", path, "--token", "3") == 0
    out = capsys.readouterr().out
    assert out.startswith("Side B, token 3 [")
    assert out.splitlines()[0].endswith(f"by {OWN}")
    record = session.records[1]
    for layer in range(LAYERS):
        number, count, raw, *experts = line(out, f"    {layer}")
        assert (number, count) == (str(layer), str(record.expert_counts[3, layer]))
        assert raw == str(record.raw_counts[3, layer])
        assert len(set(experts)) == int(count)
    assert "would differ" not in out


def test_a_layer_is_a_line_an_expert(
    path: str, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("inspect", path, "--token", "3", "--side", "B", "--layer", "1")
    assert command(*arguments) == 0
    out = capsys.readouterr().out
    assert "compared: p-value; threshold: alpha k / m." in " ".join(out.split())
    rows = [row.split() for row in out.splitlines()]
    rows = [row for row in rows if row and row[0].isdecimal()]
    assert [row[0] for row in rows] == [str(rank) for rank in range(1, EXPERTS + 1)]
    count = int(session.records[1].expert_counts[3, 1])
    assert [row[-1] == "*" for row in rows] == [n < count for n in range(EXPERTS)]
    assert command(*arguments, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    (layer,) = document["layers"]
    assert (layer["layer"], layer["count"]) == (1, count)
    assert [str(expert) for expert in layer["experts"]] == [row[1] for row in rows]
    assert document["is_own"] is True
    assert (document["side"], document["token"]) == ("B", 3)
    assert document["token_id"] == session.records[1].token_ids[3]


@pytest.mark.parametrize(
    "rule", ["hc:0.5", "top-k:2", "top-p:0.5", "min-p:0.3", "cut:0.1,score=logit", "entropy:0.8"]
)
def test_every_rule_has_a_table(rule: str, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--layer", "0"]):
        assert command("inspect", path, "--token", "0", "--rule", rule, *more) == 0
        out = capsys.readouterr().out
        assert f"by {format_rule(parse_rule(rule))}" in out
        assert "later layers would differ in a real run." in " ".join(out.split())
        assert "nan" not in out
        assert all(len(row) <= 100 for row in out.splitlines())


def test_the_models_own_routing_has_a_table_too(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("inspect", path, "--token", "0", "--side", "A", "--layer", "2") == 0
    out = capsys.readouterr().out
    assert "by the model's own" in out
    assert f"threshold: k ({TOP_K})." in " ".join(out.split())
    assert sum(row.endswith("*") for row in out.splitlines()) == TOP_K


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--token", "99"], "There is no token 99; the answer of side B has 12, counted from 0."),
        (["--token", "0", "--side", "D"], "There is no side D; this session has A, B."),
        (["--token", "0", "--layer", "3"], "There is no layer 3; "),
        (["--token", "0", "--rule", "top-k:17"], "top-k:17 cannot be replayed: max_k must not"),
        (["--token", "0", "--rule", "bh:0.1/0.2"], "alpha has 2 values for the 3 layers"),
        (
            ["--token", "0", "--calibration", "/none.npz"],
            "/none.npz cannot be used: No such file or directory.",
        ),
    ],
)
def test_bad_input_gets_one_sentence(
    arguments: list[str], sentence: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("inspect", path, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err.splitlines()[-1]


@pytest.mark.parametrize("name", ["replay", "inspect"])
@pytest.mark.parametrize(
    ("session", "sentence"),
    [
        (str(FORMER / "sessions" / "schema_4.bhsession"), "has no router logits"),
        (str(FORMER / "runs" / "format_1"), "has no router logits"),
        (str(FORMER), "is no folder of a run"),
        ("/none.bhsession", "/none.bhsession cannot be read: No such file or directory."),
    ],
)
def test_sessions_that_cannot_be_looked_into_are_refused(
    name: str, session: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(name, session, *(("--token", "0") if name == "inspect" else ())) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err.splitlines()[-1]


def test_a_calibration_file_can_hold_the_null(
    path: str,
    checkpoint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_recording(load_model(checkpoint).recording, tmp_path / "null.npz")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    for name in (["replay", path], ["inspect", path, "--token", "0"]):
        assert command(*name) == 2
        assert "nothing is kept of" in capsys.readouterr().err
        assert command(*name, "--calibration", str(tmp_path / "null.npz")) == 0
        capsys.readouterr()
