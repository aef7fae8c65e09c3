"""Garbage is looked for in the window's thread, between two events, and nowhere else. QtCore only.

Python looks for it wherever it happens to make an object. Within Qt's own code that waits for ever:
a widget among the garbage needs a lock to go that is held there. In another thread no widget may
end at all.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

from PySide6.QtCore import QObject, QTimer, Slot

_INTERVAL_MS = 200


class GarbageCollection(QObject):
    """From `take_over` to `give_back`, Python's own collection rests.

    is_waiting: whether it is no time to look now, as while modules are imported, which make much
    that stays.
    """

    def __init__(self, is_waiting: Callable[[], bool], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._is_waiting = is_waiting
        self._was_on = gc.isenabled()
        self._timer = QTimer(self)
        self._timer.setInterval(_INTERVAL_MS)
        self._timer.timeout.connect(self._collect)

    def take_over(self) -> None:
        """Look for garbage from the event loop from now on."""
        self._was_on = gc.isenabled()
        gc.disable()
        self._timer.start()

    def give_back(self) -> None:
        """Leave it to Python again, if it was."""
        self._timer.stop()
        if self._was_on:
            gc.enable()

    @Slot()
    def _collect(self) -> None:
        """Collect the oldest generation that Python's thresholds say is due."""
        if self._is_waiting():
            return
        due = [
            generation
            for generation, (count, most) in enumerate(
                zip(gc.get_count(), gc.get_threshold(), strict=True)
            )
            if count > most
        ]
        if due:
            gc.collect(due[-1])
