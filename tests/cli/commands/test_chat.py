"""`bh-studio chat` through a pipe and in a terminal, and chats with compare and sweep."""

from __future__ import annotations

import errno
import io
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bh_studio import cli
from bh_studio.__main__ import build_parser
from bh_studio.engine.files.lock import locked
from bh_studio.engine.records.session_file import load_session
from bh_studio.engine.rules import parse_rule
from tests.cli.conftest import Start
from tests.tiny_olmoe import CHAT_CONTEXT, TOP_K

SHORT = ("--max-k", str(TOP_K), "--max-new-tokens", "8", "--no-sample")
Chat = Callable[..., int]


@pytest.fixture
def chat(chat_checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> Chat:
    """Runs the command with these lines on standard input."""

    def run(lines: str | bytes, *arguments: str) -> int:
        data = lines.encode() if isinstance(lines, str) else lines
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        options = ["chat", "--model", chat_checkpoint, *SHORT, *arguments]
        return cli.run(build_parser().parse_args(options))

    return run


def test_each_line_is_a_turn_and_the_last_session_holds_them_all(
    chat: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "a.bhsession"
    assert chat("Hello ☃\n\nWhy?\nBye", "--system", "Be brief.", "--out", str(saved)) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line for line in lines if line.startswith("> ")] == ["> Hello ☃", "> Why?", "> Bye"]
    assert sum(line.startswith("[8 and 8 tokens; 4.00 and ") for line in lines) == 3
    assert captured.err.splitlines() == ["Loading the model ...", f"Saved {saved}"]
    session = load_session(saved)
    assert session.prompt == "Bye"
    assert session.conversation is not None
    assert session.conversation.system == "Be brief."
    assert [turn.prompt for turn in session.conversation.turns] == ["Hello ☃", "Why?"]


def test_lines_are_read_as_they_are_given(chat: Chat, tmp_path: Path) -> None:
    saved = tmp_path / "a.bhsession"
    lines = "Hello\u00a0!\u2028so\r\nWhy?\r\r\nBye"
    for data in (lines.encode(), lines.encode("utf-8-sig"), lines.encode("utf-16")):
        assert chat(data, "--out", str(saved)) == 0
        session = load_session(saved)
        assert session.conversation is not None
        asked = [turn.prompt for turn in session.conversation.turns]
        assert [*asked, session.prompt] == ["Hello\u00a0!\u2028so", "Why?\r", "Bye"]


def test_turns_are_those_of_a_comparison(
    chat: Chat, chat_checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "a.json"
    assert chat("Hello\n", "--out", str(saved)) == 0
    capsys.readouterr()
    arguments = ["compare", "Hello", "--model", chat_checkpoint, *SHORT, "--json"]
    assert cli.run(build_parser().parse_args(arguments)) == 0
    captured = capsys.readouterr()
    assert "Chat: a prompt is a message" in captured.err
    compared, document = json.loads(captured.out), json.loads(saved.read_text())
    for side in range(2):
        for name in ("prompt_token_ids", "token_ids", "statistics"):
            assert compared["sides"][side][name] == document["sides"][side][name]


def test_any_rule_chats(chat: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "a.bhsession"
    assert chat("Hello\nWhy?\n", "--rule", "top-k:2,mode=analyze", "--out", str(saved)) == 0
    out = capsys.readouterr().out
    title = f"top-k:2,max_k={TOP_K},mode=analyze"
    assert out.count(f" | B: {title}\n") == 2
    assert out.count("; 4.00 and 2.00 mean experts; ") == 2
    assert " ".join(out.split()).count("Analyze: B used the model's own routing; its counts") == 2
    assert "BH" not in out
    assert load_session(saved).sides == (None, parse_rule(title))


def sides_of(*rules: str) -> list[str]:
    """Options for sides with `rules`, all with the limit of the tiny model."""
    return [part for rule in rules for part in ("--rule", f"{rule},max_k={TOP_K}")]


def test_each_of_several_sides_remembers_its_own_answers(
    chat_checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def chat(lines: str, *arguments: str) -> int:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
        common = ("--model", chat_checkpoint, "--max-new-tokens", "8", "--no-sample")
        return cli.run(build_parser().parse_args(["chat", *common, *arguments]))

    first, second = tmp_path / "a.bhsession", tmp_path / "b.bhsession"
    sides = sides_of("bh:0.1", "top-k:1")
    assert chat("Hello\nWhy?\n", *sides, "--out", str(first)) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("[8, 8 and 8 tokens; 4.00, ") == 2
    assert out.count("; first differences: tokens ") == 2
    session = load_session(first)
    assert session.conversation is not None
    (turn,) = session.conversation.turns
    assert len(turn.answers) == len(session.records) == 3
    assert len(set(turn.answers)) > 1

    assert chat("Bye\n", *sides, "--continue", str(first), "--out", str(second)) == 0
    assert load_session(second).conversation == session.continued
    capsys.readouterr()
    for other in (sides_of("bh:0.1"), [*sides, "--no-own"]):
        assert chat("Bye\n", *other, "--continue", str(first)) == 2
        said = capsys.readouterr().err
        assert f"has the sides own, bh:0.1,max_k={TOP_K}, top-k:1,max_k={TOP_K}, this chat" in said
        assert said.count("\n") == 1


def test_a_saved_conversation_is_continued(chat: Chat, tmp_path: Path) -> None:
    first, second, whole = (tmp_path / f"{name}.bhsession" for name in "abc")
    assert chat("Hello\nWhy?\n", "--system", "Be brief.", "--out", str(first)) == 0
    assert chat("Bye\n", "--continue", str(first), "--out", str(second)) == 0
    assert chat("Hello\nWhy?\nBye\n", "--system", "Be brief.", "--out", str(whole)) == 0
    found, expected = load_session(second), load_session(whole)
    assert found.conversation == expected.conversation
    for side in range(2):
        assert found.records[side].token_ids == expected.records[side].token_ids


def test_commands(chat: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c = (tmp_path / f"{name}.bhsession" for name in "abc")
    lines = (
        f"/help\nHello\n/save {a}\n/system Be kind.\n /slash\n/save {b}\n/new\n"
        f"Again\n/save {c}\n/quit\nNever asked\n"
    )
    assert chat(lines) == 0
    said = capsys.readouterr()
    assert "/system TEXT" in said.err
    assert "\n> Never" not in said.out
    first, second, third = (load_session(path) for path in (a, b, c))
    assert first.conversation is not None
    assert second.conversation is not None
    assert third.conversation is not None
    assert (first.conversation.system, first.conversation.turns) == ("", ())
    assert second.conversation.system == "Be kind."
    assert second.prompt == " /slash"
    assert [turn.prompt for turn in second.conversation.turns] == ["Hello"]
    assert (third.conversation.system, third.conversation.turns) == ("Be kind.", ())


def test_a_system_prompt_can_be_taken_back(chat: Chat, tmp_path: Path) -> None:
    saved = tmp_path / "a.bhsession"
    assert chat("Hello\n/system\nWhy?\n", "--system", "Be brief.", "--out", str(saved)) == 0
    conversation = load_session(saved).conversation
    assert conversation is not None
    assert (conversation.system, len(conversation.turns)) == ("", 1)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("/sytem x", "There is no command /sytem; /help lists them."),
        ("/save", "use one of .bhsession, .json, .csv"),
        ("/save a.txt", "a.txt: use one of .bhsession, .json, .csv"),
        ("/save /nowhere/a.json", "/nowhere does not exist"),
        ("x" * CHAT_CONTEXT, f"at most {CHAT_CONTEXT}, the answer included. Start a new"),
        (b"abc\xff", "The line is not valid UTF-8 text."),
    ],
)
def test_what_is_wrong_with_a_line_is_said_and_costs_nothing(
    line: str | bytes, sentence: str, chat: Chat, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    saved = tmp_path / "a.bhsession"
    data = line if isinstance(line, bytes) else line.encode()
    assert chat(b"Hello\n" + data + b"\nWhy?\n", "--out", str(saved)) == 1
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert "Traceback" not in captured.err
    conversation = load_session(saved).conversation
    assert conversation is not None
    assert [turn.prompt for turn in conversation.turns] == ["Hello"]


def test_there_is_nothing_to_save_before_the_first_answer(
    chat: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(f"/save {tmp_path / 'a.json'}\n") == 1
    assert "nothing to save yet" in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()


def test_a_file_that_cannot_be_written_does_not_end_the_conversation(
    chat: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def refuse(_path: Path, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bh_studio.engine.records.sessions.exports.write_atomically", refuse)
    saved = tmp_path / "a.json"
    assert chat("Hello\nWhy?\n", "--out", str(saved)) == 1
    captured = capsys.readouterr()
    assert captured.out.count("mean experts") == 2
    assert captured.err.count("could not be written") == 2
    assert "Saved" not in captured.err


def test_a_file_that_cannot_be_written_is_refused_before_the_first_turn(
    chat: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "a.json"
    with locked(saved):
        assert chat("Hello\n", "--out", str(saved)) == 2
    saved.touch(mode=0o444)
    with pytest.raises(SystemExit):
        chat("Hello\n", "--out", str(saved))
    captured = capsys.readouterr()
    assert "is being written by another bh-studio" in captured.err
    assert f"{saved} cannot be written: The file is write-protected" in captured.err
    assert captured.out == ""
    assert chat(f"Hello\n/save {saved}\n") == 1
    assert "The file is write-protected." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--alpha", "1"], 2, "alpha must lie between 0 and 1"),
        (["--rule", "bh:0.1", "--alpha", "0.2"], 2, '"bh:0.1" and --alpha 0.2 contradict'),
        (["--rule", "hc:0.5", "--alpha", "0.5"], 2, '--rule is "hc:0.5"; leave --alpha out'),
        (["--rule", "top-k:3/2"], 1, "k has 2 values for the 3 layers"),
        (["--max-k", "17"], 1, "16 experts"),
        (["--continue", "/nowhere.bhsession"], 2, "cannot be read: No such file"),
        (["--continue", __file__], 2, "not a zip file"),
        (["--system", "\udcff"], 2, "The system prompt is not valid UTF-8"),
    ],
)
def test_bad_options_get_one_sentence(
    arguments: list[str], code: int, sentence: str, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat("Hello\n", *arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err.splitlines()[-1]


def test_a_base_model_does_not_chat(
    chat: Chat, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat("Hello\n", "--model", checkpoint) == 1
    assert "no chat template" in capsys.readouterr().err
    # A run of plain text is nothing to continue.
    saved = tmp_path / "a.bhsession"
    arguments = ["compare", "Once", "--model", checkpoint, *SHORT, "--out", str(saved)]
    assert cli.run(build_parser().parse_args(arguments)) == 0
    assert chat("Hello\n", "--continue", str(saved)) == 2
    assert "plain text" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["compare", "sweep"])
def test_an_instruct_model_chats_and_a_base_model_continues_unless_told(
    command: str, checkpoint: str, chat_checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(model: str, *arguments: str) -> tuple[int, str]:
        options = [command, "Hello", "--model", model, *SHORT, *arguments]
        code = cli.run(build_parser().parse_args(options))
        return code, capsys.readouterr().err

    code, said = run(chat_checkpoint, "--system", "Be brief.")
    assert (code, "Chat: " in said) == (0, True)
    code, said = run(chat_checkpoint, "--no-chat")
    assert (code, "Plain text: " in said) == (0, True)
    code, said = run(checkpoint)
    assert (code, "Chat" in said, "Plain" in said) == (0, False, False)
    for options in (["--chat"], ["--system", "x"]):
        code, said = run(checkpoint, *options)
        assert (code, "no chat template" in said) == (1, True)
    code, said = run(chat_checkpoint, "--system", "x", "--no-chat")
    assert (code, "leave out --no-chat" in said) == (2, True)


def test_rows_of_a_chat_and_of_plain_text_are_not_mixed(
    chat_checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, saved = tmp_path / "prompts.txt", tmp_path / "a.json"
    prompts.write_text("Hello\nWhy?\n")

    def run(*arguments: str) -> int:
        options = ["compare", "--prompts-file", str(prompts), "--out", str(saved)]
        model = ["--model", chat_checkpoint, *SHORT]
        return cli.run(build_parser().parse_args([*options, *model, *arguments]))

    assert run("--system", "Be brief.") == 0
    document = json.loads(saved.read_text())
    settings = document["settings"]
    assert (settings["prompt_format"], settings["system_prompt"]) == ("chat", "Be brief.")
    capsys.readouterr()
    for arguments, words in (
        (["--no-chat"], "prompt format (chat then, plain text now)"),
        (["--system", "Be kind."], "system prompt (Be brief. then, Be kind. now)"),
    ):
        assert run(*arguments) == 2
        assert words in capsys.readouterr().err
    assert run("--system", "Be brief.") == 0
    assert "has all 2 prompts already" in capsys.readouterr().err
    assert json.loads(saved.read_text()) == document


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_an_interrupted_pipe_keeps_what_is_there_and_ends(
    chat_checkpoint: str, tmp_path: Path, start: Start
) -> None:
    saved = tmp_path / "a.bhsession"
    arguments = ("--max-k", "4", "--max-new-tokens", "400", "--no-sample", "--out", str(saved))
    (tmp_path / "lines.txt").write_text("Hello\nNever\n")
    with (tmp_path / "lines.txt").open() as lines:
        program = start("chat", "--model", chat_checkpoint, *arguments, stdin=lines)
    assert program.stdout is not None
    while not program.stdout.readline().startswith("---"):
        pass
    program.send_signal(signal.SIGINT)
    rest, _ = program.communicate(timeout=60)
    assert program.returncode == 130
    assert "stopped" in rest
    assert "> Never" not in rest
    assert 0 < len(load_session(saved).records[0].token_ids) < 400


def read_until(terminal: int, mark: str) -> str:
    """What the program prints to `terminal` up to `mark`; the test fails if that does not come."""
    text = ""
    while mark not in text:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, f"no {mark!r} after {text!r}"
        text += os.read(terminal, 4096).decode(errors="replace")
    return text


def interrupt(program: subprocess.Popen[str], terminal: int) -> None:
    """Press Ctrl+C until it is heard: readline misses one that comes before it waits for a key."""
    ready: list[int] = []
    while not ready:
        program.send_signal(signal.SIGINT)
        ready, _, _ = select.select([terminal], [], [], 2)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
def test_a_person_types_stops_an_answer_and_leaves(
    chat_checkpoint: str, tmp_path: Path, start: Start
) -> None:
    saved = tmp_path / "a.bhsession"
    arguments = ("--max-k", "4", "--max-new-tokens", "400", "--no-sample", "--out", str(saved))
    terminal, theirs = os.openpty()
    program = start("chat", "--model", chat_checkpoint, *arguments, stdin=theirs, stdout=theirs)
    os.close(theirs)
    read_until(terminal, "> ")
    # At the prompt: nothing is lost, and nothing ends.
    interrupt(program, terminal)
    read_until(terminal, "> ")
    os.write(terminal, b"Hello\n")
    read_until(terminal, "---")
    program.send_signal(signal.SIGINT)
    assert "stopped]" in read_until(terminal, "> ")
    os.write(terminal, b"/nonsense\n")
    read_until(terminal, "> ")
    os.write(terminal, b"\x04")
    assert program.stderr is not None
    said = program.stderr.read()
    assert program.wait(timeout=60) == 0
    os.close(terminal)
    assert "A conversation with " in said
    assert "Ctrl+D or /quit ends" in said
    assert "There is no command /nonsense" in said
    session = load_session(saved)
    assert session.prompt == "Hello"
    assert 0 < len(session.records[0].token_ids) < 400
