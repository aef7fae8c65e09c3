"""Recording the router logits of a model over a text, and keeping the recordings.

A recording belongs to one model in one dtype; it is made when a model is first used, and cached
under the model's fingerprint.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from bh_studio.engine.calibration.expert_norms import OutputNorms, mean_norms
from bh_studio.engine.calibration.sensitivity import sensitivities, squared_effects
from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.moe.fingerprint import check_recording, model_fingerprint
from bh_studio.engine.moe.routers import find_routers, router_shape
from bh_studio.engine.moe.vocabulary import check_token_ids
from bh_studio.engine.protocol.texts import shipped_text
from bh_studio.engine.records.calibration import FisherRow, LogitsRow
from bh_studio.engine.records.decisions.session_null import kept_recording_path
from bh_studio.engine.records.recording import RecordingError, RecordingOrigin
from bh_studio.engine.routing.recordings import Recording, load_recording, save_recording
from bh_studio.engine.rules.parameters import ScoreName
from bh_studio.engine.steps import result_of_steps

log = logging.getLogger(__name__)

WINDOW = 512
# The first position of a window attends only to itself and has outlier logits (an attention sink);
# the next few see hardly more.
SKIPPED_POSITIONS = 4
_MIN_TOKENS = 256


def calibration_text() -> str:
    """The text that ships with the program for this purpose."""
    return shipped_text().content


def recording_for(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None
) -> Recording:
    """The recording of `model` on the bundled text: from the cache, or made and cached.

    tokenizer: by default that of `model.name_or_path`, from this machine only.
    Raises EngineError if there is no tokenizer.
    """
    return result_of_steps(recording_in_steps(model, tokenizer, CancelToken()))


def recording_in_steps(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, cancel: CancelToken
) -> Generator[float, None, Recording]:
    """The same, with the share that is done on the way. Raises Cancelled if `cancel` was set."""
    text = calibration_text()
    path = _cache_path(model, text)
    try:
        recording = load_recording(path)
        check_recording(recording, model)
        return recording
    except FileNotFoundError:
        pass
    except (RecordingError, OSError) as error:
        log.warning("The cached recording is made again: %s", error)
    reading = Reading(model, tokenizer or _own_tokenizer(model), [text])
    recording = yield from _made(reading, cancel)
    try:
        save_recording(recording, path)
    except OSError as error:
        log.warning("The recording could not be cached and will be made again next time: %s", error)
    return recording


def make_recording(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str | Sequence[str],
    factors: Collection[ScoreName] = (),
) -> Recording:
    """Record the router logits of `model` over a text or several, which are read apart.

    factors: scores whose factors are measured too; "sensitivity" needs gradients.

    Raises EngineError for texts that are too short together.
    """
    texts = [text] if isinstance(text, str) else list(text)
    return result_of_steps(_made(Reading(model, tokenizer, texts, factors), CancelToken()))


def _made(reading: Reading, cancel: CancelToken) -> Generator[float, None, Recording]:
    """All windows, with the share that is done; cancelled between two of them."""
    logits: list[LogitsRow] = []
    effects: list[FisherRow] = []
    # Forward and backward take about three times as long as forward alone.
    total = len(reading.windows) * (4 if reading.has_sensitivity else 1)
    for number in range(len(reading.windows)):
        _raise_if(cancel)
        logits.append(reading.record(number))
        yield (number + 1) / total
    for number in range(len(reading.windows) if reading.has_sensitivity else 0):
        _raise_if(cancel)
        effects.append(reading.differentiate(number))
        yield (len(reading.windows) + 3 * (number + 1)) / total
    return reading.joined(logits, effects)


class Reading:
    """Texts in windows without overlap, each recorded for itself.

    windows: token ids, (token,) each. has_sensitivity: whether windows are differentiated too.

    Raises EngineError for texts that are too short together, or have tokens that are none of the
    model's.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[str],
        factors: Collection[ScoreName] = (),
    ) -> None:
        documents = [tokenizer(text, verbose=False).input_ids for text in texts]
        tokens = sum(map(len, documents))
        if tokens < _MIN_TOKENS or max(map(len, documents)) <= SKIPPED_POSITIONS:
            raise EngineError(
                f"The calibration text has only {tokens} tokens.",
                f"Use a text of at least {_MIN_TOKENS}, better 2,000.",
            )
        for document in documents:
            check_token_ids(model, tokenizer, document, "The calibration text")
        self._model, self._texts, self._factors = model, texts, factors
        self._window = min(WINDOW, int(model.config.max_position_embeddings))
        read = [torch.tensor(document, dtype=torch.int64) for document in documents]
        self.windows = _windows(read, self._window)
        self.has_sensitivity = ScoreName.SENSITIVITY in factors

    def record(self, number: int) -> LogitsRow:
        """Router logits of one window, and norms if they are wanted.

        Raises EngineError if the logits are not finite.
        """
        norms = None
        if ScoreName.OUTPUT in self._factors:
            norms = OutputNorms(self._model, SKIPPED_POSITIONS)
        with norms or nullcontext():
            logits = router_logits_of(self._model, self.windows[number])
        if not torch.isfinite(logits).all():
            raise EngineError(
                "The model's routers produce values that are not finite.",
                "The checkpoint is damaged, or this number format is too narrow for it.",
            )
        return LogitsRow(logits.numpy(), None if norms is None else norms.sums())

    def differentiate(self, number: int) -> FisherRow:
        """How much each expert matters in one window."""
        squares = squared_effects(self._model, self.windows[number], number, SKIPPED_POSITIONS)
        return FisherRow(squares.numpy())

    def fits(self, number: int, row: LogitsRow | FisherRow) -> bool:
        """Whether `row` can be what `record` or `differentiate` gave for that window."""
        shape = router_shape(find_routers(self._model))
        of_experts = (2, shape.layers, shape.experts)
        if isinstance(row, FisherRow):
            return row.squares.shape == of_experts
        tokens = len(self.windows[number]) - SKIPPED_POSITIONS
        has_norms = ScoreName.OUTPUT in self._factors
        return (
            row.logits.shape == (shape.layers, tokens, shape.experts)
            and bool(np.isfinite(row.logits).all())
            and (row.norms.shape == of_experts if row.norms is not None else not has_norms)
        )

    def joined(self, rows: Sequence[LogitsRow], effects: Sequence[FisherRow]) -> Recording:
        """The recording that all windows make, in their order."""
        logits = torch.from_numpy(np.concatenate([row.logits for row in rows], axis=1))
        origin = RecordingOrigin(
            model_fingerprint=model_fingerprint(self._model),
            text_sha256=hashlib.sha256("\0".join(self._texts).encode()).hexdigest(),
            tokens=logits.shape[1],
            skipped_positions=SKIPPED_POSITIONS,
            window=self._window,
            top_k=router_shape(find_routers(self._model)).top_k,
        )
        factors = {}
        norms = [row.norms for row in rows if row.norms is not None]
        if norms:
            factors[ScoreName.OUTPUT] = mean_norms(torch.from_numpy(sum_of(norms)))
        if effects:
            squares = sum_of([row.squares for row in effects])
            factors[ScoreName.SENSITIVITY] = sensitivities(torch.from_numpy(squares))
        return Recording(logits, origin, factors)


def router_logits_of(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Router logits of one window of token ids, (token,).

    Returns (layer, token, expert) float32 on the CPU, the first SKIPPED_POSITIONS left out.
    """
    routers = find_routers(model)
    recorded: list[list[Tensor]] = [[] for _ in routers]
    hooks = [
        router.register_forward_hook(_recorder(kept))
        for router, kept in zip(routers, recorded, strict=True)
    ]
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            model(ids[None].to(model.device), use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return torch.stack([torch.cat(kept) for kept in recorded])


def sum_of(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of arrays of one shape, added in their order."""
    total = np.zeros_like(arrays[0])
    for array in arrays:
        total += array
    return total


def _raise_if(cancel: CancelToken) -> None:
    if cancel.is_cancelled:
        raise Cancelled


def _windows(documents: Sequence[Tensor], window: int) -> list[Tensor]:
    return [w for ids in documents for w in ids.split(window) if len(w) > SKIPPED_POSITIONS]


def _recorder(kept: list[Tensor]) -> Callable[[nn.Module, object, tuple[Tensor, ...]], None]:
    def record(_module: nn.Module, _inputs: object, outputs: tuple[Tensor, ...]) -> None:
        # A copy: tensors made under inference mode may not be used outside it.
        kept.append(outputs[0][SKIPPED_POSITIONS:].float().cpu())

    return record


def _cache_path(model: PreTrainedModel, text: str) -> Path:
    text_sha256 = hashlib.sha256(text.encode()).hexdigest()
    return kept_recording_path(model_fingerprint(model), text_sha256)


def _own_tokenizer(model: PreTrainedModel) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(model.name_or_path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"No tokenizer was found on this machine for {model.name_or_path or 'this model'!r}, "
            "so its nulls cannot be fitted.",
            "Pass tokenizer=..., or recording=make_recording(model, tokenizer, text).",
        ) from error
