"""`bh-studio compare` as a person or a script runs it, on a tiny checkpoint."""

from __future__ import annotations

import io
import json
import signal
import sys
from pathlib import Path

import pytest

from bh_studio import cli, paths
from bh_studio.__main__ import build_parser
from bh_studio.engine.experiments.side_run import SideRun
from bh_studio.engine.records.runs.reader import load_run
from bh_studio.engine.records.session_file import load_session
from bh_studio.engine.rules import CATALOGUE, RuleName, format_rule, parse_rule
from tests.cli.conftest import Start
from tests.tiny_olmoe import LAYERS, TOP_K


def compare(*arguments: str, prompt: str = "Once upon a time") -> int:
    parser = build_parser()
    return cli.run(parser.parse_args(["compare", prompt, "--max-k", str(TOP_K), *arguments]))


def test_prints_both_answers_and_their_counts(
    checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare("--model", checkpoint, "--alpha", "0.1", "--max-new-tokens", "12") == 0
    out = capsys.readouterr().out
    assert f"A: baseline (top {TOP_K})" in out
    assert "B: BH (alpha 0.1)" in out
    rows = {line[:24].strip(): line[24:].split() for line in out.splitlines()}
    assert rows["tokens"] == ["12", "12"]
    assert rows["mean experts"][0] == f"{TOP_K}.00"
    assert 1 <= float(rows["mean experts"][1]) <= TOP_K
    assert rows["speed against A"][0] == "-"
    assert "B first differs from A at token" in out


def test_json_is_one_object_on_standard_output(
    checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare("--model", checkpoint, "--max-new-tokens", "5", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 4
    assert [len(side["token_ids"]) for side in document["sides"]] == [5, 5]


def test_the_result_is_saved_in_the_format_of_its_ending(checkpoint: str, tmp_path: Path) -> None:
    common = ("--model", checkpoint, "--max-new-tokens", "5", "--out")
    for name in ("a.bhsession", "a.json", "a.csv"):
        assert compare(*common, str(tmp_path / name)) == 0
    session = load_session(tmp_path / "a.bhsession")
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["sides"][1]["text"] == session.records[1].text
    assert (tmp_path / "a.csv").read_text().count("\n") == 1 + 2 * 5 * LAYERS


def kept_folders() -> list[Path]:
    return list(paths.history_dir().glob("*/*/*"))


def test_an_answer_is_kept_unless_that_is_not_wanted(checkpoint: str, tmp_path: Path) -> None:
    common = ("--model", checkpoint, "--max-new-tokens", "5")
    assert compare(*common, "--no-history") == 0
    assert kept_folders() == []
    assert compare(*common, "--out", str(tmp_path / "a.bhsession")) == 0
    (folder,) = kept_folders()
    assert load_run(folder).to_json() == load_session(tmp_path / "a.bhsession").to_json()


def test_of_an_answer_that_breaks_off_it_is_said_where_the_rest_is(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step, calls = SideRun.step, iter(range(100))

    def failing(side: SideRun) -> object:
        if next(calls) == 6:
            raise RuntimeError("CUDA out of memory")
        return step(side)

    monkeypatch.setattr(SideRun, "step", failing)
    assert compare("--model", checkpoint, "--max-new-tokens", "9") == 1
    (folder,) = kept_folders()
    assert f"What was answered by then is kept in {folder}" in capsys.readouterr().err
    assert [len(record.token_ids) for record in load_run(folder).records] == [3, 3]


def test_the_prompt_can_come_from_standard_input(
    checkpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # All that is given is read, but the mark that says how it is written.
    text = "piped ☃ in\u00a0: «\u2028\u2029\r\n\r"
    for data in (text.encode(), text.encode("utf-8-sig"), text.encode("utf-16")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert compare("--model", checkpoint, "--max-new-tokens", "2", "--json", prompt="-") == 0
        assert json.loads(capsys.readouterr().out)["prompt"] == text


def test_sampling_repeats_with_its_seed(
    checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    for seed in ("1", "1", "2"):
        arguments = ("--model", checkpoint, "--max-new-tokens", "20", "--sample", "--json")
        assert compare(*arguments, "--seed", seed) == 0
        texts.append(json.loads(capsys.readouterr().out)["sides"][0]["token_ids"])
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--alpha", "1"], 2, "alpha must lie between 0 and 1"),
        (["--min-k", "9"], 2, "min_k must not exceed max_k"),
        (["--max-new-tokens", "0"], 2, "max_new_tokens must be at least 1"),
        (["--max-k", "17"], 1, "16 experts"),
        (["--model", "/nowhere"], 1, "no config.json"),
        (["--model", "nobody/nothing"], 1, "Fetch it with `bh-studio download nobody/nothing`"),
        (["--device", "gpu"], 1, "'gpu' is not a device. Choose auto, cpu"),
        (["--device", "cuda:99"], 1, "on this machine"),
        (["--calibration", "/nowhere.npz"], 1, "/nowhere.npz cannot be read: No such file"),
    ],
)
def test_bad_input_gets_one_sentence(
    arguments: list[str], code: int, sentence: str, checkpoint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert compare("--model", checkpoint, *arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("name", ["a.txt", "missing/a.json"])
def test_a_bad_output_file_is_refused_before_the_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        compare("--model", "/nowhere", "--out", str(tmp_path / name))
    assert stop.value.code == 2
    assert name in capsys.readouterr().err


def test_a_prompt_that_is_not_text_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"abc\n\xff")))
    assert compare("--model", "/nowhere", prompt="-") == 2
    said = "Standard input is not UTF-8 text: the first byte that is none is in line 2."
    assert said in capsys.readouterr().err
    assert compare("--model", "/nowhere", prompt="abc\udcff") == 2
    assert "The prompt is not valid UTF-8 text." in capsys.readouterr().err


def test_an_empty_prompt_is_refused_before_the_model_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf\n")))
    for prompt in ("", " \u00a0", "-"):
        assert compare("--model", "/nowhere", prompt=prompt) == 2
        assert capsys.readouterr().err == (
            "bh-studio: The prompt is empty. Give the beginning of a text.\n"
        )


def test_a_reader_that_leaves_costs_no_result(
    checkpoint: str, tmp_path: Path, start: Start
) -> None:
    saved = tmp_path / "a.json"
    arguments = ("--max-k", "4", "--max-new-tokens", "90", "--no-sample", "--out", str(saved))
    program = start("compare", "Once", "--model", checkpoint, *arguments)
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdout.readline()
    program.stdout.close()
    messages = program.stderr.read()
    assert program.wait(timeout=60) == 0
    loading, said = messages.splitlines()
    assert loading == "Loading the model ..."
    assert said.startswith(f"Saved {saved} (")
    assert len(json.loads(saved.read_text())["sides"][1]["token_ids"]) == 90


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_an_interrupted_run_keeps_what_it_has_and_says_so(
    checkpoint: str, tmp_path: Path, start: Start
) -> None:
    saved = tmp_path / "a.json"
    arguments = ("--max-k", "4", "--max-new-tokens", "120", "--no-sample", "--out", str(saved))
    program = start("compare", "Once", "--model", checkpoint, *arguments)
    assert program.stdout is not None
    program.stdout.readline()
    program.send_signal(signal.SIGINT)
    rest, _ = program.communicate(timeout=60)
    assert program.returncode == 130
    assert "stopped" in rest
    assert len(json.loads(saved.read_text())["sides"][1]["token_ids"]) < 120


def test_what_the_engine_warns_of_is_said_once_and_plainly(
    checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare("--model", checkpoint, "--alpha", "1e-9", "--max-new-tokens", "3") == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("bh-studio: The null holds")


@pytest.mark.parametrize("text", [entry.example_text for entry in CATALOGUE.values()])
def test_any_rule_answers_and_is_called_by_its_name(
    text: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "a.bhsession"
    options = ("--model", checkpoint, "--max-new-tokens", "5", "--out", str(saved))
    assert compare(*options, "--rule", f"{text},mode=analyze") == 0
    out = capsys.readouterr().out
    rule = parse_rule(f"{text},max_k={TOP_K},mode=analyze")
    assert load_session(saved).sides == (None, rule)
    title = "BH" if rule.rule is RuleName.BH else format_rule(rule)
    lines = out.splitlines()
    column = "B: BH (alpha 0.05)" if title == "BH" else f"B: {title}"
    assert lines[0].split(" | ") == [f"A: baseline (top {TOP_K})".ljust(48), column]
    assert column in lines
    numbers = {line[:24].strip(): line[24:] for line in lines}
    assert numbers["ended by"].split() == ["token", "limit"] * 2
    heading = next(line for line in lines if line.split() == ["A", "B"])
    assert len(heading) == len(f"{'tokens':24}{numbers['tokens']}")
    assert lines[lines.index("Mean experts of each layer (from 0):") + 1].startswith("B ")
    assert "Analyze: B used the model's own routing; its counts are simulated." in lines
    assert ("BH" in out) is (title == "BH")


def test_a_rule_that_patches_changes_the_answer_and_its_counts(
    checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--model", checkpoint, "--max-new-tokens", "5", "--json")
    assert compare(*options, "--rule", "top-k:2") == 0
    sides = json.loads(capsys.readouterr().out)["sides"]
    assert sides[1]["statistics"]["answer"]["histogram"] == [0, 0, 5 * LAYERS]
    assert compare(*options, "--rule", "top-k:1/2/3") == 0
    sides = json.loads(capsys.readouterr().out)["sides"]
    assert sides[1]["statistics"]["answer"]["per_layer_mean"] == [1, 2, 3]


def test_a_level_a_layer_leaves_the_columns_in_order(
    checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    level = "/".join(["0.123456789"] * LAYERS)
    options = ("--model", checkpoint, "--max-new-tokens", "5")
    assert compare(*options, "--rule", f"bh:{level}") == 0
    assert "BH (alpha of each layer)" in capsys.readouterr().out
    assert compare(*options, "--rule", f"cut:{level},min_k=2,weights=match") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("B: cut:0.123456789/0.123456789/") for line in lines[3:])


def sides_of(*arguments: str) -> int:
    return cli.run(build_parser().parse_args(["compare", "Once upon a time", *arguments]))


def test_four_sides_answer_and_each_is_compared_with_the_first(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "a.bhsession"
    rules = ("bh:0.1,max_k=4", "top-k:2", "top-k:4,mode=analyze")
    options = ("--model", checkpoint, "--max-new-tokens", "12", "--out", str(saved))
    assert sides_of(*options, *(part for rule in rules for part in ("--rule", rule))) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:24].strip(): line[24:].split() for line in lines}
    titles = [
        f"A: baseline (top {TOP_K})",
        *(f"{x}: {r}" for x, r in zip("BCD", rules, strict=True)),
    ]
    assert [lines.index(title) for title in titles] == list(
        range(lines.index(titles[0]), lines.index(titles[0]) + 4)
    )
    assert rows[""] != rows["tokens"] == ["12"] * 4
    assert rows["mean experts"][2:] == ["2.00", "4.00"]
    assert rows["speed against A"][0] == "-"
    assert [line.split()[0] for line in lines[-4:]] == ["Analyze:", "B", "C", "D"]
    assert lines[-1] == "D is the same as A, token for token, as far as both go."
    session = load_session(saved)
    assert session.sides == (None, *map(parse_rule, rules))
    assert session.records[0].token_ids == session.records[3].token_ids
    assert session.first_differences[0] is session.first_differences[3] is None


def test_one_side_alone_answers(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--model", checkpoint, "--max-new-tokens", "5", "--no-own", "--rule", "top-k:2")
    assert sides_of(*options) == 0
    out = capsys.readouterr().out
    assert out.startswith("A: top-k:2\n")
    assert "against A" not in out
    assert "from A" not in out
    assert "baseline" not in out


@pytest.mark.parametrize("columns", ["80", "200"])
def test_columns_stand_beside_each_other_where_there_is_room(
    columns: str, checkpoint: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", columns)
    options = ("--model", checkpoint, "--max-new-tokens", "5")
    assert sides_of(*options, "--rule", "top-k:2", "--rule", "top-k:3") == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("A: ")]
    assert heads[0].count(" | ") == {"80": 1, "200": 2}[columns]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--rule", "bh:0.05", "--alpha", "0.1"], '"bh:0.05" and --alpha 0.1 contradict'),
        (["--rule", "top-k:2", "--alpha", "0.1"], '--rule is "top-k:2"; leave --alpha out'),
        (["--rule", "top-k:2,max_k=3"], f'max_k=3" and --max-k {TOP_K} contradict'),
        (["--rule", "top-k:2,score=logit"], "The rule top-k looks at probabilities"),
        (["--rule", "top-k:2", "--rule", "bh"], "--max-k is for a single rule"),
    ],
)
def test_rules_that_make_no_sense_get_one_sentence(
    options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare("--model", "/nowhere", *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert captured.err.count("\n") == 1


def test_a_prompts_file_takes_any_rule(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Once\nThe king\n")
    options = ["compare", "--prompts-file", str(prompts), "--model", checkpoint, "--json"]
    options += ["--max-new-tokens", "5", "--rule", "top-k:2,mode=analyze"]
    assert cli.run(build_parser().parse_args(options)) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["settings"]["sides"] == [None, "top-k:2,mode=analyze"]
    assert document["overall"]["sides"][1]["agreement"] == 1.0
    assert document["overall"]["sides"][1]["statistics"]["mean"] == 2.0
    assert cli.run(build_parser().parse_args([o for o in options if o != "--json"])) == 0
    assert "counts are simulated" in capsys.readouterr().out
