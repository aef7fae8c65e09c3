"""The models that the window offers, and how much of each is on this machine. QtCore only."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QObject, Signal, Slot

from bh_studio.engine.hub.source import KNOWN_MODELS, parse_hub_source
from bh_studio.engine.hub.status import HubState, HubStatus
from bh_studio.engine.units import format_bytes
from bh_studio.ui.state.engine_model import EngineModel
from bh_studio.ui.state.models.downloads import Downloads
from bh_studio.ui.state.models.hub_statuses import HubStatuses
from bh_studio.ui.state.models.model_entry import Kind, ModelEntry
from bh_studio.ui.state.models.words import format_amounts, short_state

EMBEDDED = "embedded"
_MOST_RECENT = 12
_KNOWN = {str(known.source): known.description for known in KNOWN_MODELS}
# 6.92 billion weights in bfloat16; the hub is not asked before a person asks for a download.
_KNOWN_BYTES = 13_840_000_000
_LOADABLE = (HubState.UNVERIFIED, HubState.COMPLETE)


class ModelShelf(QObject):
    """The embedded model, the hub's that BH Studio was made for, and what was used before."""

    changed = Signal()

    def __init__(
        self,
        engine: EngineModel,
        downloads: Downloads,
        statuses: HubStatuses,
        recent: tuple[str, ...] = (),
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._engine = engine
        self.downloads = downloads
        self.statuses = statuses
        self.recent = tuple(source for source in dict.fromkeys(recent) if source not in _KNOWN)
        downloads.changed.connect(self.changed)
        downloads.ended.connect(self.refresh)
        statuses.changed.connect(self.changed)
        engine.state_changed.connect(self.changed)
        engine.model_changed.connect(self.changed)

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """Every model that can be chosen."""
        sources = dict.fromkeys((EMBEDDED, *_KNOWN, *self.recent, *self.statuses.found))
        return tuple(self.entry(source) for source in sources)

    def entry(self, source: str) -> ModelEntry:
        """The model `source` as it is now."""
        hub = parse_hub_source(source)
        if source == EMBEDDED:
            about = "Comes with the program; writes little stories"
            return self._described(source, "olmoe-nano", about, Kind.EMBEDDED)
        if hub is None:
            return self._described(source, Path(source).name or source, source, Kind.FOLDER)
        name = hub.repo.partition("/")[2]
        title = f"{name}@{hub.revision}" if hub.revision else name
        about = _KNOWN.get(source, f"From the hub: {hub.repo}")
        return self._described(source, title, about, Kind.HUB)

    def status(self, source: str) -> HubStatus:
        """What was found of a hub's model; nothing until it was looked for."""
        return self.statuses.status(source) or HubStatus(HubState.NOT_THERE)

    def size_words(self, source: str) -> str:
        """How large a hub's model is; empty where that is not known."""
        total = self.status(source).total or (_KNOWN_BYTES if source in _KNOWN else 0)
        return format_bytes(total) if total else ""

    def add(self, source: str) -> None:
        """Offer `source` from now on, in front of what was added before."""
        if source == EMBEDDED or source in _KNOWN:
            return
        others = (other for other in self.recent if other != source)
        self.recent = (source, *others)[:_MOST_RECENT]
        self.refresh(source)
        self.changed.emit()

    def keep_loaded(self) -> None:
        """Offer the loaded model from now on."""
        source = self.loaded_source
        if source is not None:
            self.add(source)

    def remove(self, source: str) -> None:
        """Offer `source` no longer; its files stay where they are."""
        self.recent = tuple(other for other in self.recent if other != source)
        self.changed.emit()

    @Slot(str)
    def refresh(self, source: str) -> None:
        """Look how much of `source` is here."""
        hub = parse_hub_source(source)
        if hub is not None:
            self.statuses.refresh(hub)

    def refresh_all(self) -> None:
        """Look at every model of the hub, and for others in its cache."""
        self.statuses.refresh_all()
        for source in self.recent:
            self.refresh(source)

    def is_loaded(self, source: str) -> bool:
        """Whether `source` is the loaded model."""
        return self._engine.model is not None and self.loaded_source == source

    def _described(self, source: str, title: str, about: str, kind: Kind) -> ModelEntry:
        status = self.status(source)
        view = self.downloads.view(source)
        is_moving = view is not None and view.is_running
        return ModelEntry(
            source=source,
            title=title,
            about=about,
            kind=kind,
            state=self._state(source, kind),
            is_loadable=kind is not Kind.HUB or (status.state in _LOADABLE and not is_moving),
            is_removable=source in self.recent and not is_moving and not self.is_loaded(source),
        )

    def _state(self, source: str, kind: Kind) -> str:
        if self.is_loaded(source):
            return "Loaded"
        loading = self._engine.loading
        if loading is not None and loading.source == source:
            return "Loading…"
        view = self.downloads.view(source)
        if view is not None and short_state(view):
            return short_state(view)
        if kind is not Kind.HUB or self.statuses.status(source) is None:
            return ""
        status = self.status(source)
        if status.state is HubState.PARTIAL:
            known = status.total
            return format_amounts(status.present, known) if known else "partly here"
        words = {
            HubState.NOT_THERE: "not downloaded",
            HubState.UNVERIFIED: "not verified",
            HubState.COMPLETE: "complete",
        }[status.state]
        size = self.size_words(source)
        return f"{size}, {words}" if size else words

    @property
    def loaded_source(self) -> str | None:
        """The loaded model as the list calls it, a folder by its full path; None without one."""
        model, request = self._engine.model, self._engine.loaded
        if model is None or request is None:
            return None
        hub = parse_hub_source(request.source)
        return request.source if hub is not None and model.id == hub.repo else model.id
