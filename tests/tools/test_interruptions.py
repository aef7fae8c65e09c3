"""What is done wrong by programs that are stopped is found; commands of bh-studio do none of it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tools.interruptions.commands import COMMANDS, Command, write_inputs
from tools.interruptions.kills import killed
from tools.interruptions.programs import Place, Running
from tools.interruptions.schedule import Workers
from tools.interruptions.trials import Found, Ground, reference_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and hears of changes of files"),
]

WRITER = """
import json, os, sys, time
from pathlib import Path
from bh_studio.engine.files.atomic import write_atomically

how, out = sys.argv[1], Path(sys.argv[-1])
if how == "forgetful":
    rows = out.with_name(f"{out.name}.rows.jsonl")
    with rows.open("w") as file:
        for number in range(6):
            file.write(json.dumps({"key": f"row {number}"}) + "\\n")
            file.flush()
            os.fsync(file.fileno())
            time.sleep(0.05)
content = json.dumps({"text": "word " * 20_000})
if how == "careless":
    with out.open("w") as file:
        for start in range(0, len(content), 1000):
            file.write(content[start : start + 1000])
else:
    write_atomically(out, content.encode())
if how == "forgetful":
    rows.unlink()
"""


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(1) as workers:
        yield workers


def test_a_signal_that_comes_before_the_program_listens_is_not_lost(tmp_path: Path) -> None:
    script = tmp_path / "idle.py"
    script.write_text("import time; time.sleep(1)")
    place = Place(tmp_path, tmp_path / "home", tmp_path)
    for _ in range(10):
        running = Running([], place, program=str(script))
        assert running.send(signal.SIGINT)
        assert running.end().code == -signal.SIGINT


def test_what_writers_do_wrong_is_found(workers: Workers, tmp_path: Path) -> None:
    script = tmp_path / "writer.py"
    script.write_text(WRITER)

    def faults(how: str) -> list[str]:
        command = Command(how, (how,), ".json", how == "forgetful", program=str(script))
        found = _tried(workers, tmp_path / how, (command,), range(8))
        return [fault for one in found for fault in one.faults]

    assert faults("careful") == []
    assert any("is half written" in fault for fault in faults("careless"))
    assert any("made again" in fault for fault in faults("forgetful"))


def test_commands_go_on_where_they_were_stopped(workers: Workers, tmp_path: Path) -> None:
    # Those with the smallest model.
    commands = tuple(command for command in COMMANDS if command.name in ("budget", "chat"))
    found = _tried(workers, tmp_path, commands, range(2))
    assert [fault for one in found for fault in one.faults] == []
    assert any(one.outcome == "equal" for one in found)


def _tried(
    workers: Workers, folder: Path, commands: tuple[Command, ...], numbers: range
) -> list[Found]:
    ground = Ground(folder / "ground", starting=1.0)
    ground.inputs.mkdir(parents=True)
    write_inputs(ground.inputs)
    references = tuple(workers.all(partial(reference_of, ground), commands))
    return workers.all(partial(killed, replace(ground, references=references)), numbers)
