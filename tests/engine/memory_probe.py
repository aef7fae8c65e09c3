"""A process that loads and unloads models as the engine thread does, and weighs itself meanwhile.

Run as `python -m tests.engine.memory_probe LARGE SMALL`, two checkpoints; prints one JSON object:
resident bytes by what was done before, and the highest between two of these as "peak of ...".
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import psutil
from PySide6.QtCore import QObject, Slot
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bh_studio.engine import loading
from bh_studio.engine.calibration.recorder import calibration_text, make_recording
from bh_studio.engine.errors import CancelToken
from bh_studio.engine.models import plan
from bh_studio.engine.protocol.events import (
    Failed,
    JobCancelled,
    LoadProgress,
    ModelLoaded,
    ModelUnloaded,
    Report,
)
from bh_studio.engine.protocol.requests import (
    Body,
    LoadModel,
    Request,
    SaveCalibration,
    UnloadModel,
)
from bh_studio.engine.routing.recordings import Recording
from bh_studio.ui.engine_thread import _Worker


class Probe(QObject):
    """Hands requests to the engine thread's worker and weighs the process after each."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[str, int] = {}
        self._worker = _Worker()
        self._worker.reported.connect(self.take)
        self._half_way: Callable[[], None] = lambda: None
        self._last: object = None

    @Slot(object)
    def take(self, report: Report) -> None:
        event = self._last = report.event
        if not isinstance(event, LoadProgress) or event.stage != "Reading the weights":
            return
        if (event.fraction or 0) >= 0.5:
            half_way, self._half_way = self._half_way, lambda: None
            half_way()

    def do(
        self, what: str, body: Body, ending: type, half_way: Callable[[], None] = lambda: None
    ) -> None:
        """Handle `body`, which must end with an event of the type `ending`."""
        # From here on the highest resident size is counted anew.
        Path("/proc/self/clear_refs").write_text("5")
        self._half_way = half_way
        self._cancel = CancelToken()
        self._worker.handle(Request(1, body), self._cancel)
        if not isinstance(self._last, ending):
            raise SystemExit(f"{what}: {self._last}")
        self._last = None
        self.weigh(what)

    def cancel(self) -> None:
        """Ask what is handled now to end."""
        self._cancel.cancel()

    def weigh(self, what: str) -> None:
        status = Path("/proc/self/status").read_text()
        peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        self.weights[what] = psutil.Process().memory_info().rss
        self.weights[f"peak of {what}"] = int(peak) * 1024


def _short_recording(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, cancel: CancelToken
) -> Generator[float, None, Recording]:
    del cancel
    yield 0.5
    return make_recording(model, tokenizer, calibration_text()[:600])


def main(large: Path, small: Path) -> None:
    """Do what people do with models of the two checkpoints."""
    # The whole text takes minutes with the large one, and no more memory at a time.
    vars(loading)["recording_in_steps"] = _short_recording
    # Both checkpoints are computed as large ones are, or the libraries would not be warm.
    plan.SMALL_MODEL_PARAMETERS = 0
    probe = Probe()
    null = small.parent / "null.npz"
    load_small, load_large = LoadModel(str(small)), LoadModel(str(large))

    def cut() -> None:
        probe.weigh("half a load")
        os.truncate(large / "model.safetensors", 1000)

    # What the libraries take once, they keep: oneDNN has some 80 MB of programs for products, one
    # for each shape and number of tokens, which the small model has in common with the large one.
    probe.do("a small load", load_small, ModelLoaded)
    probe.do("saving", SaveCalibration(null), object)
    probe.do("before", UnloadModel(), ModelUnloaded)
    probe.do("loading", load_large, ModelLoaded)
    probe.do("loading again", load_large, ModelLoaded)
    probe.do("unloading", UnloadModel(), ModelUnloaded)
    probe.do("cancelling", load_large, JobCancelled, probe.cancel)
    probe.do("a wrong calibration", replace(load_large, calibration=null), Failed)
    probe.do("loading once more", load_large, ModelLoaded)
    probe.do("switching", load_small, ModelLoaded)
    probe.do("failing", load_large, Failed, cut)
    sys.stdout.write(json.dumps(probe.weights))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
