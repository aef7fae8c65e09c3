"""Where garbage is looked for while a window is open."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest
from PySide6.QtCore import QObject
from pytestqt.qtbot import QtBot

from bh_studio.ui.garbage import GarbageCollection


class Loop:
    """Garbage; it notes the thread in which it goes."""

    def __init__(self, gone: list[str]) -> None:
        self.itself = self
        self.gone = gone

    def __del__(self) -> None:
        self.gone.append(threading.current_thread().name)


@pytest.fixture
def parent() -> Iterator[QObject]:
    gc.enable()
    parent = QObject()
    yield parent
    parent.deleteLater()


def test_garbage_of_another_thread_goes_in_that_of_the_window(
    parent: QObject, qtbot: QtBot
) -> None:
    gone: list[str] = []
    garbage = GarbageCollection(lambda: False, parent)
    garbage.take_over()

    def litter() -> None:
        for _ in range(5000):
            Loop(gone)

    thread = threading.Thread(target=litter)
    thread.start()
    thread.join()
    assert not gone
    qtbot.waitUntil(lambda: len(gone) == 5000)
    assert set(gone) == {threading.main_thread().name}
    garbage.give_back()
    assert gc.isenabled()


def test_it_waits_while_modules_are_imported(parent: QObject, qtbot: QtBot) -> None:
    gone: list[str] = []
    is_waiting = True
    garbage = GarbageCollection(lambda: is_waiting, parent)
    garbage.take_over()
    for _ in range(5000):
        Loop(gone)
    qtbot.wait(500)
    assert not gone
    is_waiting = False
    qtbot.waitUntil(lambda: len(gone) == 5000)
    garbage.give_back()
