"""A process that loads and unloads models as the engine does, and weighs itself meanwhile.

Run as `python -m tests.engine.memory_probe LARGE SMALL`, two checkpoints; prints one JSON object:
resident bytes by what was done before, and the highest between two of these as "peak of ...".
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import psutil
from msgspec.structs import replace
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bh_studio.engine import loading
from bh_studio.engine.calibration.recorder import calibration_text, make_recording
from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.execution.host import Host
from bh_studio.engine.models import plan
from bh_studio.engine.protocol.events import (
    Event,
    LoadProgress,
    ModelLoaded,
    ModelUnloaded,
)
from bh_studio.engine.protocol.requests import (
    LoadModel,
    ModelBound,
    SaveCalibration,
    UnloadModel,
)
from bh_studio.engine.routing.recordings import Recording


class Probe:
    """Hands requests to the owner of the model and weighs the process after each."""

    def __init__(self) -> None:
        self.weights: dict[str, int] = {}
        self._host = Host()

    def do(
        self, what: str, body: ModelBound, ending: type, half_way: Callable[[], None] = lambda: None
    ) -> None:
        """Have `body` answered, which must end with an event or an error of the type `ending`."""
        # From here on the highest resident size is counted anew.
        Path("/proc/self/clear_refs").write_text("5")
        self._cancel = CancelToken()
        end: object = None
        try:
            for event in self._host.answer(body, self._cancel):
                end = event
                if is_half_read(event):
                    half_way()
                    half_way = _nothing
        except (Cancelled, EngineError) as error:
            end = type(error)("")
        if not isinstance(end, ending):
            raise SystemExit(f"{what}: {end}")
        self.weigh(what)

    def cancel(self) -> None:
        """Ask what is answered now to end."""
        self._cancel.cancel()

    def weigh(self, what: str) -> None:
        status = Path("/proc/self/status").read_text()
        peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        self.weights[what] = psutil.Process().memory_info().rss
        self.weights[f"peak of {what}"] = int(peak) * 1024


def is_half_read(event: Event) -> bool:
    """Whether half of the weights are there."""
    if not isinstance(event, LoadProgress) or event.stage != "Reading the weights":
        return False
    return (event.fraction or 0) >= 0.5


def _nothing() -> None:
    pass


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
    probe.do("cancelling", load_large, Cancelled, probe.cancel)
    probe.do("a wrong calibration", replace(load_large, calibration=null), EngineError)
    probe.do("loading once more", load_large, ModelLoaded)
    probe.do("switching", load_small, ModelLoaded)
    probe.do("failing", load_large, EngineError, cut)
    sys.stdout.write(json.dumps(probe.weights))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
