"""Memory that grows inside a block is seen; what was there before is not counted."""

from __future__ import annotations

import torch

from bh_studio.engine.experiments.benchmark.peak_memory import PeakMemory


def test_growth_is_what_a_block_added() -> None:
    before = torch.ones(2**25, dtype=torch.uint8)
    with PeakMemory((torch.device("cpu"),)) as peak:
        kept = torch.ones(2**26, dtype=torch.uint8)
    assert 0.9 * kept.nbytes < peak.growth < kept.nbytes + before.nbytes
