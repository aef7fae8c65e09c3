"""`bh-studio download` as a person or a script runs it, from a hub on this machine."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bh_studio import cli
from bh_studio.__main__ import build_parser
from bh_studio.cli.terminal.download_lines import DownloadLines
from bh_studio.engine.hub.events import (
    DownloadProgress,
    DownloadRetrying,
    DownloadStalled,
    FileDamaged,
    VerifyProgress,
)
from tests.cli.conftest import Start
from tests.fake_hub_model import fake_model
from tests.hub_server import COMMIT, REPO, HubServer, hub_server, use_hub

SHARD = "model-00001-of-00002.safetensors"
PIECE = 2**16


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with hub_server(fake_model()) as server:
        use_hub(server, monkeypatch, tmp_path)
        yield server


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def download(*arguments: str) -> int:
    return cli.run(build_parser().parse_args(["download", *arguments]))


def snapshot(tmp_path: Path) -> Path:
    return tmp_path / "hub" / "models--owner--tiny-olmoe" / "snapshots" / COMMIT


def test_prints_the_folder_and_says_how_far_it_is(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download(REPO) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{snapshot(tmp_path)}\n"
    lines = captured.err.splitlines()
    assert lines[0].startswith(f"{REPO}: 1.0 MB in 8 files; ")
    assert lines[0].endswith(f"free in {tmp_path / 'hub'}")
    assert lines[-1] == f"{REPO} is complete and verified."
    # A line for a tenth at most, not one a chunk.
    assert 3 < len(lines) <= 24
    assert "\r" not in captured.err
    assert download(REPO) == 0
    assert "all of it here" in capsys.readouterr().err


def test_a_dry_run_fetches_nothing(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download(f"{REPO}@main", "--dry-run") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{REPO}@main at commit {COMMIT}\n")
    assert f"500 kB  {SHARD}" in captured.out
    assert "1.0 MB  in all, of which 1.0 MB are to be fetched" in captured.out
    assert f"free on the disk of {tmp_path / 'hub'}" in captured.out
    assert captured.err == ""
    assert hub.sent == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_interrupt_pauses_and_the_same_command_goes_on(
    hub: HubServer, start: Start, tmp_path: Path
) -> None:
    hub.faults.stall_after[SHARD] = 2 * PIECE
    program = start("download", REPO)
    assert hub.stalled.wait(30)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=30)
    assert program.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == f"Paused. `bh-studio download {REPO}` goes on from here."
    hub.faults.stall_after.clear()
    program = start("download", REPO)
    out, err = program.communicate(timeout=30)
    assert program.returncode == 0
    assert out == f"{snapshot(tmp_path)}\n"
    second = hub.file_requests(SHARD)[-1]
    assert second.first_byte in (PIECE, 2 * PIECE)


def test_discard_removes_what_a_pause_left(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download(REPO, "--discard") == 0
    assert "Removed 0 bytes" in capsys.readouterr().err
    hub.faults.damaged[SHARD] = 2
    assert download(REPO) == 1
    capsys.readouterr()
    assert list(tmp_path.rglob("*.incomplete"))
    assert download(REPO, "--discard") == 0
    assert "Removed 503 kB" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.incomplete"))


def test_a_failure_is_one_sentence_with_advice(
    hub: HubServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "open-sesame")
    hub.faults.files_denied = (403, "GatedRepo", "Not for open-sesame.")
    assert download(REPO) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.splitlines()[-1]
    assert last.startswith("bh-studio: The owner of owner/tiny-olmoe gives it only to")
    assert "hf auth login" in last
    assert "sesame" not in captured.err


@pytest.mark.parametrize("source", ["embedded", "owner/na me", "../up", "owner/name@"])
def test_what_is_no_model_of_the_hub(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        download(source)
    assert end.value.code == 2
    assert "write OWNER/NAME or OWNER/NAME@REVISION" in capsys.readouterr().err


def test_a_terminal_has_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    lines = DownloadLines(shows_plan=True)
    lines.show(DownloadProgress(3_000_000_000, 13_800_000_000, SHARD, 45_000_000.0, 240.0))
    lines.show(DownloadStalled(10.0, 60.0))
    lines.show(DownloadRetrying("The hub cannot be reached.", 1, 5, 1.0))
    lines.show(FileDamaged(SHARD))
    lines.show(VerifyProgress(13_800_000_000, 13_800_000_000, SHARD))
    lines.end()
    clear = "\r\x1b[K"
    assert terminal.getvalue().split(clear)[1:] == [
        "Fetching 3.0 GB of 13.8 GB, 22%, 45.0 MB/s, 4 min left",
        "Nothing has come for 10 seconds; still waiting.\n",
        "The hub cannot be reached. Trying again in 1 s (attempt 1 of 5).\n",
        f"{SHARD} is damaged; it is fetched again.\n",
        "Verifying 13.8 GB of 13.8 GB, 100%",
        "",
    ]
