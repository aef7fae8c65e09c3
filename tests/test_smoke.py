"""The real application, offscreen, on the embedded model: runs, saves, takes its picture, ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PySide6.QtGui import QImage

from bh_studio.engine.records.session_file import load_session
from bh_studio.engine.rules.parameters import RuleParameters
from tests.tiny_olmoe import save_tiny_chat_checkpoint

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "Once upon a time there was a fox who"
TOKENS = 24

pytestmark = pytest.mark.slow


def run_program(*arguments: str | Path, lines: str = "") -> subprocess.CompletedProcess[str]:
    """Run the program offscreen, as conftest.py has set the environment up."""
    answer = subprocess.run(
        [sys.executable, "-m", "bh_studio", *map(str, arguments)],
        input=lines,
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
    assert (session.model.id, session.sides) == ("embedded", (None, RuleParameters(level=0.05)))
    baseline, bh = session.records[0], session.records[1]
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
    for said, record in zip(document["sides"], load_session(saved).records, strict=True):
        assert said["text"] == record.text
        assert tuple(said["token_ids"]) == record.token_ids
        assert said["statistics"] == record.statistics()


def test_a_conversation_in_the_window_goes_on_in_the_terminal(tmp_path: Path) -> None:
    model = save_tiny_chat_checkpoint(tmp_path / "instruct")
    first, second = tmp_path / "1.bhsession", tmp_path / "2.bhsession"
    options = ("--model", model, "--max-k", "4", "--max-new-tokens", "12", "--no-sample")
    window = run_program(
        *(*options, "--prompt", "Who are you?", "--system", "Be brief."),
        *("--run", "--save", first, "--quit"),
    )
    assert (window.returncode, window.stderr) == (0, "")
    window = run_program(
        *options, "--open", first, "--prompt", "Why?", "--run", "--save", second, "--quit"
    )
    assert (window.returncode, window.stderr) == (0, "")
    session = load_session(second)
    assert session.conversation is not None
    assert [turn.prompt for turn in session.conversation.turns] == ["Who are you?"]
    terminal = run_program(
        *("chat", *options, "--continue", first, "--out", tmp_path / "3.bhsession"),
        lines="Why?\n",
    )
    assert terminal.returncode == 0, terminal.stderr
    again = load_session(tmp_path / "3.bhsession")
    assert again.conversation == session.conversation
    for side, record in enumerate(session.records):
        assert again.records[side].prompt_token_ids == record.prompt_token_ids
        assert again.records[side].token_ids == record.token_ids


def test_copying_an_answer_does_not_break_the_end() -> None:
    # In a process of its own: what is tested happens after Python has ended.
    code = """
import sys
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication
from bh_studio.app import WindowOptions, run_window
from bh_studio.ui.main_window import MainWindow
from tests.fake_engine import FakeEngine

def copy_and_close():
    (window,) = (w for w in app.topLevelWidgets() if isinstance(w, MainWindow))
    if window.session.session is None:
        QTimer.singleShot(20, copy_and_close)
        return
    window.compare.clock.flush()
    window.compare.answers.panels[1].text.selectAll()
    window.compare.answers.panels[1].text.copy()
    print(app.clipboard().text())
    window.close()

app = QApplication([])
engine = FakeEngine()
engine.loads_at_once = True
engine.script = dict.fromkeys((0, 1), [" upon"])
QTimer.singleShot(20, copy_and_close)
sys.exit(run_window(WindowOptions(prompt="Once", run=True), lambda: engine))
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (answer.returncode, answer.stdout) == (0, "Once upon\n"), answer.stderr
