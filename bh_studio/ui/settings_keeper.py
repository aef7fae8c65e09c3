"""Writes what the window remembers soon after it has changed, so that a crash loses no prompt."""

from __future__ import annotations

from PySide6.QtCore import QObject, QThreadPool, QTimer, Slot

from bh_studio.settings import Settings, save_settings
from bh_studio.ui.main_window import MainWindow
from bh_studio.ui.remembered import remember

_DELAY_MS = 1000


class SettingsKeeper(QObject):
    """Keeps the settings file in step with `window` until it is closed.

    settings: what `window` was set up with. The disk is waited for in another thread.
    """

    def __init__(self, window: MainWindow, settings: Settings) -> None:
        super().__init__(window)
        self._window = window
        self._former = settings
        self._pool = QThreadPool(self)
        # One after the other, the last one last.
        self._pool.setMaxThreadCount(1)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_DELAY_MS)
        self._timer.timeout.connect(self.save)
        for changed in (
            window.compare.prompt.edited,
            window.compare.settings_panel.edited,
            window.compare.changed,
            window.compare.charts.picked,
            window.theme.changed,
            window.files.changed,
        ):
            changed.connect(self._wait)

    @Slot()
    def _wait(self) -> None:
        # Not begun anew with each letter, or nothing would be written while a person types on.
        if not self._timer.isActive():
            self._timer.start()

    @Slot()
    def save(self) -> None:
        """Have written what has changed since the last time."""
        settings, former = remember(self._window), self._former
        if settings != former:
            self._former = settings
            self._pool.start(lambda: save_settings(settings, former=former))

    def close(self) -> None:
        """Write what is left; it is on the disk when this returns."""
        self._timer.stop()
        self.save()
        self._pool.waitForDone()
