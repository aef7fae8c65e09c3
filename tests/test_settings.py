"""Remembered settings: written whole, read with forgiveness."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import pytest

from bh_studio.settings import Settings, load_settings, save_settings, settings_path


def test_settings_survive_a_restart() -> None:
    settings = Settings(
        prompt="日本語 👩‍🔬",
        rule={"level": 0.01},
        text_percent=130,
        charts=("Limits by layer", "Token × layer"),
        splitters={"rows": [1, 2]},
        recent_sessions=("/a", "/b"),
        model_device="cuda:1",
        model_dtype="bfloat16",
        recent_models=("/models/a", "b/c@v2"),
    )
    save_settings(settings)
    assert load_settings() == settings
    assert [path.name for path in settings_path().parent.iterdir()] == ["settings.json"]


def test_a_first_start_has_defaults() -> None:
    assert load_settings() == Settings()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\0", '{"prompt": ' + "[" * 100000])
def test_a_broken_file_gives_defaults(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text)
    with caplog.at_level(logging.WARNING):
        assert load_settings(path) == Settings()
    assert "using defaults" in caplog.text


def test_wrong_keys_and_values_fall_back_one_by_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "settings.json"
    document = {
        "prompt": "kept",
        "text_percent": "large",
        "settings_visible": 1,
        "recent_sessions": ["/a", 3],
        "recent_models": "/a",
        "model_device": 1,
        "splitters": {"rows": [1, -2]},
        "geometry": None,
        "nonsense": True,
    }
    path.write_text(json.dumps(document))
    with caplog.at_level(logging.WARNING):
        assert load_settings(path) == Settings(prompt="kept")
    for name in document.keys() - {"prompt"}:
        assert repr(name) in caplog.text


@pytest.mark.parametrize(
    "document",
    [
        {"splitters": {"rows": [2147483648, 1]}},
        {"splitters": {"rows": [65536, 1]}},
        {"geometry": "\ud800"},
        {"geometry": "größe"},
    ],
)
def test_values_that_qt_cannot_take_fall_back(tmp_path: Path, document: dict[str, object]) -> None:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(document))
    assert load_settings(path) == Settings()


def test_a_refusing_disk_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        save_settings(Settings(), tmp_path / "file" / "settings.json")
    assert "cannot be written" in caplog.text


def test_a_full_disk_leaves_the_former_settings(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    former = Settings(prompt="kept", recent_sessions=("/not/unicode/\udcff",))
    save_settings(former)

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with caplog.at_level(logging.WARNING):
        save_settings(Settings(prompt="new"))
    assert "cannot be written" in caplog.text
    assert load_settings() == former
    assert [path.name for path in settings_path().parent.iterdir()] == ["settings.json"]


def test_recent_sessions_are_few_and_unique() -> None:
    settings = Settings()
    for number in range(14):
        settings = settings.with_recent(Path(f"/{number % 12}"))
    assert len(settings.recent_sessions) == 10
    assert settings.recent_sessions[0] == str(Path("/1"))
    assert len(set(settings.recent_sessions)) == 10


@pytest.mark.parametrize("text", ["{", "[]", '{"prompt": "torn'])
def test_what_is_no_settings_is_kept_aside(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.json"
    told: list[str] = []
    path.write_text(text)
    assert load_settings(path, told.append) == Settings()
    (aside,) = tmp_path.iterdir()
    assert aside.read_text() == text
    assert told == [
        f"The settings could not be read, so they begin anew. What was there is kept in {aside}."
    ]
    save_settings(Settings(prompt="new"), path)
    assert aside.read_text() == text


@pytest.mark.parametrize("prompt", ["字" * 200_000, "a" * 1_200_000])
def test_a_very_long_prompt_is_read_again(tmp_path: Path, prompt: str) -> None:
    path = tmp_path / "settings.json"
    save_settings(Settings(prompt=prompt), path)
    assert load_settings(path).prompt == prompt


def test_a_prompt_beyond_all_bounds_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "settings.json"
    with caplog.at_level(logging.WARNING):
        save_settings(Settings(prompt="字" * 12_000_000, text_percent=130), path)
    assert load_settings(path) == Settings(text_percent=130)
    assert "too long to be remembered" in caplog.text


def test_two_windows_leave_each_other_what_they_have_changed(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    both = Settings(prompt="first", recent_sessions=("/a", "/b"))
    save_settings(both, path)
    one = dataclasses.replace(both, prompt="second").with_recent(Path("/c"))
    other = dataclasses.replace(both, text_percent=130, recent_sessions=("/d", "/a"))
    save_settings(one, path, former=both)
    save_settings(other, path, former=both)
    assert load_settings(path) == Settings(
        prompt="second", text_percent=130, recent_sessions=("/d", "/a", "/c")
    )


@pytest.mark.parametrize("room", ["-1", "1e300", "1e999", '"5"'])
def test_room_for_runs_that_there_cannot_be_is_the_default(tmp_path: Path, room: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(f'{{"most_history_gb": {room}, "chat": false}}')
    assert load_settings(path) == Settings(chat=False)


def test_half_a_character_costs_its_setting_only(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(r'{"rule": "\ud800", "splitters": "\ud800", "chat": false}')
    assert load_settings(path) == Settings(chat=False)
