"""What is said where the window cannot open, without Qt and without taking libraries away."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from bh_studio import display

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's displays")


@pytest.fixture(autouse=True)
def _no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)


def test_offscreen_is_always_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    assert display.window_problem() is None


@linux_only
def test_a_wayland_server_that_answers_is_a_display(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # Paths of such sockets must be short.
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("wayland-7")
        server.listen()
        monkeypatch.setenv("XDG_RUNTIME_DIR", ".")
        monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-7")
        assert display.window_problem() is None


@linux_only
def test_missing_libraries_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"libGL.so.1", "libxcb-cursor.so.0"}
    load_error = display._load_error
    monkeypatch.setattr(
        display, "_load_error", lambda name: "absent" if name in absent else load_error(name)
    )
    assert display.missing_libraries(on_screen=False) == ["libGL.so.1"]
    assert "libGL.so.1" in display.missing_libraries(on_screen=True)
    line = display.missing_libraries_line(sorted(absent))
    assert line.endswith("apt-get install libgl1 libxcb-cursor0")
    assert "\n" not in line


@linux_only
def test_a_library_that_only_qt_knows_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_error(name: str) -> str | None:
        return "libnew.so.7: cannot open" if name.endswith("QtGui.abi3.so") else None

    monkeypatch.setattr(display, "_load_error", load_error)
    assert display.missing_libraries(on_screen=False) == ["libnew.so.7"]
    assert display.debian_packages(["libnew.so.7"]) == []


@linux_only
def test_a_qt_that_does_not_load_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError("libEGL.so.1: cannot open shared object file")

    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    monkeypatch.setattr("importlib.import_module", refuse)
    monkeypatch.setattr(display, "missing_libraries", lambda on_screen: ["libEGL.so.1"])
    problem = display.window_problem()
    assert problem is not None
    assert problem.endswith("libEGL.so.1. On Debian or Ubuntu: apt-get install libegl1")
    monkeypatch.setattr(display, "missing_libraries", lambda on_screen: [])
    problem = display.window_problem()
    assert problem is not None
    assert "cannot open shared object file" in problem
    assert "bh-studio compare" in problem


def test_missing_pyside_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    problem = display.window_problem()
    assert problem is not None
    assert "pip install PySide6-Essentials" in problem
