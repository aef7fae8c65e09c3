"""Arrays from JSON that may be anyone's."""

from __future__ import annotations

import pytest

from bh_studio.engine.files.lists import counted_array


@pytest.mark.parametrize("value", [1e300, -1e300, 2.0**63, 0.5, -1, float("nan"), 10**400, "x"])
@pytest.mark.filterwarnings("error")
def test_what_counts_nothing_is_refused_without_a_warning(value: object) -> None:
    with pytest.raises(ValueError, match="were expected"):
        counted_array([1, value], 1)
