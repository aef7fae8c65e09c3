"""--out of every command: refused before the work where it cannot be written, and never a loss."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest

from bh_studio import cli
from bh_studio.__main__ import build_parser
from bh_studio.engine.calibration.recorder import calibration_text
from bh_studio.engine.files import atomic
from bh_studio.engine.files.atomic import written_atomically
from bh_studio.engine.files.lock import locked
from bh_studio.engine.records import journal, session_file
from bh_studio.engine.records.sessions import exports
from tests.cli.conftest import Start

pytestmark = pytest.mark.filterwarnings("ignore:The null holds")

# What each command is given, besides --model and --out, and the ending of its result.
COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    "compare": (("Once", "--max-new-tokens", "3"), ".json"),
    "compare file": (("--prompts-file", "prompts.txt", "--max-new-tokens", "3"), ".csv"),
    "sweep": (("Once", "--max-new-tokens", "3"), ".json"),
    "evaluate": (("text.txt", "--rule", "top-k:2"), ".json"),
    "budget": (("3", "--fit", "text.txt"), ".json"),
    "calibrate": ((), ".npz"),
    "calibrate text": (("text.txt",), ".npz"),
    "bench": (
        ("--rounds", "1", "--tokens", "2", "--prompt-tokens", "2", "--prefill-tokens", "0"),
        ".json",
    ),
    "replay": (("logits.npz", "--rule", "top-k:2"), ".json"),
}
every_command = pytest.mark.parametrize("name", list(COMMANDS))


def words(name: str, model: str, out: Path) -> list[str]:
    """The command `name`, which finds what it reads beside the folder of `out`."""
    given = [str(out.parents[1] / word) if "." in word else word for word in COMMANDS[name][0]]
    options = () if name == "replay" else ("--model", model)
    return [name.split()[0], *given, *options, "--out", str(out)]


def run(arguments: Sequence[str]) -> int:
    return cli.run(build_parser().parse_args(arguments))


@pytest.fixture
def folder(tmp_path: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run: what they read lies there, their results go to "out"."""
    (tmp_path / "prompts.txt").write_text("Once\nUpon\n")
    (tmp_path / "text.txt").write_text(calibration_text()[:700])
    shutil.copyfile(recorded, tmp_path / "logits.npz")
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("bh_studio.engine.loading.DEFAULT_THREADS", 1)
    return tmp_path / "out"


@pytest.fixture(scope="session")
def recorded(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "text.txt").write_text(calibration_text()[:700])
    path = folder / "logits.npz"
    texts = [str(folder / "text.txt")]
    assert run(["calibrate", *texts, "--model", checkpoint, "--out", str(path)]) == 0
    return path


@every_command
def test_what_cannot_be_written_is_refused_before_the_work(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ending = COMMANDS[name][1]
    protected, busy = folder / f"protected{ending}", folder / f"folder{ending}"
    protected.write_text("mine")
    protected.chmod(0o444)
    busy.mkdir()
    before = sorted(folder.iterdir())
    for out, reason in (
        (protected, "The file is write-protected"),
        (busy, "Is a directory"),
        (folder / f"{'a' * 252}{ending}", "File name too long"),
    ):
        with pytest.raises(SystemExit) as stop:
            run(words(name, "/nowhere", out))
        assert stop.value.code == 2
        assert f"{out} cannot be written: {reason}\n" in capsys.readouterr().err
        assert sorted(folder.iterdir()) == before
    assert protected.read_text() == "mine"


@every_command
def test_a_full_disk_is_refused_before_the_work(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(SystemExit):
        run(words(name, "/nowhere", folder / f"a{COMMANDS[name][1]}"))
    assert "cannot be written: No space left on device" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


@every_command
def test_a_result_that_another_process_writes_is_refused_before_the_work(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / f"a{COMMANDS[name][1]}"
    with locked(out):
        assert run(words(name, "/nowhere", out)) == 2
    said = capsys.readouterr().err
    assert f"{out} is being written by another bh-studio (process {os.getpid()}, since " in said
    assert said.endswith("; wait for it, or choose another --out.\n")
    assert list(folder.iterdir()) == []


# What a command reads, and the option that would write there.
READ_AND_WRITTEN = {
    "calibration": ("compare Once --calibration read.npz", "--out read.npz"),
    "calibration of a definition": ("run definition.json --calibration read.npz", "--out read.npz"),
    "calibration of a chat": ("chat --calibration read.npz", "--out read.npz"),
    "definition": ("run read.json", "--out read.json"),
    "prompts": ("compare --prompts-file read.csv", "--out read.csv --restart"),
    "prompts of a sweep": ("sweep --prompts-file read.csv", "--out read.csv --restart"),
    "given text": ("compare --text read.json", "--out read.json --restart"),
    "given text defined": ("compare --text read.json", "--save-definition read.json"),
    "texts": ("evaluate other.txt read.json --rule bh:0.1", "--out read.json --restart"),
    "texts defined": ("evaluate read.json --rule bh:0.1", "--save-definition read.json"),
    "fitted texts": ("budget 3 --fit read.json", "--out read.json --restart"),
    "checked texts": ("budget 3 --fit other.txt --check read.json", "--out read.json --restart"),
    "recorded texts": ("calibrate read.npz", "--out read.npz --restart"),
    "another name": ("evaluate other.txt link.json --rule bh:0.1", "--out read.json --restart"),
}


@pytest.mark.parametrize("name", READ_AND_WRITTEN)
def test_what_a_command_reads_is_not_written_over(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    reading, writing = READ_AND_WRITTEN[name]
    path = Path(writing.split()[1])
    for written in {path, Path("other.txt")}:
        written.write_text("mine, of many words")
    Path("link.json").symlink_to(path)
    assert run([*reading.split(), *writing.split()]) == 2
    said = capsys.readouterr().err
    assert said == f"bh-studio: {path} is read by this command; choose another file to write.\n"
    assert path.read_text() == "mine, of many words"
    assert sorted(tmp_path.iterdir()) == sorted(
        tmp_path / name for name in (path.name, "other.txt", "link.json")
    )


@every_command
def test_a_name_of_the_longest_kind_works_and_nothing_stays_beside_it(
    name: str, checkpoint: str, folder: Path
) -> None:
    ending = COMMANDS[name][1]
    out = folder / f"{'a' * (255 - len(ending))}{ending}"
    assert run(words(name, checkpoint, out)) == 0
    assert out.is_file()
    # Beside a .csv stay the rows that the next run goes on from.
    rows = {journal.rows_path(out)} if name == "compare file" else set()
    assert set(folder.iterdir()) == {out} | rows
    # The same command again finds what it has left.
    assert run(words(name, checkpoint, out)) == 0


@every_command
def test_what_cannot_be_written_at_the_end_is_printed_all_the_same(
    name: str, checkpoint: str, folder: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = folder / f"a{COMMANDS[name][1]}"

    def refuse(path: Path, write: Callable[[BinaryIO], object]) -> None:
        if path == out:
            raise OSError(errno.ENOSPC, "No space left on device")
        written_atomically(path, write)

    for module in (atomic, session_file, exports):
        monkeypatch.setattr(module, "written_atomically", refuse)
    assert run([*words(name, checkpoint, out), "--json"]) == 1
    printed, said = capsys.readouterr()
    assert json.loads(printed)
    last = said.splitlines()[-1]
    assert last.startswith(f"bh-studio: {out} could not be written: No space left on device.")
    assert not out.exists()


def test_a_folder_that_goes_while_the_work_is_done_costs_no_result(
    checkpoint: str, folder: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    finish = journal.Journal.finish

    def finish_late(self: journal.Journal, content: bytes, *, holds_rows: bool) -> bool:
        shutil.rmtree(folder)
        return finish(self, content, holds_rows=holds_rows)

    monkeypatch.setattr(journal.Journal, "finish", finish_late)
    out = folder / "a.json"
    assert run([*words("evaluate", checkpoint, out), "--json"]) == 1
    printed, said = capsys.readouterr()
    assert json.loads(printed)["kind"] == "evaluation"
    assert said.endswith(f"bh-studio: {out} could not be written: No such file or directory.\n")
    assert "goes on from there" not in said


def test_what_is_in_the_way_of_a_calibration_is_told_before_the_model_is_loaded(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "a.npz"
    journal.rows_path(out).write_text("{}\n[]\n")
    assert run(words("calibrate text", "/nowhere", out)) == 2
    assert "is damaged in line 2" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSTOP")
def test_of_two_processes_the_second_is_refused_until_the_first_is_dead(
    checkpoint: str, folder: Path, start: Start
) -> None:
    out = folder / "a.json"
    command = words("sweep", checkpoint, out)
    first = start(*command, "--seeds", "50")
    assert first.stdout is not None
    first.stdout.readline()
    first.send_signal(signal.SIGSTOP)
    second = start(*command)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"(process {first.pid}, since " in said
    assert "Loading" not in said
    first.kill()
    first.wait()
    third = start(*command, "--restart")
    third.communicate(timeout=60)
    assert third.returncode == 0
    assert list(folder.iterdir()) == [out]
