"""Names that are suggested for files: whole letters, and nothing that a file system refuses."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bh_studio.ui.widgets.file_name import fitting, name_from


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("हिन्दी में एक कहानी", "हिन्दी में एक कहानी"),
        ("ภาษาไทยที่นี่", "ภาษาไทยที่นี่"),
        ("cafe\u0301 noir", "café noir"),
        ("q\u0307 is odd", "q\u0307 is odd"),
        ("می\u200cخواهم بروم", "می\u200cخواهم بروم"),
        ("It's 10\u00a0km, he said. And more came", "It's 10 km he said. And"),
        ("../../etc: a <strange> beginning", "etc a strange beginning"),
        ("👩‍🔬 ❤️ Science!", "Science"),
        ("٣ كتب", "٣ كتب"),
        ("…", "session"),
        ("", "session"),
        ("\u0301", "session"),
        ("CON", "_CON"),
        ("com1 .", "_com1"),
        ("aux.x", "_aux.x"),
        ("OLMoE-1B-7B-0924", "OLMoE-1B-7B-0924"),
        ("Qwen3-0.6B", "Qwen3-0.6B"),
        ("Nul: nothing", "Nul nothing"),
        ("a\udcffb", "ab"),
    ],
)
def test_names_are_made_of_the_first_words(text: str, name: str) -> None:
    assert name_from(text, "session") == name


def test_a_long_name_ends_with_a_whole_character() -> None:
    name = name_from("e\u0323\u0301" * 60, "session")
    assert name == unicodedata.normalize("NFC", "e\u0323\u0301") * 48


@pytest.mark.parametrize("letter", ["𠀀", "한", "क्षि", "é", "x"])
def test_a_name_fits_a_file_system_with_its_ending(letter: str) -> None:
    made = fitting(letter * 200, " - turn 12.bhsession")
    assert len(made.encode()) <= 255 - 16
    assert set(made.removesuffix(" - turn 12.bhsession").split(letter)) == {""}


def test_what_fits_is_left_as_it_is() -> None:
    assert fitting("v1.", ".json") == "v1..json"


@given(text=st.text(max_size=300))
def test_any_prompt_gives_a_name_that_a_file_can_have(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = fitting(name_from(text, "session"), ".bhsession")
    path = tmp_path_factory.getbasetemp() / name
    assert path.name == name
    assert name[0] not in " ."
    assert Path(name).stem[-1] != "."
    path.write_bytes(b"")
    path.unlink()
