"""When `make` installs, when it does not, and what it says where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import environment


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose environment exists and where installing only notes what was asked."""
    (tmp_path / "pyproject.toml").write_text("one")
    (tmp_path / "constraints.txt").write_text("two")
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What pip was asked to install, one entry a call."""
    targets: list[str] = []

    def run(command: list[str], failure: str, **variables: str) -> None:
        targets.append(command[command.index("--editable") + 1])

    monkeypatch.setattr(environment, "run", run)
    return targets


def install(checkout: Path, with_tests: bool) -> None:
    environment.install_package(checkout / ".venv", Path("python"), with_tests)


def test_installs_once(checkout: Path, installed: list[str]) -> None:
    install(checkout, with_tests=True)
    install(checkout, with_tests=True)
    install(checkout, with_tests=False)  # What the checks need is more than what a run needs.
    assert installed == [".[test]"]


def test_installs_what_is_lacking(checkout: Path, installed: list[str]) -> None:
    install(checkout, with_tests=False)
    install(checkout, with_tests=True)
    assert installed == [".", ".[test]"]


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_installs_again_after_a_change(checkout: Path, installed: list[str], name: str) -> None:
    install(checkout, with_tests=True)
    (checkout / name).write_text("changed")
    install(checkout, with_tests=True)
    assert installed == [".[test]"] * 2
    assert len(list(checkout.glob(".venv/*.stamp"))) == 1


def test_an_environment_that_was_moved_is_installed_again(
    checkout: Path, installed: list[str]
) -> None:
    install(checkout, with_tests=True)
    (checkout / ".venv").rename(checkout / "moved")
    environment.install_package(checkout / "moved", Path("python"), True)
    assert installed == [".[test]"] * 2


def test_a_failed_installation_is_tried_again(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], failure: str, **variables: str) -> None:
        environment.fail(failure)

    monkeypatch.setattr(environment, "run", run)
    with pytest.raises(SystemExit, match="installation failed"):
        install(checkout, with_tests=True)
    assert list(checkout.glob(".venv/*.stamp")) == []


def test_an_unsupported_python_says_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "python_version", lambda: (3, 10))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"needs Python 3\.11, 3\.12 or 3\.13; python3 is 3\.10"):
        environment.use_supported_python()


def test_apt_is_left_alone_without_the_right_to_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise AssertionError("apt-get was started")

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    assert not environment.apt_install(["libgl1"])


def test_missing_libraries_are_named_where_apt_cannot_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environment, "missing_qt_libraries", lambda *_: ["libGL.so.1"])
    monkeypatch.setattr(environment, "apt_install", lambda packages: False)
    with pytest.raises(SystemExit, match=r"libGL\.so\.1.*apt-get install libgl1"):
        environment.install_qt_libraries(Path(sys.executable), on_screen=False)
