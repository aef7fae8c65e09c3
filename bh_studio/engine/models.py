"""Where models come from, and loading them with their null, ready to answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bh_studio import paths
from bh_studio.engine.calibration import null_for
from bh_studio.engine.errors import Cancelled, EngineError
from bh_studio.engine.experts import NAME as SELECTED_EXPERTS
from bh_studio.engine.experts import use_selected_experts
from bh_studio.engine.generation import SideDecoder
from bh_studio.engine.messages import (
    CancelToken,
    GenerationParameters,
    LoadProgress,
    ModelInfo,
)
from bh_studio.engine.nulls import RouterNull
from bh_studio.engine.routers import RouterShape, find_routers, router_shape
from bh_studio.engine.routing import BHRoutingIntegration
from bh_studio.engine.weights_progress import reported_weights

log = logging.getLogger(__name__)

EMBEDDED = "embedded"
# Below this size the weights stay in the processor's caches: float32 products are the faster ones,
# and one thread is, since waking a second takes longer than its share of such a product (and many
# times as long where another program holds its core). Above it memory traffic decides.
_SMALL_MODEL_PARAMETERS = 100_000_000
_DEFAULT_THREADS = torch.get_num_threads()

Report = Callable[[LoadProgress], None]


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model ready to answer. end_token_ids: tokens that end a text."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    null: RouterNull
    shape: RouterShape
    info: ModelInfo
    end_token_ids: frozenset[int]


def load_model(
    source: str = EMBEDDED,
    report: Report = lambda progress: None,
    cancel: CancelToken | None = None,
    dtype: torch.dtype | None = None,
) -> LoadedModel:
    """Load the embedded model, or the checkpoint in the folder `source`.

    dtype: None chooses the faster one for the model's size. Raises EngineError with what a person
    can do about it, Cancelled if `cancel` was set.
    """
    cancel = cancel or CancelToken()
    folder = _folder(source)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def weights_read(share: float) -> None:
        _raise_if(cancel)
        report(LoadProgress("Reading the weights", share))

    with reported_weights(weights_read):
        model, tokenizer = _read_checkpoint(folder, dtype, device)
    use_selected_experts(model)
    shape = _checked_shape(model, folder)
    _raise_if(cancel)

    report(LoadProgress("Preparing the null distributions", 0.0))
    null = null_for(
        model,
        tokenizer,
        lambda done: report(LoadProgress("Preparing the null distributions", done)),
        cancel,
    )
    _raise_if(cancel)
    report(LoadProgress("Warming up"))
    _warm_up(model, null, shape)
    name = folder.name if source != EMBEDDED else "olmoe-nano (embedded)"
    info = ModelInfo(
        id=source if source == EMBEDDED else str(folder),
        name=name,
        architecture=type(model).__name__,
        fingerprint=null.origin.model_fingerprint,
        layers=shape.layers,
        experts=shape.experts,
        top_k=shape.top_k,
        context_length=int(model.config.max_position_embeddings),
        parameter_count=model.num_parameters(),
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        expert_path=SELECTED_EXPERTS,
        null_sha256=null.sha256,
        null_samples=null.samples,
        has_chat_template=bool(tokenizer.chat_template),
    )
    log.info("Loaded %s", info)
    return LoadedModel(model, tokenizer, null, shape, info, _end_token_ids(model, tokenizer))


def _folder(source: str) -> Path:
    if source == EMBEDDED:
        return paths.resource("models/olmoe-nano")
    folder = Path(source).expanduser()
    if not (folder / "config.json").is_file():
        raise EngineError(
            f"{source} is not a folder with a model: it holds no config.json.",
            'Give the folder of a checkpoint in the Hugging Face layout, or "embedded".',
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
    return folder.resolve()


def _read_checkpoint(
    folder: Path, dtype: torch.dtype | None, device: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype or "auto",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise EngineError(
            f"The model in {folder} could not be read: {error}",
            "Check that all files of the checkpoint are there and complete.",
        ) from error
    # transformers fills weights that it does not find with random numbers and only warns.
    missing = sorted(loading["missing_keys"])
    if missing:
        raise EngineError(
            f"The checkpoint in {folder} lacks {len(missing)} weights, {missing[0]} among them.",
            "Check that all files of the checkpoint are there and complete.",
        )
    is_small = model.num_parameters() <= _SMALL_MODEL_PARAMETERS
    if device == "cpu":
        torch.set_num_threads(1 if is_small else _DEFAULT_THREADS)
        if is_small and dtype is None:
            model = model.float()
    return model.to(device).eval(), tokenizer


def _checked_shape(model: PreTrainedModel, folder: Path) -> RouterShape:
    try:
        return router_shape(find_routers(model))
    except RuntimeError as error:
        raise EngineError(
            f"{folder.name} cannot be used: {error}", "Choose a checkpoint of an OLMoE model."
        ) from error


def _end_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    configured = model.generation_config.eos_token_id if model.generation_config else None
    end = {configured} if configured is None or isinstance(configured, int) else set(configured)
    # A chat template may end turns with the tokenizer's own end, where texts end with another.
    if configured is None or tokenizer.chat_template:
        end.add(tokenizer.eos_token_id)
    return frozenset(token_id for token_id in end if token_id is not None)


def _warm_up(model: PreTrainedModel, null: RouterNull, shape: RouterShape) -> None:
    """Run both sides for a few tokens: first calls are slow, and they would count against the
    side that happens to go first."""
    integration = BHRoutingIntegration(model, max_k=shape.top_k, null=null)
    prompt = torch.zeros((1, 8), dtype=torch.int64)
    for side in (None, integration):
        decoder = SideDecoder(
            model, prompt, GenerationParameters(sampling=False), frozenset(), shape, side
        )
        for _ in range(3):
            decoder.step()


def _raise_if(cancel: CancelToken) -> None:
    if cancel.is_cancelled:
        raise Cancelled
