"""Which files of a repository are fetched, and which names are refused."""

from __future__ import annotations

import pytest

from bh_studio.engine.errors import EngineError
from bh_studio.engine.hub.files import HubFile, check_index, is_etag, is_inside, needed_files

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = "model.safetensors.index.json"
REPO = "owner/name"


def test_weights_in_parts_and_what_they_need() -> None:
    wanted = ["config.json", INDEX, "tokenizer.json", "chat_template.jinja", "LICENSE", *SHARDS]
    unwanted = [
        "pytorch_model-00001-of-00002.bin",
        "modeling_olmoe.py",
        "training_args.pt",
        "data.pkl",
        "model-q4.gguf",
        "consolidated.safetensors",
        "onnx/model.safetensors",
        ".gitattributes",
    ]
    assert sorted(needed_files([*unwanted, *wanted], REPO)) == sorted(wanted)


def test_one_file_of_weights_makes_others_superfluous() -> None:
    names = ["config.json", "model.safetensors", INDEX, *SHARDS]
    assert needed_files(names, REPO) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["config.json", "pytorch_model.bin"], "no weights in safetensors format"),
        (["model.safetensors"], "no config.json"),
        (["config.json", *SHARDS], f"no {INDEX}"),
        (["config.json", "model.safetensors", "a/../../b"], "outside its folder"),
    ],
)
def test_repositories_that_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        needed_files(names, REPO)


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../x", "a/../x", "a//b", "./x", "a/", "..\\x", "a\\b", "C:x", "c:/x"],
)
def test_names_that_leave_their_folder(name: str) -> None:
    assert not is_inside(name)


@pytest.mark.parametrize("name", ["config.json", "a/b.json", "..x", "x..", "runs/12:30/log"])
def test_names_that_stay_in_it(name: str) -> None:
    assert is_inside(name)


def test_hashes() -> None:
    assert is_etag("0a" * 20)
    assert is_etag("0a" * 32)
    assert not any(map(is_etag, ("0a" * 21, "0A" * 20, "../" + "0a" * 20, "", None, 5)))


def test_an_index_names_what_is_fetched() -> None:
    files = [HubFile(name, 1, "0a" * 32) for name in SHARDS]
    check_index(SHARDS, files, REPO)
    with pytest.raises(EngineError, match="does not hold"):
        check_index([*SHARDS, "../../evil.safetensors"], files, REPO)
