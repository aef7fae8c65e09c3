"""Definitions on disk: every kind comes back equal, and what is wrong is said."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bh_studio.engine.errors import InputError
from bh_studio.engine.protocol.definition_file import load_definition, save_definition
from bh_studio.engine.protocol.experiments import (
    Batch,
    Benchmark,
    Budget,
    Calibration,
    Comparison,
    Evaluation,
    Experiment,
    NullSource,
    Replay,
    SameText,
    Sweep,
    kind_of,
)
from bh_studio.engine.protocol.logits_files import LogitsFile
from bh_studio.engine.protocol.texts import Text, read_texts
from bh_studio.engine.records.rows import FilePrompt
from bh_studio.engine.records.terms import Conversation, GenerationParameters, Turn
from bh_studio.engine.rules import RuleParameters, ScoreName, parse_rule

GENERATION = GenerationParameters(7, temperature=0.5, seed=2**62)
CONVERSATION = Conversation("Be brief. 😀", (Turn("Who?", ("A fox", "")),))
RULE = parse_rule("storey:0.01/0.02,null=pooled,min_k=2,weights=match")
TALE, POEM = Text("tale.txt", "Once upon a time.\n"), Text("poem.txt", "Ein Wort — ein Glanz\n")
LOGITS, NULL = LogitsFile("logits.npz", b"PK\x00\xff"), LogitsFile("null.npz", b"PK")
DEFINITIONS: tuple[Experiment, ...] = (
    Comparison(
        prompt=" A\u00a0b ", sides=(None, RULE), generation=GENERATION, conversation=CONVERSATION
    ),
    Sweep(prompts=("a", "b"), sides=(None, RuleParameters(), RULE), generation=GENERATION, seeds=3),
    Batch(
        prompts=(FilePrompt(3, "a", {"n": [1, None], "x": {"y": 0.5}}),),
        prompts_sha256="0" * 64,
        prompts_field="turns",
        sides=(None, RULE),
        generation=GENERATION,
    ),
    Evaluation(texts=(TALE, POEM), rules=(RULE, parse_rule("top-k:12")), window=64, stride=8),
    Budget(target=4.5, rule=parse_rule("bh"), fit=(TALE,), check=(POEM,), by_layer=True),
    Calibration(texts=(POEM,), factors=(ScoreName.SENSITIVITY,)),
    Benchmark(rounds=2, prefill_tokens=100),
    Replay(logits=LOGITS, null=NullSource.LEAVE_ONE_OUT, skip=3, rules=(RULE,)),
    Replay(logits=LOGITS, null=NULL, top_k=4),
    SameText(text=POEM, sides=(RULE, None, parse_rule("top-k:12"))),
)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    """The files, all but one beside the definitions."""
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    paths: dict[Text | LogitsFile, Path] = {
        TALE: tmp_path / "in" / TALE.name,
        POEM: tmp_path / "elsewhere" / POEM.name,
        LOGITS: tmp_path / "in" / LOGITS.name,
        NULL: tmp_path / "in" / NULL.name,
    }
    for file, path in paths.items():
        content = file.content
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return {file.sha256: path for file, path in paths.items()}


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda d: kind_of(d))
def test_a_definition_survives_its_file(
    definition: Experiment, sources: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "in" / "saved.json"
    save_definition(definition, path, sources)
    assert load_definition(path) == definition
    assert load_definition(path).settings() == definition.settings()


def test_texts_are_named_relative_where_the_folder_can_move(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "in" / "saved.json"
    save_definition(DEFINITIONS[3], path, sources)
    document = json.loads(path.read_text())
    assert document["texts"] == [
        {"path": "tale.txt", "sha256": TALE.sha256},
        {"path": str((tmp_path / "elsewhere" / "poem.txt").resolve()), "sha256": POEM.sha256},
    ]
    assert document["rules"][1] == "top-k:12"
    moved = (tmp_path / "in").rename(tmp_path / "moved")
    assert load_definition(moved / "saved.json") == DEFINITIONS[3]


def test_what_a_definition_leaves_out_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(
        '{"schema_version": 1, "kind": "comparison", "prompt": "Once", '
        '"sides": [null, "bh:0.01"], "generation": {"max_new_tokens": 9}}'
    )
    assert load_definition(path) == Comparison(
        prompt="Once",
        sides=(None, RuleParameters(level=0.01)),
        generation=GenerationParameters(9),
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "holiday"}, "is no definition of an experiment.*one of comparison, sweep"),
        ({"settings": {}}, "is a result, not the definition"),
        ({"kind": ["sweep"]}, "is no definition of an experiment"),
        ({"schema_version": None}, "a later version"),
        ({"schema_version": 2}, "a later version"),
        ({"schema_version": True}, "a later version"),
        ({"window": float("nan")}, "cannot be run: it has a number"),
        ({"\ud800": 1}, "cannot be run: it has a number or a character"),
        ({"": 1}, "A field without a name is not known"),
        ({"rules": ["bh:2"]}, "bh:2"),
        ({"rules": [7]}, r"rules\[0\] is 7"),
        ({"window": 0}, "window must be at least 1"),
        ({"window": "64"}, "window is the string '64', not a whole number"),
        ({"windows": 64}, "windows is not known"),
        ({"texts": "tale.txt"}, "texts is no file"),
        ({"texts": [{"path": "tale.txt"}]}, r"texts\[0\] is no file"),
        ({"texts": [{"path": "gone.txt", "sha256": ""}]}, "gone.txt cannot be read"),
        ({"texts": [{"path": "tale.txt", "sha256": "0" * 64}]}, "is not the file that was meant"),
        ({"texts": [{"path": "a\0b", "sha256": ""}]}, r"texts\[0\] has a path that no file can"),
        ({"texts": [{"path": ".", "sha256": ""}]}, "in is no file"),
        ({"texts": []}, "cannot be run: it names no text to read"),
        ({"texts": [{"path": "blank.txt", "sha256": ""}]}, "blank.txt is empty"),
        ({"texts": [{"path": "a" * 5000, "sha256": ""}]}, "cannot be read"),
    ],
)
def test_what_cannot_be_run_is_said(
    change: dict[str, Any], sentence: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "in" / "saved.json"
    save_definition(DEFINITIONS[3], path, sources)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    (tmp_path / "in" / "blank.txt").write_bytes(b"\xef\xbb\xbf \r\n")
    with pytest.raises(InputError, match=sentence):
        load_definition(path)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_definition_that_asks_nothing_is_refused(number: int, tmp_path: Path) -> None:
    path = tmp_path / "saved.json"
    save_definition(DEFINITIONS[number], path, {})
    document = json.loads(path.read_text())
    if number == 0:
        document["prompt"] = " \u2028"
    elif number == 1:
        document["prompts"] = ["", "\n"]
    else:
        document["prompts"][0]["prompt"] = " "
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"cannot be run: the prompt is empty\."):
        load_definition(path)


@pytest.mark.parametrize(
    ("data", "former"),
    [
        (b"Once\r\nupon\ra time.\n", "Once\nupon\na time.\n"),
        (b"\xef\xbb\xbfOnce\nupon\n", "\ufeffOnce\nupon\n"),
        (b"\xef\xbb\xbfOnce\r\nupon", "\ufeffOnce\nupon"),
    ],
)
def test_a_text_of_a_definition_is_read_as_when_that_was_saved(
    data: bytes, former: str, tmp_path: Path
) -> None:
    """Earlier versions read each end of a line as "\\n", and a mark as part of the text."""
    tale, path = tmp_path / "tale.txt", tmp_path / "saved.json"
    tale.write_bytes(data)
    (today,) = read_texts([tale])
    assert today.content == data.decode("utf-8-sig")
    for text in (today, Text(tale.name, former)):
        saved = Evaluation(texts=(text,), rules=(RULE,))
        save_definition(saved, path, {text.sha256: tale})
        assert load_definition(path) == saved
    tale.write_bytes(data + b"!")
    with pytest.raises(InputError, match="is not the file that was meant"):
        load_definition(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_no_file(sources: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "in" / "saved.json"
    save_definition(DEFINITIONS[3], path, sources)
    (tmp_path / "in" / "tale.txt").unlink()
    os.mkfifo(tmp_path / "in" / "tale.txt")
    with pytest.raises(InputError, match=r"tale\.txt is no file"):
        load_definition(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"sweep"', "[" * 100_000, "{}"])
def test_other_files_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(InputError, match="other"):
        load_definition(path)
