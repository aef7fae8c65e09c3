"""The devices and number formats that can be asked for. Asks no library: the engine knows more."""

from __future__ import annotations

import re
import sys
from pathlib import Path

DTYPES = {
    "auto": "Auto",
    "bfloat16": "bfloat16, 2 bytes a weight",
    "float16": "float16, 2 bytes a weight",
    "float32": "float32, 4 bytes a weight",
}
_GPU_NODE = re.compile(r"nvidia\d+")


def device_choices() -> dict[str, str]:
    """Words by device, in the order of a menu; what is not there is the engine's to say."""
    choices = {"auto": "Auto", "cpu": "CPU"}
    if sys.platform == "darwin":
        return choices | {"mps": "Apple GPU"}
    for number in range(max(1, _gpu_nodes())):
        choices[f"cuda:{number}"] = f"GPU {number}"
    return choices | {"cuda:all": "All GPUs"}


def _gpu_nodes() -> int:
    """NVIDIA devices that the Linux kernel shows; 0 elsewhere and where it cannot be told."""
    try:
        return sum(_GPU_NODE.fullmatch(path.name) is not None for path in Path("/dev").iterdir())
    except OSError:
        return 0
