"""While modules are imported nobody looks for garbage, and afterwards all is as it was."""

from __future__ import annotations

import gc

import pytest

from bh_studio.engine.execution.imports import without_collection


def test_no_garbage_is_looked_for_meanwhile() -> None:
    with without_collection():
        assert not gc.isenabled()
        with without_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_import_that_fails_leaves_it_as_it_was() -> None:
    with pytest.raises(ImportError), without_collection():
        raise ImportError
    assert gc.isenabled()
