"""Characters that would break a view."""

from __future__ import annotations

import unicodedata

import pytest

from bh_studio.ui.widgets.visible_text import visible


@pytest.mark.parametrize("text", ["plain\ttext\n", "日本語", "👩‍🔬 🇫🇷 é", "<b>&amp;", "שלום"])
def test_ordinary_text_is_untouched(text: str) -> None:
    assert visible(text) == text


def test_controls_get_stand_ins_one_for_one() -> None:
    text = "a\0b\x1b[31m\r\x7f\x85\u202e\u2066\u2028\u2029\ufeff\ud800\ufdd0c"
    shown = visible(text)
    assert shown == "a␀b␛[31m␍␡\ufffd\ufffd\ufffd␤␤\ufffd\ufffd\ufffdc"
    assert len(shown) == len(text)
    assert not any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl") for letter in shown)


def test_newlines_can_be_marked() -> None:
    assert visible("a\n\tb", mark_newlines=True) == "a↵⇥b"
