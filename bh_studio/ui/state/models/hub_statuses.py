"""What is on this machine of the hub's models, looked up in a thread of its own. QtCore only."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

from PySide6.QtCore import QObject, QThreadPool, Signal, Slot

from bh_studio.engine.errors import EngineError
from bh_studio.engine.hub.catalogue import HubModel
from bh_studio.engine.hub.source import KNOWN_MODELS, HubSource
from bh_studio.engine.hub.status import HubStatus
from bh_studio.engine.protocol.events import Failed, failure

_log = logging.getLogger(__name__)


class HubStatuses(QObject):
    """Statuses by source. A disk may be slow, so none is read in the GUI thread.

    found: models in the cache that BH Studio does not know by name.
    """

    changed = Signal()
    failed = Signal(object)
    _found = Signal(str, object)
    _listed = Signal(object)

    def __init__(
        self,
        look_up: Callable[[HubSource], HubStatus] | None = None,
        list_models: Callable[[], list[HubModel]] | None = None,
        discard: Callable[[HubSource], int] | None = None,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._look_up = look_up or _real_look_up
        self._list_models = list_models or _real_list
        self._discard = discard or _real_discard
        self.found: tuple[str, ...] = ()
        self._statuses: dict[str, HubStatus] = {}
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(1)
        # Emitted in the pool's thread; a slot of this object runs in its own.
        self._found.connect(self._take)
        self._listed.connect(self._take_list)

    def status(self, source: str) -> HubStatus | None:
        """What was found last; None before the first answer."""
        return self._statuses.get(source)

    def refresh(self, source: HubSource) -> None:
        """Look anew; `changed` follows if there is news."""
        self._pool.start(functools.partial(self._find, source))

    def refresh_all(self) -> None:
        """Look for every known model and for others in the cache; `changed` follows."""
        self._pool.start(self._find_all)

    def discard(self, source: HubSource) -> None:
        """Remove what an unfinished download has left; a refreshed status or `failed` follows."""
        self._pool.start(functools.partial(self._remove, source))

    def shutdown(self) -> None:
        """Wait for what is being looked up."""
        self._pool.clear()
        self._pool.waitForDone()

    def _find(self, source: HubSource) -> None:
        self._found.emit(str(source), self._look_up(source))

    def _find_all(self) -> None:
        self._listed.emit(self._list_models())

    def _remove(self, source: HubSource) -> None:
        try:
            freed = self._discard(source)
            _log.info("Removed %d bytes of an unfinished download of %s.", freed, source)
        except (EngineError, OSError) as error:
            self._found.emit(str(source), failure(error))
        self._find(source)

    @Slot(str, object)
    def _take(self, source: str, found: HubStatus | Failed) -> None:
        if isinstance(found, Failed):
            self.failed.emit(found)
        elif found != self._statuses.get(source):
            self._statuses[source] = found
            self.changed.emit()

    @Slot(object)
    def _take_list(self, models: list[HubModel]) -> None:
        self._statuses.update({str(model.source): model.status for model in models})
        known = {known.source for known in KNOWN_MODELS}
        self.found = tuple(str(model.source) for model in models if model.source not in known)
        self.changed.emit()


def _real_look_up(source: HubSource) -> HubStatus:
    from bh_studio.engine.hub.status import hub_status

    return hub_status(source)


def _real_list() -> list[HubModel]:
    from bh_studio.engine.hub.catalogue import hub_models

    return hub_models()


def _real_discard(source: HubSource) -> int:
    from bh_studio.engine.hub.cache import discard_partial

    return discard_partial(source)
