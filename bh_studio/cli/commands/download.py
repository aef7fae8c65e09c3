"""`bh-studio download`: fetches a model from the hub, or goes on where an earlier one stopped."""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass

from bh_studio.cli.terminal.download_lines import DownloadLines
from bh_studio.cli.terminal.interrupt import stop_on_interrupt
from bh_studio.cli.terminal.streams import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    CommandError,
    print_result,
    say,
)
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.hub.cache import discard_partial
from bh_studio.engine.hub.download import Download
from bh_studio.engine.hub.events import (
    DownloadEvent,
    DownloadFailed,
    DownloadFinished,
    DownloadPlanned,
)
from bh_studio.engine.hub.source import HubSource, parse_hub_source
from bh_studio.engine.units import format_bytes

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what this command does, and add its arguments."""
    parser.description = (
        "Fetch a model's safetensors weights, configuration and tokenizer into the "
        "cache that all programs with the hub's client share, compare every byte with the hub's "
        "hashes, and print the folder. Ctrl+C pauses; the same command goes on. Nothing that is "
        "there is fetched again."
    )
    parser.epilog = (
        "HF_HOME says where the cache is, HF_TOKEN holds an access token for models that "
        "need one, HF_ENDPOINT is another hub, HF_HUB_OFFLINE=1 forbids the network."
    )
    parser.add_argument(
        "source",
        type=_source,
        metavar="OWNER/NAME[@REVISION]",
        help="a repository of the hub, and a branch, tag or commit of it (default: its main "
        "branch)",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--dry-run", action="store_true", help="only print what would be fetched, and the room"
    )
    instead.add_argument(
        "--discard", action="store_true", help="only remove what a paused download left"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    source: HubSource = arguments.source
    if arguments.discard:
        freed = format_bytes(discard_partial(source))
        say(f"Removed {freed} of incomplete files of {source.repo}.")
        return EXIT_OK
    watched = _Watched(DownloadLines(shows_plan=not arguments.dry_run))
    _download(source, watched, plan_only=arguments.dry_run)
    last = watched.last
    if isinstance(last, DownloadFailed):
        log.info("%s", last.details)
        raise CommandError(f"{last.message} {last.advice}".strip())
    if isinstance(last, DownloadFinished):
        say(f"{source} is complete and verified.")
        print_result(str(last.folder))
        return EXIT_OK
    if arguments.dry_run and watched.plan is not None:
        print_result(_plan_text(watched.plan))
        return EXIT_OK
    say(f"Paused. `bh-studio download {source}` goes on from here.")
    return EXIT_INTERRUPTED


@dataclass(slots=True)
class _Watched:
    """What a download reported: all of it is shown, the plan and the last event are kept."""

    lines: DownloadLines
    plan: DownloadPlanned | None = None
    last: DownloadEvent | None = None

    def report(self, event: DownloadEvent) -> None:
        self.lines.show(event)
        self.last = event
        if isinstance(event, DownloadPlanned):
            self.plan = event


def _download(source: HubSource, watched: _Watched, plan_only: bool) -> None:
    """Download until the last event; Ctrl+C stops it."""
    download = Download(source, watched.report, plan_only=plan_only)
    cancel = CancelToken()
    with stop_on_interrupt(cancel):
        download.start()
        while not download.wait(0.1):
            if cancel.is_cancelled:
                download.stop()
    watched.lines.end()


def _plan_text(plan: DownloadPlanned) -> str:
    rows = [
        f"{format_bytes(file.size):>10}  {file.name}{_state(file.size, file.present)}"
        for file in plan.files
    ]
    room = "" if plan.fits else " There is no room for it."
    return "\n".join(
        [
            f"{plan.source} at commit {plan.commit}",
            *rows,
            f"{format_bytes(plan.total):>10}  in all, of which {format_bytes(plan.needed)} are to "
            "be fetched",
            f"{format_bytes(plan.free):>10}  free on the disk of {plan.cache}{room}",
        ]
    )


def _state(size: int, present: int) -> str:
    if present == size:
        return "  (here)"
    return f"  ({format_bytes(present)} here)" if present else ""


def _source(text: str) -> HubSource:
    source = parse_hub_source(text)
    if source is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a model of the hub; write OWNER/NAME or OWNER/NAME@REVISION, such as "
            "allenai/OLMoE-1B-7B-0924"
        )
    return source
