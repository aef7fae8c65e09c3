"""Files of people are read up to a bound, and what lies beyond it is not looked at."""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path

import pytest

from bh_studio.engine.errors import InputError
from bh_studio.engine.files import bounded
from bh_studio.engine.files.bounded import read_bytes
from tests.damaged_arrays import little_memory

pipes = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")


def test_all_of_a_file_up_to_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"four")
    assert read_bytes(path, 4, "a text") == b"four"
    with pytest.raises(InputError, match=re.escape(f"{path} is longer than the 0 MiB that a text")):
        read_bytes(path, 3, "a text")


def test_a_file_that_says_it_is_longer_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.truncate(2**31 + 1)  # takes no place on the disk
    with little_memory(), pytest.raises(InputError, match="is longer than the 2 GiB that"):
        read_bytes(path, 2**31, "a text")


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match=re.escape(f"{path} cannot be read: ")):
            read_bytes(path, 4, "a text")


@pytest.mark.skipif(sys.platform != "linux", reason="Looks into /dev/zero")
def test_what_never_ends_is_given_up() -> None:
    with pytest.raises(InputError, match="longer than"):
        read_bytes(Path("/dev/zero"), 2**20, "a text")


@pipes
def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(b"x" * 2**20))
    writer.start()
    assert read_bytes(path, 2**21, "a text") == b"x" * 2**20
    writer.join()


@pipes
@pytest.mark.parametrize("has_writer", [False, True])
def test_a_pipe_through_which_nothing_comes_is_given_up(
    has_writer: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "_PATIENCE_SECONDS", 1)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR) if has_writer else None
    try:
        with pytest.raises(InputError, match="nothing has come through it for 1 seconds"):
            read_bytes(path, 4, "a text")
    finally:
        if writer is not None:
            os.close(writer)
