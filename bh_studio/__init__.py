"""BH Studio: top-8 and Benjamini-Hochberg expert routing of OLMoE, side by side.

`bh_studio.read` reads what the program has saved. It is loaded when it is first used, for most of
the program imports this package for its version alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bh_studio.engine.reading import read

__version__ = "0.1.0"
__all__ = ["__version__", "read"]


def __getattr__(name: str) -> object:
    if name == "read":
        from bh_studio.engine import reading

        return reading.read
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    # Without this a notebook does not offer what is not loaded yet.
    return sorted({*globals(), *__all__})
