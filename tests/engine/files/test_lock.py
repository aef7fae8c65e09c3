"""A file that only one process writes at a time."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import pytest

from bh_studio.engine.files.lock import LockedError, locked

_HOLD = """
import sys
from pathlib import Path
from bh_studio.engine.files.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def _other_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock of `path` until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def test_the_second_process_is_told_who_is_first(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with _other_process(path) as process, pytest.raises(LockedError) as caught, locked(path):
        pass
    assert re.fullmatch(
        rf"another bh-studio \(process {process.pid}, since \d\d:\d\d\)", caught.value.holder
    )
    assert str(caught.value) == (
        f"{path} is being written by {caught.value.holder}. Wait for it, or choose another file."
    )


def test_nothing_stays_behind(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with locked(path) as is_held:
        assert is_held
        assert [file.name for file in tmp_path.iterdir()] == [".result.json.lock"]
    with pytest.raises(ZeroDivisionError), locked(path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_none(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with _other_process(path) as process:
        process.kill()
        process.wait()
        assert list(tmp_path.iterdir()) == [tmp_path / ".result.json.lock"]
        with locked(path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_who_waits_gets_the_lock_when_it_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with _other_process(path) as process:
        assert process.stdin is not None
        process.stdin.close()
        with locked(path, seconds=30):
            pass


def test_another_place_of_this_process_waits_too(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with locked(path), pytest.raises(LockedError, match=f"process {os.getpid()}"), locked(path):
        pass
    with locked(path):
        pass


def test_a_link_has_the_lock_of_where_it_leads(tmp_path: Path) -> None:
    link, path = tmp_path / "link.json", tmp_path / "result.json"
    link.symlink_to(path)
    with locked(path), pytest.raises(LockedError, match=r"link\.json"), locked(link):
        pass


def test_the_longest_name_can_be_locked(tmp_path: Path) -> None:
    path = tmp_path / f"{'a' * 250}.json"
    with locked(path), pytest.raises(LockedError), locked(path):
        pass


@pytest.mark.parametrize(
    ("content", "holder"),
    [
        ("", "another bh-studio"),
        ("[" * 5000, "another bh-studio"),
        ('{"process": null}', "another bh-studio"),
        (
            json.dumps({"process": 7, "host": "elsewhere", "since": "2020-01-02T12:00:00"}),
            "another bh-studio (process 7 on elsewhere, since 2020-01-02 12:00)",
        ),
    ],
)
def test_who_has_it_is_said_as_far_as_it_is_known(
    tmp_path: Path, content: str, holder: str
) -> None:
    path = tmp_path / "result.json"
    with locked(path):
        (tmp_path / ".result.json.lock").write_text(content)
        with pytest.raises(LockedError) as caught, locked(path):
            pass
    assert caught.value.holder == holder


@pytest.mark.parametrize(
    "refusal",
    [
        OSError(errno.ENOSYS, "flock is unknown"),
        OSError(errno.ENOLCK, "No locks available"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EROFS, "Read-only file system"),
    ],
)
def test_where_there_are_no_locks_the_work_is_done_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: OSError
) -> None:
    def refuse(*_: object) -> None:
        raise refusal

    monkeypatch.setattr(filelock.FileLock, "_acquire", refuse)
    with locked(tmp_path / "result.json") as is_held:
        is_done = True
    assert is_done
    assert not is_held


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with locked(tmp_path / "none" / "result.json"):
        pass
    assert list(tmp_path.iterdir()) == []
