"""`bh-studio sweep`: one prompt with several rules, each against the same baseline."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING, Any

import msgspec

from bh_studio.cli.conversation import (
    add_conversation_options,
    check_conversation_options,
    conversation,
)
from bh_studio.cli.loading import load
from bh_studio.cli.options import (
    add_calibration_option,
    add_generation_options,
    add_model_option,
    add_prompts_file_option,
    generation_parameters,
    output_file,
    whole_number_from,
)
from bh_studio.cli.resuming import (
    ENDINGS,
    add_restart_option,
    before_loading,
    begin,
    carried_out,
    document,
    json_text,
    open_journal,
    say_taken_over,
    stopped,
    write_result,
)
from bh_studio.cli.rule_options import add_rules_options, rules_from
from bh_studio.cli.tables.answer_columns import legend
from bh_studio.cli.tables.sweep import is_by_alpha, summary_lines, table_head, table_row, to_csv
from bh_studio.cli.terminal.interrupt import stop_on_interrupt
from bh_studio.cli.terminal.progress import Progress
from bh_studio.cli.terminal.streams import (
    EXIT_OK,
    EXIT_USAGE,
    CommandError,
    print_result,
    read_prompt,
    say,
)
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.protocol.events import Finished, RowReady, TokenGenerated
from bh_studio.engine.protocol.experiments import Sweep, kind_of
from bh_studio.engine.protocol.prompts_file import read_prompts
from bh_studio.engine.records.journal import Journal
from bh_studio.engine.records.rows import Answer
from bh_studio.engine.records.sweep import SweepResult

if TYPE_CHECKING:
    from bh_studio.engine.loading import LoadedModel

_WHAT = "answers"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "sweep",
        prog="bh-studio sweep",
        help="answer a prompt with several rules",
        description="Answer PROMPT once with the model's own routing and then with each of several "
        "rules; print how many experts each answer used and how far it is the same.",
    )
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "prompt",
        nargs="?",
        metavar="PROMPT",
        help='the text to continue, or a message to an instruct model; "-" reads it from standard '
        "input",
    )
    add_prompts_file_option(asked)
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
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        rules, generation = rules_from(arguments), generation_parameters(arguments)
    except ValueError as error:
        raise CommandError(str(error), EXIT_USAGE) from error
    check_conversation_options(arguments)
    plain = Sweep(
        prompts=_prompts(arguments),
        sides=(None, *rules),
        generation=generation,
        seeds=arguments.seeds,
    )
    settings = before_loading(plain.settings())
    with open_journal(arguments, kind_of(plain), settings) as journal:
        loaded = load(arguments, arguments.calibration)
        precedes = conversation(arguments, loaded.info)
        definition = msgspec.structs.replace(plain, conversation=precedes)
        rows = begin(journal, definition, loaded)
        result, is_read = _answered(arguments, loaded, definition, journal, len(rows))
        rows_json = [row.to_json() for row in result.rows()]
        content = {
            "summaries": [summary.to_json() for summary in result.summaries()],
            "refused": {str(place): reason for place, reason in result.refused.items()},
            "rows": rows_json,
        }
        whole = document(journal, result.is_complete, content)
        if result.is_complete:
            write_result(journal, arguments.out, whole, lambda: to_csv(list(result.rows())))
        whose = "BH's counts" if is_by_alpha(rules) else "the rules' counts"
        explained = [*summary_lines(result), legend(rules[0].mode, whose)]
        print_result(json_text(whole) if arguments.json else "\n".join(explained))
    total = _total(definition, result.refused)
    if not result.is_complete and is_read:
        return stopped(arguments.out, len(result.answers), total, _WHAT)
    return EXIT_OK


def _prompts(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The one prompt, or those of a file; rows of it that hold none are said."""
    if arguments.prompts_file is None:
        return (read_prompt(arguments.prompt),)
    file = read_prompts(arguments.prompts_file)
    for bad in file.skipped:
        say(f"Line {bad.line} is skipped. {bad.reason}")
    return tuple(asked.prompt for asked in file.prompts)


def _total(definition: Sweep, refused: Sized = ()) -> int:
    """How many answers there are in the end."""
    return (len(definition.prompts) - len(refused)) * definition.seeds * len(definition.sides)


def _answered(
    arguments: argparse.Namespace,
    loaded: LoadedModel,
    definition: Sweep,
    journal: Journal,
    taken_over: int,
) -> tuple[SweepResult, bool]:
    """The answers, each printed as soon as it is there; and whether anybody still wants them."""
    total = _total(definition)
    progress, cancel = Progress(total, taken_over, _WHAT), CancelToken()
    answers: dict[str, Answer] = {}
    unshown = dict(journal.rows)
    is_read = True
    say_taken_over(arguments.out, taken_over, total, _WHAT)
    if not arguments.json:
        print_result(table_head(definition.sides))
    try:
        with stop_on_interrupt(cancel):
            for event in carried_out(loaded, definition, journal, cancel):
                if isinstance(event, TokenGenerated):
                    progress.tokens(event.index + 1)
                elif isinstance(event, RowReady):
                    progress.row_finished()
                    unshown[event.key] = event.row
                elif isinstance(event, Finished):
                    result: SweepResult = event.document
                    break
                if unshown and is_read and not arguments.json:
                    is_read = _show(definition, answers, unshown)
                    unshown.clear()
                    if not is_read and arguments.out is None:
                        cancel.cancel()
    finally:
        progress.clear()
    return result, is_read or arguments.out is not None


def _show(
    definition: Sweep, answers: dict[str, Answer], unshown: Mapping[str, dict[str, Any]]
) -> bool:
    """Print the `unshown` rows and put them to the `answers` before; whether there is a reader."""
    # Only these are parsed: all of them with each answer would take longer than answering does.
    answers.update({key: Answer.from_json(row) for key, row in unshown.items()})
    result = SweepResult(definition.prompts, definition.sides, definition.seeds, answers, {}, False)
    return all(print_result(table_row(row, definition.sides)) for row in result.rows(unshown))
