"""`bh-studio calibrate`: router logits recorded on texts, what nulls they give, and their file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bh_studio.cli.definitions import add_definition_option, run_or_save
from bh_studio.cli.following import read_to_end
from bh_studio.cli.loading import Loaded, load
from bh_studio.cli.options import add_model_option, output_file, write_and_show
from bh_studio.cli.resuming import (
    add_restart_option,
    open_journal,
    say_interrupted,
)
from bh_studio.cli.tables.calibration import table
from bh_studio.cli.terminal.streams import EXIT_OK, EXIT_USAGE, CommandError, print_result, say
from bh_studio.engine.errors import Cancelled, CancelToken
from bh_studio.engine.protocol.events import NullJudged
from bh_studio.engine.protocol.experiments import Calibration
from bh_studio.engine.protocol.requests import JudgeNull, SaveCalibration
from bh_studio.engine.protocol.texts import Text, read_texts, shipped_text, sources_of
from bh_studio.engine.records.recording import RecordedLogits
from bh_studio.engine.records.terms import ModelInfo
from bh_studio.engine.rules.parameters import NullName, RuleParameters, ScoreName

ENDINGS = (".npz",)
SCHEMA_VERSION = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what this command does, and add its arguments."""
    parser.description = (
        "Record the router logits of a model on text files, or on the text that ships "
        "with the program, and print how well a null fitted on one half of them describes the "
        "other."
    )
    parser.add_argument(
        "texts", nargs="*", type=Path, metavar="PATH", help="text files, or folders of .txt files"
    )
    add_model_option(parser)
    parser.add_argument(
        "--out",
        type=output_file(ENDINGS),
        metavar="FILE.npz",
        help="keep the recording, each window as soon as it is read; any null can be fitted on it "
        "later. After an interruption the same command goes on",
    )
    add_restart_option(parser)
    parser.add_argument(
        "--check",
        type=Path,
        metavar="FILE.npz",
        help="judge a saved recording, if it is of this model, instead of making one",
    )
    parser.add_argument(
        "--null",
        choices=[null.value for null in NullName],
        default=NullName.DISCARDED.value,
        help="the null to judge (%(default)s)",
    )
    parser.add_argument(
        "--score",
        choices=[score.value for score in ScoreName],
        default=ScoreName.PROBABILITY.value,
        help="what experts are judged by; its factor of each expert, if it has one, is measured "
        "and saved too (%(default)s)",
    )
    parser.add_argument(
        "--alpha", type=float, default=0.05, metavar="A", help="level to judge for (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    add_definition_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        parameters = RuleParameters(
            level=arguments.alpha, null=NullName(arguments.null), score=ScoreName(arguments.score)
        )
    except ValueError as error:
        raise CommandError(str(error), EXIT_USAGE) from error
    if arguments.check is not None and (arguments.texts or arguments.out is not None):
        raise CommandError("--check takes neither texts nor --out.", EXIT_USAGE)
    if arguments.restart and arguments.out is None:
        raise CommandError("--restart needs --out.", EXIT_USAGE)
    texts = read_texts(arguments.texts)
    if arguments.save_definition is not None:
        if not texts:
            raise CommandError("A definition names its texts; give some.", EXIT_USAGE)
        definition = _definition(texts, parameters.score)
        return run_or_save(arguments, definition, carry_out, lambda: sources_of(arguments.texts))

    def judge(loaded: Loaded, recording: RecordedLogits | None) -> None:
        request = JudgeNull(parameters.null, parameters.score, arguments.alpha, recording)
        for event in loaded.answer(request, CancelToken()):
            if isinstance(event, NullJudged):
                _show(arguments, loaded.info, event, texts)

    # Saved before it is judged: the recording is good whatever null cannot be fitted on it.
    if texts or (arguments.check is None and parameters.score.has_factor):
        return _record(arguments, _definition(texts, parameters.score), judge)
    loaded = load(arguments, arguments.check)
    write_and_show(
        arguments.out, lambda out: _save_calibration(loaded, out), lambda: judge(loaded, None)
    )
    return EXIT_OK


def _definition(texts: tuple[Text, ...], score: ScoreName) -> Calibration:
    """What records `texts`, or the text that ships without any, with the factors of `score`."""
    return Calibration(
        texts=texts or (shipped_text(),),
        factors=(score,) if score.has_factor else (),
    )


def carry_out(arguments: argparse.Namespace, definition: Calibration) -> int:
    """Record what `definition` says, keep it at --out and print what it is of; the exit code.

    No null is judged. Raises CommandError for an --out that is no .npz or not given.
    """
    if arguments.out is None or arguments.out.suffix not in ENDINGS:
        raise CommandError("A recording is kept in a file; give --out FILE.npz.", EXIT_USAGE)

    def show(loaded: Loaded, recording: RecordedLogits) -> None:
        if arguments.json:
            print_result(_json_text(loaded.info, recording, definition.texts))
        else:
            layers, tokens, experts = recording.logits.shape
            print_result(f"{tokens:,} tokens a layer, {layers} layers of {experts} experts.")

    return _record(arguments, definition, show)


def _record(
    arguments: argparse.Namespace,
    definition: Calibration,
    show: Callable[[Loaded, RecordedLogits], None],
) -> int:
    """Record, save to --out and `show` what was recorded; the exit code.

    It goes on from where an earlier run was interrupted. Raises EngineError for texts that are too
    short and for what the disk refuses.
    """
    try:
        with open_journal(arguments, definition, ENDINGS, replaces=True) as journal:
            loaded = load(arguments)
            recording: RecordedLogits = read_to_end(arguments, loaded, definition, journal)

            def write(out: Path) -> None:
                # It is all that its rows are, so they need not stay beside it.
                if journal.finish(recording.packed(), holds_rows=True):
                    say(f"Saved {out}")

            write_and_show(arguments.out, write, lambda: show(loaded, recording))
    except Cancelled:
        return say_interrupted(arguments.out)
    return EXIT_OK


def _save_calibration(loaded: Loaded, out: Path) -> None:
    list(loaded.answer(SaveCalibration(out), CancelToken()))
    say(f"Saved {out}")


def _show(
    arguments: argparse.Namespace, model: ModelInfo, judged: NullJudged, texts: tuple[Text, ...]
) -> None:
    """Print the diagnostics."""
    diagnostics, recording = judged.diagnostics, judged.recording
    if arguments.json:
        print_result(_json_text(model, recording, texts, diagnostics=diagnostics.to_dict()))
    else:
        assert recording.origin is not None
        print_result(table(diagnostics, recording.logits.shape[2], recording.origin.top_k))


def _json_text(
    model: ModelInfo, recording: RecordedLogits, texts: tuple[Text, ...], **more: Any
) -> str:
    """What was recorded of which model, and `more`, as --json prints it."""
    assert recording.origin is not None
    info = replace(model, null_sha256=recording.sha256, null_samples=recording.samples)
    layers, _, experts = recording.logits.shape
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "model": asdict(info),
        "recording": {
            "texts": [text.name for text in texts],
            "layers": layers,
            "experts": experts,
            **asdict(recording.origin),
        },
        **more,
    }
    return json.dumps(document, allow_nan=False)
