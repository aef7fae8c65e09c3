"""Arrays from JSON that may be anyone's: shape and numbers are looked at before they are used."""

from __future__ import annotations

from typing import Any

import numpy as np


def finite_array(values: Any, axes: int) -> np.ndarray:
    """Nested lists of numbers as float64 with `axes` axes. Raises ValueError for anything else."""
    try:
        array = np.array(values, dtype=np.float64)
    except (OverflowError, TypeError, ValueError):  # among them lists of different lengths
        array = None
    if array is None or array.ndim != axes or not np.isfinite(array).all():
        raise ValueError(f"{axes} axes of finite numbers were expected.")
    return array


def counted_array(values: Any, axes: int) -> np.ndarray:
    """Nested lists of counts as int64 with `axes` axes. Raises ValueError for anything else."""
    array = finite_array(values, axes)
    # What is too large for that is another number then.
    with np.errstate(invalid="ignore"):
        counts = array.astype(np.int64)
    if (counts != array).any() or (counts < 0).any():
        raise ValueError("Counts were expected.")
    return counts
