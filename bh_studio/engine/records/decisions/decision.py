"""What the routers of one side decided at some positions. Knows arrays, no model and no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """experts: (position, layer, slot) uint8, those that ran, as routed_experts has them.

    router_logits: (position, layer, expert) float32; None where they are not kept.
    """

    experts: np.ndarray
    router_logits: np.ndarray | None
