"""The engine: models, routing, generation and statistics. Runs without PySide6.

The names below load torch when they are first used, not when the package is imported, so that
messages and sessions can be read in a process that never needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bh_studio.engine.routing import BHRoutingIntegration

__all__ = ["BHRoutingIntegration"]


def __getattr__(name: str) -> object:
    if name == "BHRoutingIntegration":
        from bh_studio.engine.routing import BHRoutingIntegration

        return BHRoutingIntegration
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
