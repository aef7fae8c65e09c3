"""Ctrl+C reaches an idle event loop."""

from __future__ import annotations

import os
import signal
import threading
import time

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

from bh_studio.ui.interrupt import InterruptWatcher


def ended_at_the_latest(app: QApplication) -> QTimer:
    """A timer that ends the loop if nothing else does. It goes with the test: one of Qt's own would
    end the loop of whichever test runs then."""
    timer = QTimer()
    timer.setSingleShot(True)
    timer.timeout.connect(app.quit)
    timer.start(10_000)
    return timer


def test_interrupt_ends_an_idle_loop_at_once_and_is_given_back(qapp: QApplication) -> None:
    before = signal.getsignal(signal.SIGINT)
    watcher = InterruptWatcher()
    _latest = ended_at_the_latest(qapp)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    assert qapp.exec() == 128 + signal.SIGINT
    assert time.monotonic() - started < 5
    watcher.close()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_busy_program_ends_in_order_or_at_the_second_interrupt(qapp: QApplication) -> None:
    watcher = InterruptWatcher(lambda: True)
    asked: list[bool] = []
    watcher.interrupted.connect(lambda: asked.append(True))
    _latest = ended_at_the_latest(qapp)
    for delay in (0.2, 0.5):
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert qapp.exec() == 128 + signal.SIGINT
    watcher.close()
    assert asked == [True]
    assert watcher.exit_code == 128 + signal.SIGINT
