"""`bh-studio sweep`: one prompt with several rules, each against the same baseline."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from bh_studio.cli.conversation import (
    add_conversation_options,
    check_conversation_options,
    settled,
)
from bh_studio.cli.definitions import add_definition_option, run_or_save
from bh_studio.cli.following import answer_all
from bh_studio.cli.loading import load
from bh_studio.cli.options import (
    add_calibration_option,
    add_generation_options,
    add_model_option,
    add_prompts_file_options,
    generation_parameters,
    output_file,
    prompts_of,
    whole_number_from,
)
from bh_studio.cli.resuming import (
    ENDINGS,
    add_restart_option,
    open_journal,
    stopped,
    write_and_print,
)
from bh_studio.cli.rule_options import add_rules_options, rules_from
from bh_studio.cli.tables.answer_columns import legend
from bh_studio.cli.tables.sweep import is_by_alpha, summary_lines, table_head, table_row, to_csv
from bh_studio.cli.terminal.columns import shorten
from bh_studio.cli.terminal.streams import (
    EXIT_OK,
    EXIT_USAGE,
    CommandError,
    print_result,
    read_prompt,
    say,
)
from bh_studio.engine.protocol.experiments import Sweep
from bh_studio.engine.records.rows import Answer
from bh_studio.engine.records.sweep import SweepResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what this command does, and add its arguments."""
    parser.description = (
        "Answer PROMPT once with the model's own routing and then with each of several "
        "rules; print how many experts each answer used and how far it is the same."
    )
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "prompt",
        nargs="?",
        metavar="PROMPT",
        help='the text to continue, or a message to an instruct model; "-" reads it from standard '
        "input",
    )
    add_prompts_file_options(parser, asked)
    parser.add_argument(
        "--seeds",
        type=whole_number_from(1),
        default=1,
        metavar="N",
        help="answer each prompt N times, with --seed and the seeds after it (%(default)s)",
    )
    add_model_option(parser)
    add_calibration_option(parser)
    add_conversation_options(parser)
    add_rules_options(parser)
    add_generation_options(parser)
    parser.add_argument(
        "--out",
        type=output_file(ENDINGS),
        metavar="FILE",
        help="keep the answers, each as soon as it is there: .json or .csv; after an interruption "
        "the same command goes on",
    )
    add_restart_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    add_definition_option(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_or_save(arguments, _definition(arguments), carry_out)


def _definition(arguments: argparse.Namespace) -> Sweep:
    try:
        rules, generation = rules_from(arguments), generation_parameters(arguments)
        return Sweep(
            prompts=_prompts(arguments),
            sides=(None, *rules),
            generation=generation,
            seeds=arguments.seeds,
        )
    except ValueError as error:
        raise CommandError(str(error), EXIT_USAGE) from error


def _prompts(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The one prompt, or those of a file; rows of it that hold none are said."""
    file = prompts_of(arguments)
    if file is None:
        return (read_prompt(arguments.prompt),)
    for bad in file.skipped:
        say(f"Line {bad.line} is skipped. {bad.reason}")
    return tuple(asked.prompt for asked in file.prompts)


def carry_out(arguments: argparse.Namespace, definition: Sweep) -> int:
    """Run `definition` with the model and the --out of `arguments`, and print it; the exit code."""
    check_conversation_options(arguments)
    with open_journal(arguments, definition) as journal:
        loaded = load(arguments, arguments.calibration)
        definition = settled(arguments, definition, loaded.info)
        answers: dict[str, Answer] = {}
        result, progress, is_wanted = answer_all(
            arguments, loaded, definition, journal, table_head(definition.sides),
            lambda rows: arguments.json or _show(definition, answers, rows),
        )  # fmt: skip
        for number, reason in result.refused.items():
            say(f'The prompt "{shorten(result.prompts[number], 40)}" is skipped. {reason}')
        write_and_print(
            arguments, journal, result, lambda: _explained(result),
            lambda: to_csv(list(result.rows())),
        )  # fmt: skip
    if not result.is_complete and is_wanted:
        return stopped(arguments.out, progress)
    return EXIT_OK


def _show(
    definition: Sweep, answers: dict[str, Answer], rows: Mapping[str, dict[str, Any]]
) -> bool:
    """Print `rows` and put them to the `answers` before; whether there is a reader."""
    # Only these are parsed: all of them with each answer would take longer than answering does.
    answers.update({key: Answer.from_json(row) for key, row in rows.items()})
    result = SweepResult(definition.prompts, definition.sides, definition.seeds, answers, {}, False)
    return all(print_result(table_row(row, definition.sides)) for row in result.rows(rows))


def _explained(result: SweepResult) -> str:
    """What ends the table: the rules over all prompts, and what its titles mean."""
    rules = [rule for rule in result.sides if rule is not None]
    whose = "BH's counts" if is_by_alpha(rules) else "the rules' counts"
    return "\n".join([*summary_lines(result), legend(rules[0].mode, whose)])
