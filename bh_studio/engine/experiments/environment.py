"""What a measurement ran on: versions, machine, threads."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import bh_studio
from bh_studio.engine.errors import EngineError
from bh_studio.engine.files.plain_json import convert
from bh_studio.engine.moe import row_products

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "PySide6-Essentials", "pyqtgraph")


def describe_environment() -> dict[str, Any]:
    """Versions of everything, operating system, processor, accelerator, threads."""
    return {
        "bh_studio": bh_studio.__version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "system": platform.platform(),
        "processor": _processor(),
        "logical_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def describe_computation() -> dict[str, Any]:
    """What of this process decides how sums are rounded: threads, and the product of one row."""
    return {"threads": torch.get_num_threads(), "row_products": row_products.chosen()}


@dataclass(frozen=True, slots=True)
class _Computation:
    threads: int
    row_products: dict[str, str]

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads is {self.threads}.")


def use_computation(described: object) -> None:
    """Compute as `describe_computation` said of another process, for all of this one.

    Raises JsonError for what it cannot have said, EngineError where this machine cannot.
    """
    computation = convert(_Computation, described, "computation")
    threads = computation.threads
    if threads > (os.cpu_count() or 1):
        raise EngineError(
            f"The rows that are there were made with {threads} threads; this machine has "
            f"{os.cpu_count()} processors.",
            "Go on where there are as many, or start over with --restart.",
        )
    torch.set_num_threads(threads)
    for dtype, name in computation.row_products.items():
        try:
            row_products.choose(dtype, name)
        except ValueError as error:
            raise EngineError(
                str(error), "Go on where there is one, or start over with --restart."
            ) from error
