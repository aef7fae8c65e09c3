"""The turns that precede the next message. QtCore only: knows no widget and no file.

The conversation that goes on is the one on screen: what replaces it there, replaces it here.
"""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal, Slot

from bh_studio.engine.protocol.experiments import Comparison, SameText
from bh_studio.engine.records.terms import Turn
from bh_studio.ui.state.session_model import SessionModel


class ConversationModel(QObject):
    """Follows the session model's runs.

    message_taken: the engine has accepted this message. message_returned: it stays unanswered, and
    the conversation is as it was before.
    """

    changed = Signal()
    message_taken = Signal(str)
    message_returned = Signal(str)

    def __init__(self, session: SessionModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self.turns: tuple[Turn, ...] = ()
        self.is_on_screen = False
        # The message that is being answered.
        self._asked: Comparison | None = None
        session.run_accepted.connect(self._take)
        session.session_changed.connect(self._follow)
        session.run_lost.connect(self._give_back)

    @property
    def can_start_over(self) -> bool:
        """Whether there is a conversation to leave, and nothing in flight."""
        return self.is_on_screen and not self._session.is_busy

    @Slot()
    def start_over(self) -> None:
        """Begin a new conversation; the former one is kept as all finished runs are."""
        if self.can_start_over:
            self.turns, self.is_on_screen = (), False
            self._session.clear()
            self.changed.emit()

    @Slot(object)
    def _take(self, request: Comparison | SameText) -> None:
        if isinstance(request, Comparison) and request.conversation is not None:
            self.is_on_screen, self._asked = True, request
            self.message_taken.emit(request.prompt)
        else:
            self.is_on_screen, self._asked, self.turns = False, None, ()
        self.changed.emit()

    @Slot()
    def _follow(self) -> None:
        session = self._session.session
        if session is None:
            if self._session.document is not None:
                # A text that was opened is no conversation, and was none before.
                self.is_on_screen, self._asked, self.turns = False, None, ()
                self.changed.emit()
            return
        continued, asked = session.continued, self._asked
        self._asked = None
        self.is_on_screen = continued is not None
        self.turns = continued.turns if continued is not None else ()
        if asked is not None and continued == session.conversation:
            self.message_returned.emit(asked.prompt)
        self.changed.emit()

    @Slot()
    def _give_back(self) -> None:
        asked = self._asked
        if asked is not None:
            self._asked = None
            self.message_returned.emit(asked.prompt)
            self.changed.emit()
