"""Names of what lies beside a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from bh_studio.engine.files.beside import beside


def test_what_lies_beside_has_the_name_of_the_file(tmp_path: Path) -> None:
    assert beside(tmp_path / "a.json", ".", ".lock") == tmp_path / ".a.json.lock"


@pytest.mark.parametrize("character", ["a", "ä", "\N{EARTH GLOBE EUROPE-AFRICA}"])
@pytest.mark.parametrize("size", [240, 250, 255])
def test_it_fits_wherever_the_file_does(tmp_path: Path, character: str, size: int) -> None:
    stem = character * ((size - 5) // len(character.encode()))
    path = tmp_path / f"{stem}.json"
    path.touch()
    neighbour = beside(path, ".", ".rows.jsonl")
    neighbour.touch()
    assert neighbour.name.startswith(f".{stem[:5]}")
    assert neighbour.name.endswith(".rows.jsonl")


def test_long_names_that_begin_alike_do_not_meet(tmp_path: Path) -> None:
    names = [f"{'a' * 249}{end}.json" for end in "bc"]
    assert len({beside(tmp_path / name, "", ".rows.jsonl") for name in names}) == 2


def test_a_folder_that_is_not_there_takes_names_of_the_usual_length(tmp_path: Path) -> None:
    assert len(beside(tmp_path / "none" / ("a" * 255), "", ".lock").name) == 255
