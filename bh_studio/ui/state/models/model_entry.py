"""One model that the window offers, in words. Knows no widget and no engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """Where a model is."""

    EMBEDDED = auto()
    HUB = auto()
    FOLDER = auto()


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model of the list.

    source: as in requests.LoadModel. about: what it is, a few words. state: how much of it is on
    this machine, a few words. is_loadable: whether all of it is. is_removable: whether the person
    put it into the list.
    """

    source: str
    title: str
    about: str
    kind: Kind
    state: str = ""
    is_loadable: bool = True
    is_removable: bool = False
