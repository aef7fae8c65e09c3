"""What reading a file takes in memory, weighed in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

# Beside four times what is unpacked.
ROOM = 100_000_000
_PROBE = """
import json, sys, time
from pathlib import Path
import msgspec, numpy
from bh_studio.engine.protocol import definition_file
from bh_studio.engine.records import journal, session_file
import bh_studio
bh_studio.read
def size(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))
Path("/proc/self/clear_refs").write_text("5")
before, said, start = size("VmRSS"), "", time.perf_counter()
try:
    READ(Path(sys.argv[1]))
except Exception as error:
    said = f"{type(error).__name__}: {error}"
print(json.dumps([size("VmHWM") - before, said, time.perf_counter() - start]))
"""
READERS = {
    "read": "bh_studio.read",
    "session": "session_file.load_session",
    "definition": "definition_file.load_definition",
    "journal": "journal.Journal",
}


class Weighed(NamedTuple):
    """grown: bytes beyond what the process had. said: what was raised; empty if nothing was."""

    grown: int
    said: str
    seconds: float


def weighed(reader: str, path: Path) -> Weighed:
    """What happens when `reader`, of READERS, reads `path`."""
    code = _PROBE.replace("READ(", f"{READERS[reader]}(")
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    return Weighed(*json.loads(done.stdout))
