"""Damage is drawn the same each time, and a little of it goes through every reader."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tools.campaign_readers import RESULTS
from tools.mutations import mutated

ROOT = Path(__file__).parents[2]


def test_the_same_seed_gives_the_same_damage() -> None:
    whole = (RESULTS / "whole_sweep.json").read_bytes()
    found = [mutated(whole, "json", random.Random("0 1")) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].data != whole
    others = {mutated(whole, "json", random.Random(f"0 {n}")).data for n in range(50)}
    assert len(others) > 40


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="weighs processes in /proc")
def test_damaged_files_are_accepted_or_refused_in_a_sentence(tmp_path: Path) -> None:
    out = tmp_path / "campaign.json"
    command = ["-m", "tools.campaign", "mutations", "--count", "120", "--out", str(out)]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
    document = json.loads(out.read_bytes())
    assert document["faults"] == []
    assert document["outcomes"].keys() == {"accepted", "refused"}
    assert document["outcomes"]["refused"] > 40
