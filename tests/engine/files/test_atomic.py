"""Files that are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from bh_studio.engine.files.atomic import write_atomically


def test_the_old_file_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"

    def cut_off(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", cut_off)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"never")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
