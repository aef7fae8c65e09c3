"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bh_studio.engine.files.atomic import check_writable, write_atomically

_DIE = """
import os, signal, sys
from pathlib import Path
from bh_studio.engine.files.atomic import write_atomically
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), b"never")
"""

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Modes, links and signals of POSIX")
either = pytest.mark.parametrize(
    "write", [lambda path: write_atomically(path, b"new"), check_writable], ids=["write", "check"]
)


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


@on_posix
def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(Path("folder") / "a")
    for content in (b"made", b"written"):
        write_atomically(link, content)
        assert link.is_symlink()
        assert (folder / "a").read_bytes() == content
    assert sorted(tmp_path.rglob("*")) == [folder, folder / "a", link]


@on_posix
@either
def test_a_link_that_leads_nowhere_is_refused_as_by_open(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    lost, circle = tmp_path / "lost", tmp_path / "circle"
    lost.symlink_to(tmp_path / "none" / "a")
    circle.symlink_to(circle)
    for link, number in ((lost, errno.ENOENT), (circle, errno.ELOOP)):
        with pytest.raises(OSError, match=r"\[Errno") as caught:
            write(link)
        assert caught.value.errno == number
    assert sorted(tmp_path.iterdir()) == [circle, lost]


@on_posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_a_file_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    path.chmod(mode)
    write_atomically(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == mode


@on_posix
def test_what_is_not_for_others_is_never_to_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    seen: list[int] = []
    path.touch()
    path.chmod(0o600)
    monkeypatch.setattr("os.fsync", lambda descriptor: seen.append(os.fstat(descriptor).st_mode))
    write_atomically(path, b"new")
    assert list(map(stat.S_IMODE, seen)) == [0o600]


@on_posix
def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@either
def test_a_file_that_is_write_protected_stays(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(PermissionError, match="write-protected"):
        write(path)
    path.chmod(0o644)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@on_posix
@either
def test_what_is_no_regular_file_is_refused(write: Callable[[Path], None], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Not a regular file"):
        write(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "pipe"]


@on_posix
@either
def test_the_longest_name_can_be_written_and_none_above(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    for size in (240, 250, 255):
        write(tmp_path / ("a" * size))
    with pytest.raises(OSError, match="too long"):
        write(tmp_path / ("a" * 256))


def test_a_check_leaves_nothing_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    check_writable(path)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"old")
    before = path.stat()
    check_writable(path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat() == before
    with pytest.raises(FileNotFoundError):
        check_writable(tmp_path / "none" / "a")


def test_a_check_tells_of_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        check_writable(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def _killed(path: Path) -> Path:
    """What a writer of `path` leaves that is killed."""
    before = set(path.parent.iterdir())
    root = Path(__file__).parents[3]
    died = subprocess.run([sys.executable, "-c", _DIE, str(path)], cwd=root, check=False)
    assert died.returncode == -signal.SIGKILL
    (left,) = set(path.parent.iterdir()) - before
    assert left.name.startswith(f".{path.name[:9]}")
    return left


@on_posix
@pytest.mark.parametrize("name", ["result.json", "result.json" + "x" * 244])
def test_what_a_killed_writer_left_goes_with_the_next(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    _killed(path)
    other = _killed(tmp_path / f"other.{name[:200]}")
    write_atomically(path, b"new")
    assert sorted(tmp_path.iterdir()) == sorted([path, other])


@on_posix
def test_what_a_living_writer_has_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, fsync = tmp_path / "a", os.fsync
    found: list[Path] = []

    def overtake(descriptor: int) -> None:
        """Another writer of the same file comes while this one writes."""
        monkeypatch.setattr("os.fsync", fsync)
        write_atomically(path, b"other")
        found.extend(tmp_path.iterdir())

    monkeypatch.setattr("os.fsync", overtake)
    write_atomically(path, b"mine")
    assert len(found) == 2
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


@on_posix
@pytest.mark.parametrize(("age", "stays"), [(0, True), (100_000, False)])
def test_a_process_that_began_long_after_is_not_the_writer(
    age: int, stays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    left = _killed(path)
    written = left.stat().st_mtime - age
    os.utime(left, (written, written))
    this = psutil.Process()
    monkeypatch.setattr(psutil, "Process", lambda _: this)
    write_atomically(path, b"new")
    assert left.exists() == stays
