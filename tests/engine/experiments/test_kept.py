"""Experiments whose rows are kept: what is on disk when, going on, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bh_studio.engine.errors import CancelToken, EngineError, InputError
from bh_studio.engine.experiments.kept import run_kept
from bh_studio.engine.experiments.runner import run
from bh_studio.engine.loading import LoadedModel, load_model
from bh_studio.engine.moe import row_products
from bh_studio.engine.protocol.events import (
    ExperimentEvent,
    Finished,
    Progress,
    RowReady,
    TokenGenerated,
)
from bh_studio.engine.protocol.experiments import Experiment, Sweep
from bh_studio.engine.records.journal import Journal, Row
from bh_studio.engine.records.result_document import file_of, result_document
from bh_studio.engine.records.terms import Conversation
from tests.engine.experiments.answers import GENERATION, PROMPT, RULES, content
from tests.engine.experiments.running import result_of
from tests.tiny_olmoe import save_tiny_chat_checkpoint

SWEEP = Sweep(prompts=(PROMPT,), sides=(None, *RULES), generation=GENERATION)
OTHER = Sweep(prompts=("The king",), sides=(None, *RULES), generation=GENERATION)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "r.json"


def lines(out: Path) -> list[Row]:
    """The header and the rows on the disk."""
    journal = out.with_name(f"{out.name}.rows.jsonl")
    return [json.loads(line) for line in journal.read_bytes().splitlines()]


def events(
    loaded: LoadedModel, out: Path | None, definition: Experiment = SWEEP
) -> list[ExperimentEvent]:
    with Journal(out) as journal:
        return list(run_kept(loaded, definition, journal))


def leave(loaded: LoadedModel, out: Path, rows: int) -> None:
    """What a run leaves whose reader goes away after so many rows."""
    with Journal(out) as journal:
        for event in run_kept(loaded, SWEEP, journal):
            if isinstance(event, RowReady):
                rows -= 1
            if not rows:
                break


def change_header(out: Path, **changes: Any) -> None:
    header, *rows = lines(out)
    journal = out.with_name(f"{out.name}.rows.jsonl")
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in ({**header, **changes}, *rows)))


def test_a_row_is_on_disk_before_it_is_told(loaded: LoadedModel, out: Path) -> None:
    told = []
    with Journal(out) as journal:
        for event in run_kept(loaded, SWEEP, journal):
            if isinstance(event, RowReady):
                told.append({"key": event.key, **event.row})
                assert lines(out)[1:] == told
    assert len(told) == 4
    header = lines(out)[0]
    assert (header["kind"], header["schema_version"]) == ("sweep", 2)
    assert header["settings"] == {**SWEEP.settings(), "prompt_format": "plain text"}
    assert header["model"]["fingerprint"] == loaded.info.fingerprint
    assert header["computation"]["threads"] == torch.get_num_threads()
    assert "started_at" in header
    assert header["environment"]["packages"]["torch"] == torch.__version__


def test_the_events_are_those_of_the_experiment(loaded: LoadedModel, out: Path) -> None:
    def shape(event: ExperimentEvent) -> object:
        return event if isinstance(event, Progress) else (type(event), getattr(event, "key", None))

    plain = [shape(event) for event in run(loaded, SWEEP)]
    assert [shape(event) for event in events(loaded, out)] == plain
    assert [shape(event) for event in events(loaded, None)] == plain


def test_a_second_call_goes_on(loaded: LoadedModel, out: Path) -> None:
    leave(loaded, out, 2)
    before = lines(out)
    first, *middle, finished = events(loaded, out)
    assert first == Progress("answers", 2, 4)
    assert [event.key for event in middle if isinstance(event, RowReady)] == ["0 0 2", "0 0 3"]
    assert lines(out)[:3] == before
    assert isinstance(finished, Finished)
    whole = result_of(loaded, SWEEP)
    for row, other in zip(finished.document.rows(), whole.rows(), strict=True):
        assert content(row.answer) == content(other.answer)


def test_a_finished_result_is_told_and_nothing_is_computed(loaded: LoadedModel, out: Path) -> None:
    with Journal(out) as journal:
        *_, last = run_kept(loaded, SWEEP, journal)
        assert isinstance(last, Finished)
        document = result_document(journal, last.document)
        assert journal.finish(file_of(document), holds_rows=True)
    with Journal(out) as journal:
        first, last = run_kept(loaded, SWEEP, journal)
        assert first == Progress("answers", 4, 4)
        assert isinstance(last, Finished)
        assert result_document(journal, last.document) == json.loads(out.read_bytes()) == document


def test_a_cancelled_run_keeps_its_rows(loaded: LoadedModel, out: Path) -> None:
    cancel = CancelToken()
    with Journal(out) as journal:
        for event in run_kept(loaded, SWEEP, journal, cancel):
            if isinstance(event, TokenGenerated) and len(journal.rows) == 1:
                cancel.cancel()
        assert isinstance(event, Finished)
        assert not event.is_complete
    assert [row["key"] for row in lines(out)[1:]] == ["0 0 0"]


def test_a_row_that_the_disk_refuses_is_not_told(
    loaded: LoadedModel, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Journal.add

    def refuse(journal: Journal, key: str, row: Row) -> None:
        if journal.rows:
            raise EngineError("The disk is full.")
        add(journal, key, row)

    monkeypatch.setattr(Journal, "add", refuse)
    told = []

    def listen() -> None:
        with Journal(out) as journal:
            for event in run_kept(loaded, SWEEP, journal):
                if isinstance(event, RowReady):
                    told.append(event.key)

    with pytest.raises(EngineError, match="disk is full"):
        listen()
    assert told == [row["key"] for row in lines(out)[1:]] == ["0 0 0"]


def test_other_settings_and_another_model_are_refused(loaded: LoadedModel, out: Path) -> None:
    leave(loaded, out, 1)
    before = lines(out)
    with pytest.raises(InputError, match="prompts"):
        events(loaded, out, OTHER)
    assert lines(out) == before
    change_header(out, model={**before[0]["model"], "fingerprint": "another"})
    with pytest.raises(InputError, match="model fingerprint"):
        events(loaded, out)


@pytest.fixture
def own_computation(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads and row products that are the test's own, on a machine with four processors."""
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr(row_products, "_fastest", {})
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("own_computation")
def test_the_computation_of_the_rows_there_are_is_taken_over(
    loaded: LoadedModel, out: Path
) -> None:
    torch.set_num_threads(1)
    leave(loaded, out, 1)
    change_header(
        out, computation={"threads": 1, "row_products": {"float32": row_products.LINEAR.name}}
    )
    torch.set_num_threads(2)
    events(loaded, None)
    assert (torch.get_num_threads(), row_products.chosen()) == (2, {})
    events(loaded, out)
    assert torch.get_num_threads() == 1
    assert row_products.chosen() == {"float32": row_products.LINEAR.name}


@pytest.mark.usefixtures("own_computation")
@pytest.mark.parametrize(
    ("computation", "sentence"),
    [
        ({"threads": 9, "row_products": {}}, "9 threads; this machine has 4"),
        ({"threads": 1, "row_products": {"float32": "nobody's"}}, "nobody's"),
    ],
)
def test_a_computation_that_this_machine_cannot_make_is_refused(
    computation: dict[str, Any], sentence: str, loaded: LoadedModel, out: Path
) -> None:
    leave(loaded, out, 1)
    change_header(out, computation=computation)
    before = lines(out)
    with pytest.raises(EngineError, match=sentence):
        events(loaded, out)
    assert lines(out) == before


def test_what_the_definition_leaves_open_is_kept_as_the_model_settles_it(
    tmp_path: Path, out: Path
) -> None:
    chat = load_model(str(save_tiny_chat_checkpoint(tmp_path / "chat")))
    left_open = Sweep(prompts=("Who?",), sides=(None, RULES[0]), generation=GENERATION)
    events(chat, out, left_open)
    assert lines(out)[0]["settings"]["prompt_format"] == "chat"
    for conversation, said in ((None, "plain text"), (Conversation("Be brief."), "chat")):
        decided = Sweep(
            prompts=("Who?",), sides=(None, RULES[0]), generation=GENERATION,
            conversation=conversation,
        )  # fmt: skip
        place = tmp_path / f"{said}.json"
        events(chat, place, decided)
        assert lines(place)[0]["settings"] == decided.settings()
        assert lines(place)[0]["settings"]["prompt_format"] == said
