"""A checkpoint on disk: where its files are, what they hold, and why it cannot be used.

Reads configuration and headers, never weights; knows no device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from bh_studio import paths
from bh_studio.engine.architectures import model_problem
from bh_studio.engine.errors import DAMAGE, EngineError, InputError, as_sentence, reason
from bh_studio.engine.files.bounded import read_bytes
from bh_studio.engine.files.plain_json import JsonError, parsed
from bh_studio.engine.hub.files import CONFIG, INDEX, WEIGHTS, is_inside
from bh_studio.engine.hub.integrity import indexed_files
from bh_studio.engine.hub.source import parse_hub_source
from bh_studio.engine.hub.status import hub_folder

EMBEDDED = "embedded"
# The largest tokenizers have some 30 MB.
_MOST_JSON_BYTES = 256 * 2**20
_ADVICE = "Check that all files of the checkpoint are there and complete."
# Number of bytes by the format's name; no other format of weights is read.
ITEM_SIZES = {"BF16": 2, "F16": 2, "F32": 4}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a safetensors file. dtype: the format's name. start: byte in the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that may hold a model. source: what the person asked for. revision: hub's commit."""

    source: str
    folder: Path
    revision: str = ""

    @property
    def id(self) -> str:
        """What a session calls the model: "embedded", the hub's OWNER/NAME or the folder."""
        if self.source == EMBEDDED:
            return EMBEDDED
        hub = parse_hub_source(self.source) if self.revision else None
        return hub.repo if hub is not None else str(self.folder)

    @property
    def name(self) -> str:
        """The model's name for people."""
        if self.source == EMBEDDED:
            return "olmoe-nano (embedded)"
        return self.id.rpartition("/")[2] if self.revision else self.folder.name

    def config(self) -> dict[str, Any]:
        """The content of config.json. Raises EngineError if it is no configuration."""
        content = self.json(CONFIG)
        if content is None:
            raise EngineError(f"The model in {self.folder} has no {CONFIG}.", _ADVICE)
        return content

    def json(self, name: str) -> dict[str, Any] | None:
        """The content of the .json file `name`; None if there is none. Raises EngineError."""
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            content = parsed(read_bytes(path, _MOST_JSON_BYTES, "a file beside weights"), name)
            if not isinstance(content, dict):
                raise JsonError(f"{name} is no object.")
        except (InputError, JsonError) as error:
            raise EngineError(
                f"The model in {self.folder} could not be read: {error}", _ADVICE
            ) from error
        return content

    def check(self) -> None:
        """Raise EngineError if the configuration is not one of a model that can be used."""
        try:
            problem = model_problem(self.config())
        except DAMAGE as error:
            raise EngineError(
                f"The model in {self.folder} could not be read: {CONFIG}: a value is not what it "
                "should be.",
                _ADVICE,
            ) from error
        if problem:
            raise EngineError(
                f"{self.name} cannot be used: {problem}",
                "Choose a checkpoint of OLMoE or one of its relatives.",
            )

    def tensors(self) -> dict[str, StoredTensor]:
        """Every tensor of the weights by name. Raises EngineError for files that are damaged."""
        found: dict[str, StoredTensor] = {}
        for path in self._weight_files():
            try:
                found |= _tensors_in(path)
            except (OSError, SafetensorError, *DAMAGE) as error:
                raise EngineError(
                    f"The model in {self.folder} could not be read: {path.name}: "
                    f"{reason(error).rstrip('.')}.",
                    _ADVICE,
                ) from error
        return found

    def _weight_files(self) -> list[Path]:
        if (self.folder / WEIGHTS).is_file():
            return [self.folder / WEIGHTS]
        try:
            names = sorted(indexed_files(self.folder / INDEX))
        except (OSError, ValueError) as error:
            raise EngineError(
                f"The model in {self.folder} could not be read: {INDEX}: {as_sentence(error)}",
                _ADVICE,
            ) from error
        outside = next((name for name in names if not is_inside(name)), None)
        if outside is not None:
            raise EngineError(
                f"The index of {self.folder} names a file outside its folder, {outside!r}.",
                "Do not use this checkpoint.",
            )
        return [self.folder / name for name in names]


def find_checkpoint(source: str) -> Checkpoint:
    """The checkpoint that `source` names: "embedded", a folder, or a downloaded OWNER/NAME.

    Raises EngineError with what to do about it where there is none that could be read.
    """
    if source == EMBEDDED:
        return Checkpoint(source, paths.resource("models/olmoe-nano"))
    folder = Path(source).expanduser()
    hub = None if folder.is_dir() else parse_hub_source(source)
    if hub is not None:
        folder = hub_folder(hub)
        return Checkpoint(source, folder, revision=folder.name)
    if not (folder / CONFIG).is_file():
        raise EngineError(
            f"{source} is not a folder with a model: it holds no config.json.",
            "Give the folder of a checkpoint in the Hugging Face layout, the name of a downloaded "
            'model such as allenai/OLMoE-1B-7B-0924, or "embedded".',
        )
    if not any(folder.glob("*.safetensors")):
        raise EngineError(
            f"{source} holds no weights in the safetensors format.",
            "Other formats can run code when they are read and are not accepted.",
        )
    if not (folder / "tokenizer.json").is_file():
        # transformers would make an empty tokenizer of its own and say nothing.
        raise EngineError(
            f"{source} holds no tokenizer.json.", "Copy the tokenizer's files into the folder."
        )
    return Checkpoint(source, folder.resolve())


def parameter_count(tensors: Mapping[str, StoredTensor]) -> int:
    """Numbers in `tensors`."""
    return sum(tensor.size // ITEM_SIZES[tensor.dtype] for tensor in tensors.values())


def _tensors_in(path: Path) -> dict[str, StoredTensor]:
    # safetensors checks the header: no holes, no overlaps, and a file as long as it says. It tells
    # the order of the tensors but not their places, which follow from it.
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    found: dict[str, StoredTensor] = {}
    with safe_open(path, framework="np") as weights:
        for name in weights.offset_keys():
            piece = weights.get_slice(name)
            dtype, shape = piece.get_dtype(), tuple(piece.get_shape())
            if dtype not in ITEM_SIZES:
                raise ValueError(f"{name} has the number format {dtype}, which is not read.")
            size = ITEM_SIZES[dtype]
            for length in shape:
                size *= length
            found[name] = StoredTensor(path, dtype, shape, start, size)
            start += size
    if start != path.stat().st_size:
        raise ValueError("its header does not describe the whole file.")
    return found
