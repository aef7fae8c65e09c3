"""What the window's frame needs to know of a place, the part of the window between its lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from PySide6.QtCore import SignalInstance
from PySide6.QtWidgets import QSplitter, QVBoxLayout


class Place(Protocol):
    """changed: what it says of itself is another now. failed: with a Failed to tell. settled: what
    was told before is no matter any more. messages: where that is told. splitters: by the names
    under which their sizes are remembered."""

    changed: SignalInstance
    failed: SignalInstance
    settled: SignalInstance
    messages: QVBoxLayout

    @property
    def splitters(self) -> Mapping[str, QSplitter]: ...

    @property
    def title(self) -> str:
        """What to call what is shown; empty if there is nothing."""

    @property
    def is_unsaved(self) -> bool:
        """Whether there is something that was not saved yet."""

    @property
    def can_export(self) -> bool:
        """Whether there is something to save under another name, or to export."""

    @property
    def is_busy(self) -> bool:
        """Whether something is in flight: nothing is opened over it, nor the window closed."""

    @property
    def can_stop(self) -> bool:
        """Whether there is something to stop."""

    @property
    def can_start_over(self) -> bool | None:
        """Whether there is a conversation to leave; None where there are no conversations."""

    def obstacle(self) -> str:
        """Why nothing can be started now, a sentence; empty if it can."""

    def start(self) -> None:
        """Do what the place is for, if that is possible now."""

    def stop(self) -> None:
        """Ask for the end of what is in flight."""

    def start_over(self) -> None:
        """Begin a new conversation."""

    def refresh(self) -> None:
        """Paint at once what would be painted with the next frame."""

    def take_focus(self) -> None:
        """Let typing begin where it begins here."""
