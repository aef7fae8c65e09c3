"""What benchmarks have alike: how times are summed up, and how a result is shown and kept."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """The median, the lowest and the highest of `values`."""
    return {
        "median": round(statistics.median(values), digits),
        "lowest": round(min(values), digits),
        "highest": round(max(values), digits),
    }


def publish(result: Mapping[str, Any], out: Path | None) -> None:
    """Print `result`, and write it to `out` if it is wanted there."""
    text = json.dumps(result, indent=1)
    print(text)
    if out is not None:
        out.write_text(text + "\n")
