"""Ctrl+C reaches an idle event loop."""

from __future__ import annotations

import os
import signal
import threading
import time

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

from bh_studio.ui.interrupt import InterruptWatcher


def test_interrupt_ends_an_idle_loop_at_once_and_is_given_back(qapp: QApplication) -> None:
    before = signal.getsignal(signal.SIGINT)
    watcher = InterruptWatcher()
    QTimer.singleShot(10_000, qapp.quit)
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
    QTimer.singleShot(10_000, qapp.quit)
    for delay in (0.2, 0.5):
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert qapp.exec() == 128 + signal.SIGINT
    watcher.close()
    assert asked == [True]
    assert watcher.exit_code == 128 + signal.SIGINT
