"""The real application, offscreen, on the embedded model: runs, saves, takes its picture, ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PySide6.QtGui import QImage

from bh_studio.engine.messages import Side
from bh_studio.engine.session_file import load_session

PROMPT = "Once upon a time there was a fox who"
TOKENS = 24


def run_program(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the program offscreen, as conftest.py has set the environment up."""
    answer = subprocess.run(
        [sys.executable, "-m", "bh_studio", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=180,
    )
    # The offscreen platform's only words, for every window that is shown.
    answer.stderr = answer.stderr.replace("This plugin does not support propagateSizeHints()\n", "")
    return answer


def test_window_runs_saves_and_ends(tmp_path: Path) -> None:
    saved, picture = tmp_path / "fox.bhsession", tmp_path / "fox.png"
    answer = run_program(
        *("--prompt", PROMPT, "--alpha", "0.05", "--max-new-tokens", str(TOKENS), "--no-sample"),
        *("--run", "--save", saved, "--screenshot", picture, "--size", "1280x800", "--quit"),
    )
    assert (answer.returncode, answer.stderr) == (0, "")

    session = load_session(saved)
    assert session.prompt == PROMPT
    assert (session.model.id, session.rule.level) == ("embedded", 0.05)
    baseline, bh = session.sides[Side.BASELINE], session.sides[Side.BH]
    assert 0 < len(baseline.token_ids) <= TOKENS
    assert (baseline.expert_counts == session.model.top_k).all()
    assert 1 <= bh.expert_counts.min() <= bh.expert_counts.mean() <= bh.expert_counts.max() <= 8

    image = QImage(str(picture))
    assert (image.width(), image.height()) == (1280, 800)


def test_terminal_and_window_give_the_same_session(tmp_path: Path) -> None:
    saved = tmp_path / "fox.bhsession"
    options = ["--alpha", "0.01", "--max-new-tokens", str(TOKENS)]
    window = run_program(*options, "--prompt", PROMPT, "--run", "--save", saved, "--quit")
    assert (window.returncode, window.stderr) == (0, "")
    terminal = run_program("compare", PROMPT, *options, "--json")
    assert terminal.returncode == 0, terminal.stderr

    document = json.loads(terminal.stdout)
    for side, record in load_session(saved).sides.items():
        said = document["sides"][side.value]
        assert said["text"] == record.text
        assert tuple(said["token_ids"]) == record.token_ids
        assert said["expert_counts"] == record.expert_counts.tolist()
