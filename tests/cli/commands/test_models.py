"""`bh-studio models` as a person or a script runs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bh_studio import cli
from bh_studio.__main__ import build_parser
from bh_studio.engine.hub.download import Download
from bh_studio.engine.hub.source import KNOWN_MODELS, HubSource
from tests.fake_hub_model import fake_model
from tests.hub_server import COMMIT, REPO, HubServer, hub_server, use_hub

KNOWN = [str(known.source) for known in KNOWN_MODELS]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with hub_server(fake_model(20_000)) as server:
        use_hub(server, monkeypatch, tmp_path)
        yield server


def models(*arguments: str) -> int:
    return cli.run(build_parser().parse_args(["models", *arguments]))


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert models("--json") == 0
    document = json.loads(capsys.readouterr().out)
    return {model["model"]: model for model in document["models"]}


def fetch(plan_only: bool = False) -> None:
    download = Download(HubSource(REPO), lambda event: None, plan_only=plan_only)
    download.start()
    assert download.wait(30)


def test_what_there_is_on_a_new_machine(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert models() == 0
    out = capsys.readouterr().out
    rows = [row.split() for row in out.splitlines()]
    assert [row[0] for row in rows[:5]] == ["embedded", *KNOWN]
    assert all("not here" in row for row in out.splitlines()[1:5])
    assert f"Hub cache: {tmp_path / 'hub'}" in out
    assert hub.asked == []


def test_what_was_fetched_is_listed_with_its_size(
    hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch()
    hub.forget()
    found = listed(capsys)
    assert list(found) == ["embedded", *KNOWN, REPO]
    model = found[REPO]
    assert (model["state"], model["present"]) == ("complete", model["total"])
    assert Path(model["folder"]).name == COMMIT
    assert models() == 0
    row = next(row for row in capsys.readouterr().out.splitlines() if row.startswith(REPO))
    assert row.split()[1:] == ["43.4", "kB", "complete"]
    assert hub.asked == []


def test_what_was_begun_is_listed_as_incomplete(
    hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.faults.damaged["model-00001-of-00002.safetensors"] = 2
    fetch()
    model = listed(capsys)[REPO]
    assert model["state"] == "incomplete"
    assert 0 < model["present"] < model["total"]
    assert model["folder"] is None


def test_looking_at_a_model_leaves_no_trace(
    hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(plan_only=True)
    assert REPO not in listed(capsys)
