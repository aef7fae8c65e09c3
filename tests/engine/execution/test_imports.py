"""While modules are imported nobody looks for garbage, and afterwards all is as it was."""

from __future__ import annotations

import gc

import pytest

from bh_studio.engine.execution.imports import without_collection


def test_no_garbage_is_looked_for_meanwhile() -> None:
    with without_collection(is_first=False):
        assert not gc.isenabled()
        with without_collection(is_first=False):
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_import_that_fails_leaves_it_as_it_was() -> None:
    with pytest.raises(ImportError), without_collection(is_first=False):
        raise ImportError
    assert gc.isenabled()


def test_what_was_imported_first_is_not_looked_through_again() -> None:
    before = gc.get_freeze_count()
    with without_collection(is_first=True):
        stays = [[number] for number in range(1000)]
    frozen = gc.get_freeze_count()
    assert frozen >= before + len(stays)
    with without_collection(is_first=False):
        comes_later = [[number] for number in range(1000)]
    assert gc.get_freeze_count() < frozen + len(comes_later)
