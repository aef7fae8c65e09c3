"""How the heavy libraries are imported, of which a command consists for the most part."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection(*, is_first: bool) -> Iterator[None]:
    """Look for no garbage while modules are imported.

    is_first: nor ever again in what there is afterwards, which stays: the first look through that
    would hold up every thread for half a second. Not while there is a model, which would stay too.
    """
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_first:
            gc.freeze()
        if is_on:
            gc.enable()
