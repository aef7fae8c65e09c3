"""Reading a buffer: all of it, in memory that was written, with room for it."""

from __future__ import annotations

import pytest
import torch

from bh_studio.engine.experiments.benchmark import memory_bandwidth
from bh_studio.engine.experiments.benchmark.memory_bandwidth import ReadBandwidth

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bandwidth, "_BUFFER_BYTES", {"cpu": 2**22})
    monkeypatch.setattr(memory_bandwidth, "_LEAST_BYTES", 2**20)


def test_takes_one_of_the_ways() -> None:
    bandwidth = ReadBandwidth(CPU)
    assert bandwidth.buffer_bytes == 2**22
    assert bandwidth.way in memory_bandwidth._ways(torch.zeros(4096, dtype=torch.int32))
    assert bandwidth.measure() > 0


def test_every_way_reads_the_last_number_too() -> None:
    buffer = torch.zeros(2**20, dtype=torch.int32)
    ways = memory_bandwidth._ways(buffer)
    before = {name: read().clone() for name, read in ways.items()}
    buffer[-1] = 0x3F800000  # 1.0 as float32
    for name, read in ways.items():
        assert not torch.equal(read(), before[name]), name


def test_takes_no_more_than_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bandwidth, "free_bytes", lambda device: 2**23)
    assert ReadBandwidth(CPU).buffer_bytes == 2**21
    monkeypatch.setattr(memory_bandwidth, "free_bytes", lambda device: 2**21)
    with pytest.raises(MemoryError, match="no room for 1 MiB on cpu"):
        ReadBandwidth(CPU)
