"""The child process of a download: asks the hub, fetches, verifies, publishes in the cache.

Run as `python -m bh_studio.engine.hub.child SOURCE [--commit C] [--plan-only]`; writes one
line a message to standard output and ends by itself when its parent is gone. May be killed at any
moment: what it wrote is used by the next one, and nothing looks complete before it was verified.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable, Sequence

from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled

from bh_studio.engine.errors import EngineError
from bh_studio.engine.hub.cache import RepositoryCache
from bh_studio.engine.hub.errors import problem
from bh_studio.engine.hub.events import DownloadFinished, DownloadPlanned, Message, to_line
from bh_studio.engine.hub.plan import Plan, ask_hub
from bh_studio.engine.hub.snapshots import SnapshotRecord, load_records, save_record
from bh_studio.engine.hub.source import HubSource, parse_hub_source
from bh_studio.engine.hub.transfer import Steps
from bh_studio.engine.units import format_bytes

_STANDARD_INPUT = 0

Tell = Callable[[Message], None]


def main(arguments: Sequence[str]) -> int:
    """Download what `arguments` say and tell the parent; 0 if it went well, 1 if not."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=parse_hub_source)
    parser.add_argument("--commit", default="")
    parser.add_argument("--plan-only", action="store_true")
    given = parser.parse_args(arguments)
    source: HubSource = given.source
    try:
        _run(source, given.commit, given.plan_only, _tell)
    except Exception as error:  # noqa: BLE001 - said in one sentence instead
        _tell(problem(error, source))
        return 1
    return 0


def _end_with_parent() -> None:
    # The parent never writes; the end of this input is the parent's, however it came about. Not
    # sys.stdin, whose lock a thread must not hold while Python ends.
    while os.read(_STANDARD_INPUT, 1):
        pass
    os._exit(1)


def _tell(message: Message) -> None:
    # On a line of its own, whatever a library has written to the same pipe.
    sys.stdout.write(f"\n{to_line(message)}\n")
    sys.stdout.flush()


def _run(source: HubSource, commit: str, plan_only: bool, tell: Tell) -> None:
    repository = RepositoryCache.of(source.repo)
    records = load_records(source.repo)
    plan = _plan(source, commit or source.commit, repository, records)
    message = plan.message(repository)
    tell(message)
    if plan_only:
        return
    if _record_that_holds(repository, records, plan.commit) is not None:
        repository.set_ref(source.revision, plan.commit)
        tell(DownloadFinished(source, plan.commit, repository.snapshot(plan.commit)))
        return
    _check_room(message)
    try:
        with repository.lock():
            save_record(SnapshotRecord(source, plan.commit, plan.files))
            steps = Steps(plan, repository, tell)
            steps.fetch()
            steps.verify()
            folder = steps.publish()
    except TimeoutError:
        raise EngineError(
            f"{source.repo} is being downloaded by another BH Studio.",
            "Wait until it has finished, or stop it there.",
        ) from None
    tell(DownloadFinished(source, plan.commit, folder))


def _plan(
    source: HubSource, commit: str, repository: RepositoryCache, records: Sequence[SnapshotRecord]
) -> Plan:
    """What the hub says, or without asking it what was verified and cannot have changed there."""
    if constants.HF_HUB_OFFLINE:
        commit = commit or repository.resolve(source.revision)
    record = _record_that_holds(repository, records, commit)
    if record is not None:
        return Plan(source, commit, record.files)
    if constants.HF_HUB_OFFLINE:
        raise OfflineModeIsEnabled
    return ask_hub(source, commit)


def _record_that_holds(
    repository: RepositoryCache, records: Sequence[SnapshotRecord], commit: str
) -> SnapshotRecord | None:
    """The record of a verified snapshot of `commit` that has not changed since."""
    folder = repository.snapshot(commit)
    return next((r for r in records if r.commit == commit and r.still_holds(folder)), None)


def _check_room(plan: DownloadPlanned) -> None:
    if not plan.fits:
        raise EngineError(
            f"There is no room for {plan.source}: {format_bytes(plan.needed)} are to be fetched, "
            f"and {format_bytes(plan.free)} are free on the disk of {plan.cache}.",
            "Make room, or set HF_HOME to a folder on another disk.",
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
