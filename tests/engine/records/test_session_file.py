"""Session files: a round trip without loss, and nothing accepted that is not one."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED

import numpy as np
import pytest

from bh_studio.engine.records import session_file
from bh_studio.engine.records.decisions.drift import Drift
from bh_studio.engine.records.proofs.proof import Check, Proof
from bh_studio.engine.records.session import (
    SCHEMA_VERSION,
    Session,
    SessionError,
    SideRecord,
)
from bh_studio.engine.records.session_file import (
    load_session,
    save_session,
)
from bh_studio.engine.records.sessions.exports import export_csv, export_json
from bh_studio.engine.records.terms import (
    FORMER_SIDE_NAMES,
    Conversation,
    FinishReason,
    GenerationParameters,
    ModelInfo,
    Turn,
)
from bh_studio.engine.rules.parameters import RuleParameters
from tests.damaged_arrays import (
    SMALL,
    WAYS,
    little_memory,
    unpacks_to_more_than_it_says,
    with_member,
)

LAYERS, PROMPT_TOKENS = 3, 4
CONVERSATION = Conversation(
    "Be brief. 😀", (Turn("Who?", ("A\nmodel", "")), Turn("<b>", ("\x00", "ü")))
)


def record(
    token_ids: tuple[int, ...],
    texts: tuple[str, ...],
    seed: int,
    prompt_tokens: int = PROMPT_TOKENS,
) -> SideRecord:
    generator = np.random.default_rng(seed)
    rows = len(token_ids)
    prompt_rows = prompt_tokens - 1 if rows else 0
    raw = generator.integers(0, 12, (rows, LAYERS), dtype=np.uint8)
    prompt_raw = generator.integers(0, 12, (prompt_rows, LAYERS), dtype=np.uint8)
    return SideRecord(
        prompt_token_ids=tuple(range(1, prompt_tokens + 1)),
        text="".join(texts),
        token_ids=token_ids,
        token_texts=texts,
        expert_counts=raw.clip(1, 8),
        raw_counts=raw,
        prompt_expert_counts=prompt_raw.clip(1, 8),
        prompt_raw_counts=prompt_raw,
        token_seconds=np.cumsum(generator.random(rows)),
        finish_reason=FinishReason.MAX_NEW_TOKENS if rows else FinishReason.STOPPED,
    )


@pytest.fixture
def session() -> Session:
    return Session(
        model=ModelInfo(
            id="embedded", name="tiny", architecture="OlmoeForCausalLM", fingerprint="f" * 32,
            layers=LAYERS, experts=16, top_k=8, context_length=64, parameter_count=10,
            dtype="float32", device="cpu", expert_path="bh_selected", null_sha256="0" * 64,
            null_samples=1000,
        ),
        sides=(None, RuleParameters(level=0.01)),
        generation=GenerationParameters(seed=3),
        prompt="Once “upon” a time 😀",
        conversation=None,
        records=(
            record((5, 6, 7), ("", " 日本", "<b>\x00"), 0),
            record((5, 9), (" a", "\n"), 1),
        ),
        environment={"python": "3.11", "packages": {"torch": "2.13.0"}},
        started_at="2026-11-23T10:00:00.000+00:00",
        finished_at="2026-11-23T10:00:01.000+00:00",
    )  # fmt: skip


PROOF = Proof(
    (
        Check("repeat", True, "one answer with another", 6, LAYERS, 120),
        Check("experts of B", False, "ü", 5, LAYERS, 15, "At token 1, in layer 0, 3 ran."),
        Check("model restored", None, "", 0, 0, 0, "It was stopped."),
    )
)


def with_second(session: Session, record: SideRecord) -> Session:
    return dataclasses.replace(session, records=(session.records[0], record))


def test_a_session_survives_its_file(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    again = load_session(path)
    assert again.to_json() == session.to_json()
    for side, expected in enumerate(session.records):
        found = again.records[side]
        for name in ("raw_counts", "prompt_expert_counts", "prompt_raw_counts", "token_seconds"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
            assert getattr(found, name).dtype == getattr(expected, name).dtype
    assert [file.name for file in tmp_path.iterdir()] == ["a.bhsession"]


def test_a_side_without_tokens_survives_too(session: Session, tmp_path: Path) -> None:
    session = with_second(session, record((), (), 2))
    save_session(session, tmp_path / "a.bhsession")
    again = load_session(tmp_path / "a.bhsession")
    assert again.records[1].time_to_first_token_s is None
    assert again.to_json() == session.to_json()


def test_a_conversation_survives_with_sides_that_read_differently(
    session: Session, tmp_path: Path
) -> None:
    session = with_second(session, record((5, 9), (" a", "\n"), 1, prompt_tokens=9))
    chat = dataclasses.replace(session, conversation=CONVERSATION)
    save_session(chat, tmp_path / "a.bhsession")
    again = load_session(tmp_path / "a.bhsession")
    assert again.conversation == CONVERSATION
    assert again.to_json() == chat.to_json()
    assert again.to_json()["schema_version"] == 4
    assert len(again.records[0].prompt_token_ids) == 4
    assert len(again.records[1].prompt_token_ids) == 9
    texts = tuple(record.text for record in session.records)
    assert again.continued == Conversation(
        CONVERSATION.system, (*CONVERSATION.turns, Turn(session.prompt, texts))
    )


def test_a_long_session_survives_its_file(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Less room beside the arrays, so that their size counts as it does in sessions of megabytes.
    monkeypatch.setattr(session_file, "_ROOM", 2**12)
    side = record((5,) * 2000, ("x",) * 2000, 0)
    counts = np.random.default_rng(0).integers(0, 256, (2000, LAYERS), dtype=np.uint8)
    side = dataclasses.replace(side, expert_counts=counts, raw_counts=counts[::-1])
    model = dataclasses.replace(session.model, experts=255, context_length=4000)
    session = dataclasses.replace(session, model=model, records=(side, side))
    save_session(session, tmp_path / "a.bhsession")
    assert load_session(tmp_path / "a.bhsession").to_json() == session.to_json()


def test_the_smallest_session_survives_its_file(session: Session, tmp_path: Path) -> None:
    """One of everything, all of the context read, and a clock that did not move."""
    ones, none = np.ones((1, 1), np.uint8), np.ones((0, 1), np.uint8)
    side = SideRecord((1,), "x", (2,), ("x",), ones, ones, none, none, np.zeros(1),
                      FinishReason.CONTEXT_LENGTH)  # fmt: skip
    model = dataclasses.replace(session.model, layers=1, experts=1, top_k=1, context_length=2)
    rule = RuleParameters(max_k=1)
    session = dataclasses.replace(session, model=model, sides=(None, rule), records=(side, side))
    save_session(session, tmp_path / "a.bhsession")
    assert load_session(tmp_path / "a.bhsession").to_json() == session.to_json()


def test_a_session_is_packed_and_its_text_can_be_read_by_people(
    session: Session, tmp_path: Path
) -> None:
    save_session(session, tmp_path / "a.bhsession")
    with zipfile.ZipFile(tmp_path / "a.bhsession") as bundle:
        assert {info.compress_type for info in bundle.infolist()} == {zipfile.ZIP_DEFLATED}
        assert "“upon” a time 😀" in bundle.read("session.json").decode()


def test_what_could_not_be_opened_again_is_not_saved(session: Session, tmp_path: Path) -> None:
    session = dataclasses.replace(session, environment={"load": float("inf")})
    with pytest.raises(ValueError, match="JSON"):
        save_session(session, tmp_path / "a.bhsession")
    assert not list(tmp_path.iterdir())


def test_a_proof_survives_its_file(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "a.bhsession"
    save_session(dataclasses.replace(session, proof=PROOF), path)
    assert load_session(path).proof == PROOF
    proof = load_session(path).to_json()["proof"]
    assert [check["passed"] for check in proof["checks"]] == [True, False, None]
    # As the program wrote it before there were proofs.
    assert load_session(rewritten(path, lambda document: document.pop("proof"))).proof is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["checks"].clear(), "a proof has 0 checks"),
        (lambda p: p["checks"].extend(p["checks"] * 4), "a proof has 15 checks"),
        (lambda p: p.update(surprise=1), "proof.surprise is not known"),
        (lambda p: p["checks"][0].update(surprise=1), r"proof\.checks\[0\]\.surprise is not known"),
        (lambda p: p["checks"][0].pop("numbers"), "'numbers' is missing"),
        (lambda p: p["checks"][0].update(passed="yes"), r"proof\.checks\[0\]\.passed is"),
        (lambda p: p["checks"][0].update(passed=False), "has passed and a problem, or neither"),
        (lambda p: p["checks"][1].update(passed=True), "has passed and a problem, or neither"),
        (lambda p: p["checks"][2].update(problem=""), "has passed and a problem, or neither"),
        (lambda p: p["checks"][0].update(positions=-1), "positions of a check is -1"),
        (lambda p: p["checks"][0].update(positions=2**24 + 1), "positions of a check is 16777217"),
        (lambda p: p["checks"][0].update(layers=1025), "layers of a check is 1025"),
        (lambda p: p["checks"][0].update(numbers=2**53 + 1), "numbers of a check is"),
        (lambda p: p["checks"][0].update(numbers=1.5), r"numbers is 1\.5, not a whole number"),
        (lambda p: p["checks"][0].update(numbers=10**400), "numbers of a check is 1000"),
        (lambda p: p["checks"][0].update(name=""), "a check has no name"),
        (lambda p: p["checks"][0].update(name="n" * 41), "name of a check is no text"),
        (lambda p: p["checks"][0].update(compared="\x1b[2J"), "compared of a check is no text"),
        (lambda p: p["checks"][1].update(problem="p" * 501), "problem of a check is no text"),
    ],
)
def test_a_damaged_proof_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "a.bhsession"
    save_session(dataclasses.replace(session, proof=PROOF), path)
    with pytest.raises(SessionError, match=rf"^a\.bhsession is damaged: .*{message}"):
        load_session(rewritten(path, lambda document: change(document["proof"])))


def with_drift(session: Session) -> Session:
    drift = Drift(100, 0.2, 0.1, (0.04, 0.05, 0.1), (0.5, 0.45, 0.6))
    first, *others = session.records
    return dataclasses.replace(session, records=(dataclasses.replace(first, drift=drift), *others))


def test_a_drift_survives_its_file(session: Session, tmp_path: Path) -> None:
    path, session = tmp_path / "a.bhsession", with_drift(session)
    save_session(session, path)
    found = [record.drift for record in load_session(path).records]
    assert found == [record.drift for record in session.records]
    assert load_session(path).to_json()["sides"][0]["drift"]["verdict"] == "unlike"
    # As the program wrote it before there were drifts.

    def without(document: dict[str, Any]) -> None:
        for side in document["sides"]:
            del side["drift"]

    older = rewritten(path, without)
    assert [record.drift for record in load_session(older).records] == [None] * len(found)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(surprise=1),
        lambda d: d.update(tokens="many"),
        lambda d: d.update(limit=None),
        lambda d: d["tail_shares"].pop(),
        lambda d: [d["tail_shares"].pop(), d["mean_places"].pop()],
        lambda d: d.pop("distance"),
    ],
)
def test_a_damaged_drift_is_refused(
    change: Callable[[dict[str, Any]], None], session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "a.bhsession"
    save_session(with_drift(session), path)
    with pytest.raises(SessionError, match=r"^a\.bhsession is damaged: "):
        load_session(rewritten(path, lambda document: change(document["sides"][0]["drift"])))


@pytest.mark.parametrize("value", [1, True, [], "unlike", {}])
def test_what_is_no_drift_is_refused(value: object, session: Session, tmp_path: Path) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    with pytest.raises(SessionError, match="is damaged"):
        load_session(rewritten(path, lambda document: document["sides"][0].update(drift=value)))


@pytest.mark.parametrize("value", [1, True, [], "passed", {}])
def test_what_is_no_proof_is_refused(value: object, session: Session, tmp_path: Path) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    with pytest.raises(SessionError, match="is damaged"):
        load_session(rewritten(path, lambda document: document.update(proof=value)))


def save_as_version_3(session: Session, path: Path) -> None:
    """Write `session`, of two sides, as the program did while it knew no others."""
    save_session(session, path)
    with zipfile.ZipFile(path) as bundle:
        document = json.loads(bundle.read("session.json"))
    sides = dict(zip(FORMER_SIDE_NAMES, document.pop("sides"), strict=True))
    rules = [side.pop("rule") for side in sides.values()]
    differences = [side.pop("first_difference") for side in sides.values()]
    for side, record in zip(sides.values(), session.records, strict=True):
        del side["speed_ratio"]
        side["expert_counts"] = record.expert_counts.tolist()
    arrays: dict[str, Any] = {
        f"{name}_{field}": getattr(record, field)
        for name, record in zip(FORMER_SIDE_NAMES, session.records, strict=True)
        for field in session_file._ARRAY_TYPES
    }
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    document |= {
        "schema_version": 3,
        "parameters": {"rule": rules[1], "generation": document.pop("generation")},
        "sides": sides,
        "first_difference": differences[1],
    }
    for turn in document["conversation"]["turns"] if document["conversation"] else ():
        turn |= dict(zip(FORMER_SIDE_NAMES, turn.pop("answers"), strict=True))
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("session.json", json.dumps(document))
        bundle.writestr("arrays.npz", packed.getvalue())


def to_version_3(document: dict[str, Any]) -> None:
    """As it is."""


def to_version_2(document: dict[str, Any]) -> None:
    """As the program wrote it before there were conversations."""
    document["schema_version"] = 2
    assert document.pop("conversation") is None
    to_early_version_3(document)
    for name in ("revision", "has_chat_template"):
        document["model"].pop(name)
    for side in document["sides"].values():
        document["prompt_token_ids"] = side.pop("prompt_token_ids")


def to_early_version_3(document: dict[str, Any]) -> None:
    """As the program wrote it before it said how tokens are read and whether weights are scaled."""
    assert document["model"].pop("decode_path") == ""
    assert document["model"].pop("norm_topk_prob") is None


def to_version_1(document: dict[str, Any]) -> None:
    """As the program wrote it when BH was the only rule."""
    to_version_2(document)
    document["schema_version"] = 1
    rule = document["parameters"]["rule"]
    rule["alpha"] = rule.pop("level")
    for name in set(rule) - {"alpha", "temperature", "min_k", "max_k", "mode", "weights"}:
        rule.pop(name)


@pytest.mark.parametrize("age", [to_version_3, to_early_version_3, to_version_2, to_version_1])
def test_older_sessions_are_read(
    age: Callable[[dict[str, Any]], None], session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "a.bhsession"
    save_as_version_3(session, path)
    again = load_session(rewritten(path, age))
    assert again.to_json() == session.to_json()


def test_a_conversation_of_version_3_is_read(session: Session, tmp_path: Path) -> None:
    chat = dataclasses.replace(session, conversation=CONVERSATION)
    save_as_version_3(chat, tmp_path / "a.bhsession")
    assert load_session(tmp_path / "a.bhsession").to_json() == chat.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["sides"]["bh"]["expert_counts"][0].__setitem__(0, 99), "side B disagree"),
        (lambda d: d["sides"].pop("bh"), "'bh' is missing"),
        (lambda d: d["parameters"].pop("rule"), "'rule' is missing"),
        (lambda d: d.update(conversation={"system": "", "turns": ["x"]}), "a value in it is not"),
        (
            lambda d: d.update(
                conversation={"system": "", "turns": [{"prompt": "", "baseline": "", "bh": None}]}
            ),
            "a text is None",
        ),
    ],
)
def test_damage_in_sessions_of_version_3_is_named(
    change: Callable[[dict[str, Any]], None], message: str, session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "a.bhsession"
    save_as_version_3(session, path)
    with pytest.raises(SessionError, match=message):
        load_session(rewritten(path, change))


def test_the_forward_that_read_the_tokens_is_kept(session: Session, tmp_path: Path) -> None:
    model = dataclasses.replace(session.model, decode_path="transformers' forward (a reason)")
    save_session(dataclasses.replace(session, model=model), tmp_path / "a.bhsession")
    assert load_session(tmp_path / "a.bhsession").model == model


@pytest.mark.parametrize("age", [to_version_2, to_version_1])
@pytest.mark.parametrize("name", ["prompt_token_ids", "sides", "parameters"])
def test_damage_in_older_sessions_is_named(
    age: Callable[[dict[str, Any]], None], name: str, session: Session, tmp_path: Path
) -> None:
    def damage(document: dict[str, Any]) -> None:
        age(document)
        document[name] = None

    path = tmp_path / "a.bhsession"
    save_as_version_3(session, path)
    with pytest.raises(SessionError, match="is damaged"):
        load_session(rewritten(path, damage))


def test_the_documented_names_are_there(session: Session) -> None:
    document = json.loads(json.dumps(session.to_json(), allow_nan=False))
    for name in ("schema_version", "model", "generation", "prompt", "sides", "environment"):
        assert name in document
    own, rule = document["sides"]
    for side in (own, rule):
        for name in ("text", "token_ids", "token_texts", "finish_reason", "tokens_per_second",
                     "time_to_first_token_s", "statistics"):  # fmt: skip
            assert name in side
        # Each number stands in one of the two files.
        assert "expert_counts" not in side
    assert (own["rule"], own["first_difference"], own["speed_ratio"]) == (None, None, 1.0)
    assert (rule["rule"]["level"], rule["first_difference"]) == (0.01, 1)
    assert rule["speed_ratio"] == rule["tokens_per_second"] / own["tokens_per_second"]


@pytest.mark.parametrize("number", [1, 3, 4])
def test_one_to_four_sides_survive_their_file(
    number: int, session: Session, tmp_path: Path
) -> None:
    sides = (RuleParameters(max_k=3), None, RuleParameters(level=0.01), RuleParameters(max_k=4))
    records = tuple(record((5, side), (" a", "b"), side) for side in range(number))
    turns = (Turn("Who?", ("A", "B", "C", "D")[:number]),)
    session = dataclasses.replace(
        session, sides=sides[:number], records=records, conversation=Conversation("", turns)
    )
    save_session(session, tmp_path / "a.bhsession")
    again = load_session(tmp_path / "a.bhsession")
    assert again.sides == session.sides
    assert again.conversation == session.conversation
    assert again.to_json() == session.to_json()
    assert again.first_differences == (None, 1, 1, 1)[:number]
    for found, expected in zip(again.records, session.records, strict=True):
        np.testing.assert_array_equal(found.raw_counts, expected.raw_counts)
    with zipfile.ZipFile(tmp_path / "a.bhsession") as bundle:
        arrays = np.load(io.BytesIO(bundle.read("arrays.npz")))
        assert {name.partition("_")[0] for name in arrays.files} == set("0123"[:number])


def test_a_failing_write_leaves_the_old_file(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    before = path.read_bytes()

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_session(session, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The session file with its session.json changed."""
    with zipfile.ZipFile(path) as bundle:
        document = json.loads(bundle.read("session.json"))
        arrays = bundle.read("arrays.npz")
    change(document)
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("session.json", json.dumps(document))
        bundle.writestr("arrays.npz", arrays)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema_version=99), r"^a\.bhsession has schema version 99;"),
        (lambda d: d.update(schema_version=SCHEMA_VERSION + 1), "reads 1 to 4"),
        (lambda d: d.update(schema_version=0), "schema version 0"),
        (lambda d: d.pop("prompt"), "'prompt' is missing"),
        (lambda d: d["model"].pop("layers"), "layers"),
        (lambda d: d["model"].update(layers=7), r"\(3, 7\)"),
        (lambda d: d["sides"][1]["rule"].update(level=5), "alpha"),
        (lambda d: d["sides"][1]["rule"].update(surprise=1), "surprise"),
        (lambda d: d["sides"][1].update(token_ids=[1]), r"\(2, 3\), not \(1, 3\)"),
        (lambda d: d["sides"][1].update(text="another"), "token texts of side B"),
        (lambda d: d["model"].update(name=["x"]), "name is"),
        (lambda d: d["model"].update(context_length=6), "side A has more tokens than the 6"),
        (lambda d: d["model"].update(context_length=10**9), "context_length is 1000000000"),
        (lambda d: d["generation"].update(seed=True), "seed is True"),
        (lambda d: d["sides"].clear(), "1 to 4 sides, .* got 0"),
        (lambda d: d["sides"].extend(d["sides"][:1] * 3), "1 to 4 sides, .* got 5"),
        (lambda d: d["sides"].append(d["sides"][0]), "2_expert_counts"),
        (lambda d: d["sides"][0].pop("rule"), "'rule' is missing"),
        (lambda d: d["sides"][1].update(rule="bh:0.01"), r"sides\[1\]\.rule is the string"),
        (lambda d: d["sides"][1].update(finish_reason="bored"), "bored"),
        (lambda d: d["model"].update(layers=10**9), "layers is"),
        (lambda d: d["model"].update(layers=0), r"layers is 0\."),
        (lambda d: d["model"].update(context_length=0), r"context_length is 0\."),
        (lambda d: d["model"].update(top_k=0), "top_k is 0 of 16"),
        (lambda d: d["model"].update(top_k=10**400), "top_k is"),
        (lambda d: d["model"].update(experts=2), "top_k is 8 of 2"),
        (lambda d: d["sides"][1]["rule"].update(max_k=10**9), "16 experts"),
        (lambda d: d["sides"][1]["rule"].update(temperature=10**400), "too large"),
        (lambda d: d["generation"].update(max_new_tokens=10**9), "max_new_tokens"),
        (lambda d: d.update(prompt=None), "a text is None"),
        (lambda d: d.pop("conversation"), "'conversation' is missing"),
        (lambda d: d.update(conversation=[]), "list"),
        (lambda d: d.update(conversation={"system": "", "turns": ["x"]}), "str"),
        (lambda d: d.update(conversation={"system": 1, "turns": []}), "a text is 1"),
        (
            lambda d: d.update(
                conversation={"system": "", "turns": [{"prompt": "", "answers": ["", None]}]}
            ),
            "a text is None",
        ),
        (
            lambda d: d.update(
                conversation={"system": "", "turns": [{"prompt": "", "answers": [""]}]}
            ),
            "a turn of its conversation has not one answer",
        ),
        (lambda d: d["sides"][1].update(prompt_token_ids=[1]), r"\(3, 3\), not \(0, 3\)"),
        (lambda d: d["sides"][1].pop("prompt_token_ids"), "'prompt_token_ids' is missing"),
        (lambda d: d["model"].update(has_chat_template=1), "has_chat_template is 1"),
        (lambda d: d["model"].update(layers="3"), r"model\.layers is the string '3', not a whole"),
        (lambda d: d["model"].update(surprise=1), r"model\.surprise is not known"),
        (lambda d: d["sides"][1]["rule"].update(level=[]), "alpha has no value"),
        (lambda d: d["sides"][1]["rule"].update(level={}), "an object, not a number or a list"),
        (
            lambda d: d["sides"][1]["rule"].update(score="taste"),
            r"sides\[1\]\.rule\.score is 'taste'",
        ),
        (
            lambda d: d.update(conversation={"system": "\ud800", "turns": []}),
            r"its session\.json has a number or a character that is no JSON",
        ),
        (lambda d: d.update(prompt="\ud800"), "a character that is no JSON"),
        (lambda d: d["model"].update(expert_path="\ud800"), "a character that is no JSON"),
        (lambda d: d["environment"].update(system=float("inf")), "a number or a character"),
        (
            lambda d: d["sides"][1]["token_ids"].__setitem__(0, float("inf")),
            "a number or a character that is no JSON",
        ),
        (
            lambda d: d["sides"][1]["token_ids"].__setitem__(1, 9.7),
            r"sides\[1\]\.token_ids\[1\] is 9\.7, not a whole number",
        ),
        (lambda d: d["sides"][1].update(token_ids="59"), "the string '59', not a list"),
        (
            lambda d: d["sides"][1]["prompt_token_ids"].__setitem__(0, "1"),
            r"sides\[1\]\.prompt_token_ids\[0\] is the string '1', not a whole number",
        ),
        (
            lambda d: d["sides"][1].update(token_texts=["", 12], text="12"),
            r"sides\[1\]\.token_texts\[1\] is wrong: a text is 12",
        ),
        (
            lambda d: d["sides"][1]["token_ids"].__setitem__(0, 2**31),
            "side B has a token that no model has",
        ),
        (
            lambda d: d["sides"][1]["prompt_token_ids"].__setitem__(0, -1),
            "side B has a token that no model has",
        ),
        (lambda d: d.update(finished_at=None), "a text is None"),
        (lambda d: d.update(environment=[["a", 1]]), "environment is a list, not an object"),
        (lambda d: d.update(sides=0.5), "a value in it is not"),
        (lambda d: d.pop("started_at"), r"'started_at' is missing\.$"),
    ],
)
def test_damaged_documents_are_named(
    change: Callable[[dict[str, Any]], None], message: str, session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    with pytest.raises(SessionError, match=message):
        load_session(rewritten(path, change))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("token_seconds", lambda a: a * np.nan, "times of side B"),
        ("token_seconds", lambda a: a[::-1].copy(), "times of side B"),
        ("token_seconds", lambda a: a - 10, "times of side B"),
        ("prompt_raw_counts", lambda a: a + 100, "16 there are"),
    ],
)
def test_impossible_arrays_are_named(
    name: str, change: Callable[[np.ndarray], np.ndarray], message: str, session: Session,
    tmp_path: Path,
) -> None:  # fmt: skip
    bh = session.records[1]
    changed: dict[str, Any] = {name: change(getattr(bh, name))}
    other = with_second(session, dataclasses.replace(bh, **changed))
    path = tmp_path / "a.bhsession"
    arrays = {
        f"{side}_{field}": getattr(record, field)
        for side, record in enumerate(other.records)
        for field in session_file._ARRAY_TYPES
    }
    save_session(session, path)
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    with zipfile.ZipFile(path) as bundle:
        document = bundle.read("session.json")
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("session.json", document)
        bundle.writestr("arrays.npz", packed.getvalue())
    with pytest.raises(SessionError, match=message):
        load_session(path)


def test_the_order_of_an_array_in_memory_does_not_matter(session: Session, tmp_path: Path) -> None:
    bh = session.records[1]
    turned = dataclasses.replace(bh, prompt_raw_counts=np.asfortranarray(bh.prompt_raw_counts))
    save_session(with_second(session, turned), tmp_path / "a.bhsession")
    found = load_session(tmp_path / "a.bhsession").records[1].prompt_raw_counts
    np.testing.assert_array_equal(found, bh.prompt_raw_counts)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.bhsession"
    path.write_text("hello")
    with pytest.raises(SessionError, match="not a zip"):
        load_session(path)
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("other.txt", "")
    with pytest.raises(SessionError, match=r"no session\.json"):
        load_session(path)
    for text in ("{", "[1]", '"x"', "[" * 100_000):
        with zipfile.ZipFile(path, "w") as bundle:
            bundle.writestr("session.json", text)
            bundle.writestr("arrays.npz", b"")
        with pytest.raises(SessionError):
            load_session(path)


def test_pickled_arrays_are_never_read(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    with zipfile.ZipFile(path) as bundle:
        document = bundle.read("session.json")
    packed = io.BytesIO()
    arrays: dict[str, Any] = {"0_expert_counts": np.array([{}], dtype=object)}
    np.savez(packed, **arrays)
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("session.json", document)
        bundle.writestr("arrays.npz", packed.getvalue())
    with pytest.raises(SessionError, match="damaged"):
        load_session(path)


def test_an_array_that_claims_to_be_huge_is_not_made(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    with zipfile.ZipFile(path) as bundle:
        document, arrays = bundle.read("session.json"), bundle.read("arrays.npz")
    # The same length, another shape: 3 rows become 3e12.
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(arrays)) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            new.writestr(
                name, old.read(name).replace(b"(3, 3), }" + b" " * 12, b"(3000000000000, 3), }")
            )
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("session.json", document)
        bundle.writestr("arrays.npz", packed.getvalue())
    with pytest.raises(SessionError, match="3000000000000"):
        load_session(path)


def with_arrays(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """The session file with its arrays.npz changed."""
    with zipfile.ZipFile(path) as bundle:
        document, arrays = bundle.read("session.json"), bundle.read("arrays.npz")
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("session.json", document)
        bundle.writestr("arrays.npz", change(arrays))
    return path


@pytest.mark.parametrize("way", WAYS)
def test_damaged_arrays_are_named_and_not_unpacked(
    way: str, session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    with_arrays(path, lambda arrays: WAYS[way](arrays, "1_raw_counts.npy"))
    with little_memory(), pytest.raises(SessionError, match=r"^a\.bhsession is damaged: .*[.…]$"):
        load_session(path)


def test_arrays_are_unpacked_no_further_than_they_say(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    with_arrays(path, lambda arrays: unpacks_to_more_than_it_says(arrays, "1_raw_counts.npy"))
    with little_memory():
        assert load_session(path).to_json() == session.to_json()


def test_arrays_are_unpacked_no_further_than_the_document_needs(
    session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    with_arrays(path, lambda arrays: with_member(arrays, "other.npy", bytes(SMALL), ZIP_STORED))
    with little_memory(), pytest.raises(SessionError, match=r"arrays\.npz would unpack to"):
        load_session(path)


def test_a_document_of_nothing_is_not_unpacked(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    with zipfile.ZipFile(path) as bundle:
        document, arrays = json.loads(bundle.read("session.json")), bundle.read("arrays.npz")
    document["environment"] = {"x": 0}
    text = json.dumps(document).replace('"x": 0', '"x": [' + "[]," * 10**7 + "0]")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("session.json", text)
        bundle.writestr("arrays.npz", arrays)
    with little_memory(), pytest.raises(SessionError, match=r"^a\.bhsession is damaged: session\."):
        load_session(path)


def test_a_zip_bomb_is_not_unpacked(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    monkeypatch.setattr(session_file, "_MAX_MEMBER_BYTES", 100)
    with pytest.raises(SessionError, match="more than is allowed"):
        load_session(path)


def test_a_damaged_byte_is_noticed(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "a.bhsession"
    save_session(session, path)
    data = bytearray(path.read_bytes())
    for position in range(40, len(data) - 200, 97):
        broken = bytearray(data)
        broken[position] ^= 0xFF
        path.write_bytes(broken)
        with contextlib.suppress(SessionError):
            assert load_session(path).to_json() == session.to_json()


def test_exports(session: Session, tmp_path: Path) -> None:
    export_json(session, tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert document == json.loads(json.dumps(session.to_json()))
    export_csv(session, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "side", "rule", "token", "token_id", "layer", "experts", "experts_before_clamp",
        "expert_ids", "log_probability", "rank",
    ]  # fmt: skip
    assert {row[name] for row in rows for name in ("expert_ids", "log_probability", "rank")} == {""}
    assert [row["side"] for row in rows] == ["A"] * 9 + ["B"] * 6
    assert [row["rule"] for row in rows] == [""] * 9 + ["bh:0.01"] * 6
    assert (rows[4]["token"], rows[4]["token_id"]) == ("1", "6")
    assert len(rows) == (3 + 2) * LAYERS
    assert rows[4]["layer"] == "1"
    assert int(rows[4]["experts"]) == session.records[0].expert_counts[1, 1]
    assert int(rows[4]["experts_before_clamp"]) == session.records[0].raw_counts[1, 1]
