"""The engine: models, routing, generation and statistics. Runs without PySide6.

The names below load torch when they are first used, not when the package is imported, so that
events and sessions can be read in a process that never needs torch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bh_studio.engine.notebook import BHRoutingIntegration, RoutingIntegration

# Weights in pages of 2 MiB instead of 4 KiB: they are read into memory and from memory faster.
# PyTorch looks at this once, when it is imported; elsewhere than on Linux it has no effect.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__all__ = ["BHRoutingIntegration", "RoutingIntegration"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from bh_studio.engine import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
