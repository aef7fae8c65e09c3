"""Matches in a text that grows are those of the whole text, counted in UTF-16 units."""

from __future__ import annotations

import pytest

from bh_studio.ui.state.text_search import TextSearch

CASES = [
    ("aaaa", "aa", [(0, 2), (2, 4)]),
    ("Tea, tea", "TEA", [(0, 3), (5, 8)]),
    ("a👩‍🔬b👩‍🔬b", "b", [(6, 7), (12, 13)]),
    ("x👩‍🔬 y", "👩‍🔬", [(1, 6)]),
    ("1+1 (1+1)", "1+1", [(0, 3), (5, 8)]),
    ("\ud83d half", "half", [(2, 6)]),
    ("10\u00a0km", "\u00a0", [(2, 3)]),
    ("İstanbul", "stan", [(1, 5)]),
    ("none", "some", []),
]


@pytest.mark.parametrize(("text", "wanted", "places"), CASES)
def test_places_count_as_the_document_does(
    text: str, wanted: str, places: list[tuple[int, int]]
) -> None:
    search = TextSearch(wanted, match_case=False)
    assert search.extend(text)
    assert search.places == places


@pytest.mark.parametrize(("text", "wanted", "places"), CASES)
def test_a_text_that_comes_in_pieces_has_the_same_matches(
    text: str, wanted: str, places: list[tuple[int, int]]
) -> None:
    search = TextSearch(wanted, match_case=False)
    for end in range(len(text) + 1):
        search.extend(text[:end])
    assert search.places == places
    assert not search.extend(text)


def test_the_case_may_matter() -> None:
    search = TextSearch("Tea", match_case=True)
    search.extend("tea Tea TEA")
    assert search.places == [(4, 7)]
