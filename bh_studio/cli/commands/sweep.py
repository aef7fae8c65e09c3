"""`bh-studio sweep`: one prompt at several levels of BH, each against the same baseline."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bh_studio.cli.conversation import (
    add_conversation_options,
    check_conversation_options,
    conversation,
    conversation_settings,
)
from bh_studio.cli.loading import load
from bh_studio.cli.options import (
    add_calibration_option,
    add_generation_options,
    add_model_option,
    add_rule_options,
    generation_parameters,
    output_file,
    rule_parameters,
)
from bh_studio.cli.resuming import (
    ENDINGS,
    add_restart_option,
    collect,
    document,
    header,
    json_file,
    open_result,
    say_taken_over,
    stopped,
    write_result,
)
from bh_studio.cli.tables.answer_columns import legend
from bh_studio.cli.tables.sweep import table_head, table_row, to_csv
from bh_studio.cli.terminal.interrupt import stop_on_interrupt
from bh_studio.cli.terminal.progress import Progress
from bh_studio.cli.terminal.streams import (
    EXIT_OK,
    EXIT_USAGE,
    CommandError,
    print_result,
    read_prompt,
)
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.protocol.events import TokenGenerated
from bh_studio.engine.records.rows import SweepRow, sweep_rows_from_json
from bh_studio.engine.records.terms import Conversation, GenerationParameters
from bh_studio.engine.rules.parameters import Mode, RuleParameters

if TYPE_CHECKING:
    from bh_studio.engine.loading import LoadedModel

_ALPHAS = (0.01, 0.05, 0.1, 0.2)
_MAX_K = 16
_WHAT = "answers"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "sweep",
        prog="bh-studio sweep",
        help="answer a prompt at several levels of BH",
        description="Answer PROMPT once with top-k and then with BH routing at each of several "
        "levels; print how many experts each answer used and how far it is the same.",
    )
    parser.add_argument(
        "prompt",
        metavar="PROMPT",
        help='the text to continue, or a message to an instruct model; "-" reads it from standard '
        "input",
    )
    parser.add_argument(
        "--alphas",
        nargs="+",
        type=_alpha,
        default=_ALPHAS,
        metavar="A",
        help=f"BH levels, after PROMPT ({' '.join(map(str, _ALPHAS))})",
    )
    add_model_option(parser)
    add_calibration_option(parser)
    add_conversation_options(parser)
    add_rule_options(parser, has_alpha=False, max_k=_MAX_K)
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
    rules, generation = _parameters(arguments)
    check_conversation_options(arguments)
    prompt = read_prompt(arguments.prompt)
    description = _description(prompt, rules, generation)
    total = 1 + len(rules)

    def show(row: SweepRow) -> bool:
        is_read = arguments.json or print_result(table_row(row))
        return is_read or arguments.out is not None

    with open_result(arguments, description) as result:
        loaded = load(arguments, arguments.calibration)
        precedes = conversation(arguments, loaded.info)
        description |= conversation_settings(precedes)
        rows = result.begin(header(description, loaded), sweep_rows_from_json)
        say_taken_over(arguments.out, len(rows), total, _WHAT)
        if not arguments.json:
            print_result("\n".join([table_head(), *map(table_row, rows)]))
        cancel = CancelToken()
        with stop_on_interrupt(cancel):
            events = _events(loaded, prompt, precedes, rules, generation, cancel, rows)
            collect(events, rows, result, Progress(total, len(rows), _WHAT), show)
        is_complete = len(rows) == total
        whole = document(result, is_complete, rows=[row.to_json() for row in rows])
        if is_complete:
            formats = {".json": lambda: json_file(whole), ".csv": lambda: to_csv(rows)}
            write_result(result, arguments.out, formats)
        explained = legend(Mode(arguments.mode))
        print_result(json.dumps(whole, allow_nan=False) if arguments.json else explained)
    if cancel.is_cancelled and not is_complete:
        return stopped(arguments.out, len(rows), total, _WHAT)
    return EXIT_OK


def _alpha(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text} is not a number; PROMPT goes before --alphas"
        ) from None


def _parameters(
    arguments: argparse.Namespace,
) -> tuple[dict[float, RuleParameters], GenerationParameters]:
    """The rule of each alpha, and the generation. Raises CommandError for values out of range."""
    alphas = tuple(arguments.alphas)
    repeated = next((alpha for alpha in alphas if alphas.count(alpha) > 1), None)
    if repeated is not None:
        raise CommandError(f"alpha {repeated:g} is given twice; give each once.", EXIT_USAGE)
    try:
        rules = {alpha: rule_parameters(arguments, alpha) for alpha in alphas}
        return rules, generation_parameters(arguments)
    except ValueError as error:
        raise CommandError(str(error), EXIT_USAGE) from error


def _description(
    prompt: str, rules: dict[float, RuleParameters], generation: GenerationParameters
) -> dict[str, Any]:
    """All that decides the rows, the model left out."""
    rule = asdict(next(iter(rules.values())))
    del rule["level"]
    parameters = {"alphas": list(rules), "rule": rule, "generation": asdict(generation)}
    return {"command": "sweep", "prompt": prompt, "parameters": parameters}


def _events(
    loaded: LoadedModel,
    prompt: str,
    precedes: Conversation | None,
    rules: dict[float, RuleParameters],
    generation: GenerationParameters,
    cancel: CancelToken,
    done: Sequence[SweepRow],
) -> Iterator[TokenGenerated | SweepRow]:
    """The rows that are not done yet, and the tokens on the way."""
    from bh_studio.engine.experiments.sweep import RuleAnswered, sweep

    done_alphas = [row.alpha for row in done]
    missing = {rule: alpha for alpha, rule in rules.items() if alpha not in done_alphas}
    if done and not missing:
        return
    baseline = done[0].answer if done else None
    for event in sweep(loaded, prompt, tuple(missing), generation, cancel, baseline, precedes):
        if isinstance(event, RuleAnswered):
            alpha = None if event.rule is None else missing[event.rule]
            yield SweepRow(alpha, event.answer, event.agreement)
        else:
            yield event
