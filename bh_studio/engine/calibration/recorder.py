"""Recording the router logits of a model over a text, and keeping the recordings.

A recording belongs to one model in one dtype; it is made when a model is first used, and cached
under the model's fingerprint.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from bh_studio import paths
from bh_studio.engine.calibration.expert_norms import OutputNorms
from bh_studio.engine.calibration.sensitivity import expert_sensitivities
from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.moe.fingerprint import check_recording, model_fingerprint
from bh_studio.engine.moe.routers import find_routers, router_shape
from bh_studio.engine.routing.recordings import (
    Recording,
    RecordingError,
    RecordingOrigin,
    load_recording,
    save_recording,
)
from bh_studio.engine.rules.parameters import ScoreName

log = logging.getLogger(__name__)

WINDOW = 512
# The first position of a window attends only to itself and has outlier logits (an attention sink);
# the next few see hardly more.
SKIPPED_POSITIONS = 4
_MIN_TOKENS = 256

Progress = Callable[[float], None]


def calibration_text() -> str:
    """The text that ships with the program for this purpose."""
    return paths.resource("texts/calibration.txt").read_text(encoding="utf-8")


def recording_for(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
) -> Recording:
    """The recording of `model` on the bundled text: from the cache, or made and cached.

    tokenizer: by default that of `model.name_or_path`, from this machine only.
    Raises EngineError if there is no tokenizer, Cancelled if `cancel` was set.
    """
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
    recording = make_recording(model, tokenizer or _own_tokenizer(model), text, progress, cancel)
    try:
        save_recording(recording, path)
    except OSError as error:
        log.warning("The recording could not be cached and will be made again next time: %s", error)
    return recording


def make_recording(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str | Sequence[str],
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
    factors: Collection[ScoreName] = (),
) -> Recording:
    """Record the router logits of `model` over a text or several, which are read apart.

    factors: scores whose factors are measured too; "sensitivity" needs gradients.

    Raises EngineError for texts that are too short together, Cancelled if `cancel` was set.
    """
    texts = [text] if isinstance(text, str) else list(text)
    documents = [tokenizer(t, return_tensors="pt", verbose=False).input_ids[0] for t in texts]
    tokens = sum(len(document) for document in documents)
    if tokens < _MIN_TOKENS or max(map(len, documents)) <= SKIPPED_POSITIONS:
        raise EngineError(
            f"The calibration text has only {tokens} tokens.",
            f"Use a text of at least {_MIN_TOKENS}, better 2,000.",
        )
    window = min(WINDOW, int(model.config.max_position_embeddings))
    shape = router_shape(find_routers(model))
    norms = OutputNorms(model, SKIPPED_POSITIONS) if ScoreName.OUTPUT in factors else None
    # Forward and backward take about three times as long as forward alone.
    split = 0.25 if ScoreName.SENSITIVITY in factors else 1.0
    with norms or nullcontext():
        logits = record_router_logits(model, documents, window, _part(progress, 0, split), cancel)
    if not torch.isfinite(logits).all():
        raise EngineError(
            "The model's routers produce values that are not finite.",
            "The checkpoint is damaged, or this number format is too narrow for it.",
        )
    origin = RecordingOrigin(
        model_fingerprint=model_fingerprint(model),
        text_sha256=hashlib.sha256("\0".join(texts).encode()).hexdigest(),
        tokens=logits.shape[1],
        skipped_positions=SKIPPED_POSITIONS,
        window=window,
        top_k=shape.top_k,
    )
    measured = {} if norms is None else {ScoreName.OUTPUT: norms.means()}
    if ScoreName.SENSITIVITY in factors:
        measured[ScoreName.SENSITIVITY] = expert_sensitivities(
            model, _windows(documents, window), SKIPPED_POSITIONS, _part(progress, split, 1), cancel
        )
    return Recording(logits, origin, measured)


def record_router_logits(
    model: PreTrainedModel,
    documents: Sequence[Tensor],
    window: int,
    progress: Progress | None = None,
    cancel: CancelToken | None = None,
) -> Tensor:
    """Router logits over the token ids of `documents`, each (token,), in windows without overlap.

    Returns (layer, token, expert) float32 on the CPU, the first SKIPPED_POSITIONS of each window
    left out. Raises Cancelled if `cancel` was set between two windows.
    """
    routers = find_routers(model)
    recorded: list[list[Tensor]] = [[] for _ in routers]
    hooks = [
        router.register_forward_hook(_recorder(kept))
        for router, kept in zip(routers, recorded, strict=True)
    ]
    was_training = model.training
    model.eval()
    windows = _windows(documents, window)
    try:
        with torch.inference_mode():
            for done, part in enumerate(windows):
                if cancel is not None and cancel.is_cancelled:
                    raise Cancelled
                model(part[None].to(model.device), use_cache=False, logits_to_keep=1)
                if progress is not None:
                    progress((done + 1) / len(windows))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return torch.stack([torch.cat(kept) for kept in recorded])


def _part(progress: Progress | None, start: float, end: float) -> Progress | None:
    """`progress` for a part of the work that spans `start` to `end` of it."""
    return None if progress is None else lambda done: progress(start + done * (end - start))


def _windows(documents: Sequence[Tensor], window: int) -> list[Tensor]:
    return [w for ids in documents for w in ids.split(window) if len(w) > SKIPPED_POSITIONS]


def _recorder(kept: list[Tensor]) -> Callable[[nn.Module, object, tuple[Tensor, ...]], None]:
    def record(_module: nn.Module, _inputs: object, outputs: tuple[Tensor, ...]) -> None:
        # A copy: tensors made under inference mode may not be used outside it.
        kept.append(outputs[0][SKIPPED_POSITIONS:].float().cpu())

    return record


def _cache_path(model: PreTrainedModel, text: str) -> Path:
    text_hash = hashlib.sha256(text.encode()).hexdigest()[:16]
    return paths.cache_dir() / "nulls" / f"{model_fingerprint(model)}-{text_hash}.npz"


def _own_tokenizer(model: PreTrainedModel) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(model.name_or_path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"No tokenizer was found on this machine for {model.name_or_path or 'this model'!r}, "
            "so its nulls cannot be fitted.",
            "Pass tokenizer=..., or recording=make_recording(model, tokenizer, text).",
        ) from error
