"""How the heavy libraries are imported, of which a command consists for the most part."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Look for no garbage while modules are imported, nor ever in what they made, which stays: the
    first look through that would hold up every thread for half a second."""
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if is_on:
            gc.enable()
