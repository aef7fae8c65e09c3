"""Loading a model with its recording, ready to answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from bh_studio.engine.calibration.recorder import recording_in_steps
from bh_studio.engine.decoding.paths import decode_path
from bh_studio.engine.decoding.side import SideDecoder
from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.models.checkpoint import EMBEDDED
from bh_studio.engine.models.configuration import empty_model_of, read_generation, read_tokenizer
from bh_studio.engine.models.layout import empty_model, layout
from bh_studio.engine.models.plan import LoadPlan, plan_load
from bh_studio.engine.models.weights import check_weights, materialize, read_weights
from bh_studio.engine.moe.experts import expert_path, use_selected_experts
from bh_studio.engine.moe.fingerprint import OTHER_MODEL, check_recording, check_shape
from bh_studio.engine.moe.integration import RoutingIntegration
from bh_studio.engine.moe.routers import find_routers, router_shape
from bh_studio.engine.protocol.events import LoadProgress
from bh_studio.engine.records.recording import RecordingError
from bh_studio.engine.records.terms import GenerationParameters, ModelInfo
from bh_studio.engine.routing.recordings import Recording, load_recording
from bh_studio.engine.rules.parameters import RouterShape, RuleParameters
from bh_studio.engine.steps import result_of_steps, told_as

log = logging.getLogger(__name__)

# What torch takes if nobody asks for another number; read_model may.
DEFAULT_THREADS = torch.get_num_threads()
_CALIBRATION_ADVICE = "Make one for this model with `bh-studio calibrate --out FILE`."

Report = Callable[[LoadProgress], None]


@dataclass(frozen=True, slots=True, eq=False)
class PreparedLoad:
    """A plan that has passed every check that needs no weights.

    generation: what the checkpoint says of how texts end, if it does. recording: what `calibration`
    holds, if it was given.
    """

    plan: LoadPlan
    tokenizer: PreTrainedTokenizerBase
    generation: GenerationConfig | None
    recording: Recording | None
    calibration: Path | None


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model ready to answer. end_token_ids: tokens that end a text.

    Raises RecordingError if the recording is not of the model that `info` describes.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    recording: Recording
    shape: RouterShape
    info: ModelInfo
    end_token_ids: frozenset[int]

    def __post_init__(self) -> None:
        # What makes rules of the recording relies on this, and need not look at the weights again.
        if self.recording.origin.model_fingerprint != self.info.fingerprint:
            raise RecordingError(OTHER_MODEL)


def load_model(
    source: str = EMBEDDED,
    report: Report = lambda progress: None,
    cancel: CancelToken | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    load_anyway: bool = False,
    calibration: Path | None = None,
) -> LoadedModel:
    """Load the model that `source` names; the values are those of requests.LoadModel.

    Raises EngineError with what a person can do about it, MemoryShortageError where memory is
    short, Cancelled if `cancel` was set.
    """
    plan = plan_load(source, device, dtype)
    if not load_anyway:
        plan.check_memory()
    steps = load_prepared(prepare_load(plan, calibration), cancel or CancelToken())
    return result_of_steps(steps, report)


def prepare_load(plan: LoadPlan, calibration: Path | None = None) -> PreparedLoad:
    """Read all but the weights, and compare their names and shapes with the configuration.

    Raises EngineError for what cannot be used. The memory is not looked at.
    """
    recording = None if calibration is None else _read_recording(calibration)
    tokenizer = read_tokenizer(plan.checkpoint)
    _check_vocabulary(plan, tokenizer)
    generation = read_generation(plan.checkpoint, plan.config)
    model = empty_model_of(plan.checkpoint, plan.config, plan.dtype)
    check_weights(model, plan.tensors, plan.architecture)
    if recording is not None:
        with _of_calibration(calibration):
            check_shape(recording, router_shape(find_routers(model)))
    return PreparedLoad(plan, tokenizer, generation, recording, calibration)


def load_prepared(
    prepared: PreparedLoad, cancel: CancelToken
) -> Generator[LoadProgress, None, LoadedModel]:
    """Load what was prepared, whether it fits or not; its steps. Raises what load_model raises."""
    plan, tokenizer, recording = prepared.plan, prepared.tokenizer, prepared.recording
    _raise_if(cancel)
    model = yield from read_model(plan, cancel)
    if prepared.generation is not None:
        model.generation_config = prepared.generation
    use_selected_experts(model)
    shape = router_shape(find_routers(model))
    _raise_if(cancel)
    if recording is None:
        recording = yield from _prepared_recording(model, tokenizer, cancel)
    else:
        with _of_calibration(prepared.calibration):
            check_recording(recording, model)
    _raise_if(cancel)
    yield LoadProgress("Warming up")
    _warm_up(model, recording, shape)
    info = _describe(plan, model, tokenizer, recording, shape)
    log.info("Loaded %s", info)
    return LoadedModel(model, tokenizer, recording, shape, info, _end_token_ids(model, tokenizer))


def read_model(
    plan: LoadPlan, cancel: CancelToken
) -> Generator[LoadProgress, None, PreTrainedModel]:
    """The model of `plan` with its weights, its routing and expert computation as they come."""
    if plan.devices == ("cpu",):
        # Waking a second thread takes longer than its share of a small model's products, and many
        # times as long where another program holds its core.
        torch.set_num_threads(1 if plan.is_small else DEFAULT_THREADS)

    model = empty_model(plan.config, plan.dtype)
    place = layout(model, plan.devices, plan.dtype)
    materialize(model, plan.dtype, place.device_of)
    with closing(read_weights(model, plan.tensors, plan.architecture)) as shares:
        for share in shares:
            _raise_if(cancel)
            yield LoadProgress("Reading the weights", share)
    return place.finish(model)


def _check_vocabulary(plan: LoadPlan, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise EngineError if ordinary words have tokens that are none of the model's.

    Of tokens that were added to a tokenizer only texts that have them are refused.
    """
    tokens, rows = tokenizer.vocab_size, plan.config.vocab_size
    if tokens > rows:
        raise EngineError(
            f"The tokenizer in {plan.checkpoint.folder} has {tokens} tokens, and the model only "
            f"{rows}.",
            "Put the tokenizer of this very model into its folder.",
        )


def _prepared_recording(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cancel: CancelToken,
) -> Generator[LoadProgress, None, Recording]:
    stage = "Preparing the null distributions"
    yield LoadProgress(stage, 0.0)
    steps = recording_in_steps(model, tokenizer, cancel)
    return (yield from told_as(steps, lambda share: LoadProgress(stage, share)))


def _read_recording(path: Path) -> Recording:
    try:
        with _of_calibration(path):
            return load_recording(path)
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}.") from error


@contextmanager
def _of_calibration(path: Path | None) -> Iterator[None]:
    """What is wrong with a calibration, told with its file and what to do."""
    try:
        yield
    except RecordingError as error:
        raise EngineError(f"{path} cannot be used: {error}", _CALIBRATION_ADVICE) from error


def _describe(
    plan: LoadPlan,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    recording: Recording,
    shape: RouterShape,
) -> ModelInfo:
    return ModelInfo(
        id=plan.checkpoint.id,
        name=plan.checkpoint.name,
        architecture=type(model).__name__,
        fingerprint=recording.origin.model_fingerprint,
        layers=shape.layers,
        experts=shape.experts,
        top_k=shape.top_k,
        context_length=int(model.config.max_position_embeddings),
        parameter_count=model.num_parameters(),
        dtype=str(model.dtype).removeprefix("torch."),
        device=", ".join(plan.devices),
        expert_path=expert_path(model),
        null_sha256=recording.sha256,
        null_samples=recording.samples,
        revision=plan.checkpoint.revision,
        has_chat_template=bool(tokenizer.chat_template),
        decode_path=str(decode_path(model)),
        norm_topk_prob=shape.norm_topk_prob,
    )


def _end_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    configured = model.generation_config.eos_token_id if model.generation_config else None
    end = {configured} if configured is None or isinstance(configured, int) else set(configured)
    # A chat template may end turns with the tokenizer's own end, where texts end with another.
    if configured is None or tokenizer.chat_template:
        end.add(tokenizer.eos_token_id)
    return frozenset(token_id for token_id in end if token_id is not None)


def _warm_up(model: PreTrainedModel, recording: Recording, shape: RouterShape) -> None:
    """Run both sides for a few tokens: first calls are slow, and they would count against the
    side that happens to go first."""
    integration = RoutingIntegration(model, RuleParameters(max_k=shape.top_k), recording=recording)
    prompt = torch.zeros((1, 8), dtype=torch.int64)
    for side in (None, integration):
        decoder = SideDecoder(
            model, prompt, GenerationParameters(sampling=False), frozenset(), shape, side
        )
        with closing(decoder):
            for _ in range(3):
                decoder.step()


def _raise_if(cancel: CancelToken) -> None:
    if cancel.is_cancelled:
        raise Cancelled
