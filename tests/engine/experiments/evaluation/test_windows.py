"""Windows over texts: every token is scored once, with as much before it as the stride promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bh_studio.engine.experiments.evaluation.windows import batches, thinned, windows


@given(
    lengths=st.lists(st.integers(2, 300), min_size=1, max_size=4),
    context=st.integers(2, 64),
    data=st.data(),
)
def test_every_token_but_the_first_is_scored_once(
    lengths: list[int], context: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context))
    found = windows(lengths, context, stride)
    for document, length in enumerate(lengths):
        own = [window for window in found if window.document == document]
        scored = [i for window in own for i in range(window.first, window.end)]
        assert scored == list(range(length - 1))
        for window in own:
            assert window.end - window.start <= context
            # What it is promised to see, unless the text has no more before it.
            assert window.first - window.start >= min(context - stride, window.first)


@pytest.mark.parametrize("stride", [0, 17])
def test_a_stride_that_leaves_tokens_out_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match="stride must lie between 1 and the window of 16"):
        windows([100], 16, stride)


def test_thinning_spreads_windows_over_all_texts() -> None:
    found = windows([1000] * 5, 100, 50)
    kept = thinned(found, 1000)
    assert {window.document for window in kept} == set(range(5))
    assert 900 <= sum(window.scored for window in kept) <= 1200
    assert thinned(found, None) == thinned(found, 10**9) == found
    assert len(thinned(found, 1)) == 1


def test_a_batch_holds_windows_of_one_size_in_order() -> None:
    found = windows([30, 100, 101], 40, 20)
    grouped = batches(found, 3)
    assert [window for batch in grouped for window in batch] == found
    for batch in grouped:
        assert len(batch) <= 3
        assert len({window.end - window.start for window in batch}) == 1
