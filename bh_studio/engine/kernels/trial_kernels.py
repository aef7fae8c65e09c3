"""A kernel that does next to nothing, to see whether Triton can build and start one."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def copy_number(source, target):
    """Copy one number. One program."""
    tl.store(target, tl.load(source))
