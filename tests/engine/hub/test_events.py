"""The lines in which a child tells how far a download is, and lines that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bh_studio.engine.hub.events import (
    DownloadFailed,
    DownloadFinished,
    DownloadPlanned,
    DownloadProgress,
    FileDamaged,
    Message,
    PlannedFile,
    VerifyProgress,
    from_line,
    to_line,
)
from bh_studio.engine.hub.source import HubSource

SOURCE = HubSource("owner/name", "v2")
COMMIT = "c0" * 20
PLAN = DownloadPlanned(SOURCE, COMMIT, (PlannedFile("a", 2**40, 3),), Path("/ca/\udcffü"), 5)


@pytest.mark.parametrize(
    "message",
    [
        PLAN,
        DownloadProgress(1, 2, "a", fetched=1),
        VerifyProgress(1, 2, "a"),
        FileDamaged("a\nb"),
        DownloadFinished(SOURCE, COMMIT, Path("/cache/ä"), 7),
        DownloadFailed(SOURCE, "It \u2028 failed.", "", "Traceback\n…", is_temporary=True),
    ],
)
def test_a_message_is_one_line_and_comes_back(message: Message) -> None:
    line = to_line(message)
    assert line.isascii()
    assert line.splitlines() == [line]
    assert from_line(f"{line}\n") == message


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\n",
        "UserWarning: something",
        "3",
        "[]",
        "[1, 2]",
        "[" * 100_000,
        '["FileDamaged", {}]',
        '["FileDamaged", {"file": 3}]',
        '["FileDamaged", {"file": "a", "more": 1}]',
        '["FileDamaged", {"file": "a"}, 1]',
        '["PlannedFile", {"name": "a", "size": 1, "present": 0}]',
        '["DownloadStopped", {"source": {"repo": "a/b", "revision": ""}, "present": 0}]',
        '["DownloadProgress", {"done": "1", "total": 2, "file": "a"}]',
        '["VerifyProgress", {"done": 1.5, "total": 2, "file": "a"}]',
        json.dumps(["DownloadPlanned", {**json.loads(to_line(PLAN))[1], "files": [["a", 1, 0]]}]),
        json.dumps(["DownloadPlanned", {**json.loads(to_line(PLAN))[1], "cache": None}]),
    ],
)
def test_what_is_no_message_is_none(line: str) -> None:
    assert from_line(line) is None
