"""What a load is going to take and where it will lie, told before any weight is read."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from bh_studio.engine.errors import EngineError
from bh_studio.engine.loading import load_model
from bh_studio.engine.models.devices import check_device, check_dtype
from bh_studio.engine.models.plan import MemoryShortageError, inspect_model, plan_load
from bh_studio.engine.protocol.requests import InspectModel
from tests.tiny_olmoe import CONTEXT, EXPERTS, HIDDEN, LAYERS, save_tiny_checkpoint, tiny_model

WIDTH, VOCABULARY = 16, 257
# Per layer: four square attention matrices, two norms of queries and keys, two of the layer, the
# router, and three matrices an expert. Around them: embeddings, head and the last norm.
PARAMETERS = (
    LAYERS * (4 * HIDDEN**2 + 4 * HIDDEN + EXPERTS * HIDDEN + EXPERTS * 3 * HIDDEN * WIDTH)
    + 2 * VOCABULARY * HIDDEN
    + HIDDEN
)
# Two sides remember keys and values of every layer, as wide as the hidden state.
CACHE_NUMBERS = 2 * CONTEXT * 2 * LAYERS * HIDDEN


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-olmoe")))


_SPEC = importlib.util.find_spec


class Machine:
    """A machine with the devices and the free memory that a test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def has(self, accelerate: bool = False, **free: int) -> None:
        """Free bytes by device; cuda_0 stands for cuda:0."""
        sizes = {name.replace("_", ":"): size for name, size in free.items()}
        found = [name for name in sizes if name != "cpu"]
        for module in ("devices", "plan"):
            self._patch.setattr(f"bh_studio.engine.models.{module}.gpus", lambda: found)
        self._patch.setattr(
            "bh_studio.engine.models.memory.free_bytes", lambda device: sizes[device]
        )
        self._patch.setattr(
            "importlib.util.find_spec",
            lambda name, *package: accelerate or None if name == "accelerate" else _SPEC(name),
        )


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2), ("float16", 2)])
def test_the_memory_that_is_needed(
    dtype: str, size: int, checkpoint: str, machine: Machine
) -> None:
    assert sum(p.numel() for p in tiny_model().parameters()) == PARAMETERS
    machine.has(cpu=10**9)
    (need,) = plan_load(checkpoint, "cpu", dtype).needs
    assert need.weights == PARAMETERS * size
    # Keys and values are kept in float32 on the CPU.
    assert need.cache == CACHE_NUMBERS * 4
    assert need.cache_tokens == CONTEXT
    assert need.free == 10**9
    assert need.total == need.weights + need.cache + need.headroom


def test_the_cache_is_reckoned_for_no_more_than_2048_tokens(
    tmp_path: Path, machine: Machine
) -> None:
    machine.has(cpu=10**9, cuda_0=10**9)
    save_tiny_checkpoint(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"max_position_embeddings": 32768, "num_key_value_heads": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    # One of two heads keeps keys and values: half of the hidden state.
    numbers = 2 * 2048 * 2 * LAYERS * HIDDEN // 2
    for device, size in (("cpu", 4), ("cuda:0", 2)):
        (need,) = plan_load(str(tmp_path), device, "bfloat16").needs
        assert need.cache_tokens == 2048
        assert need.cache == numbers * size


def test_a_refusal_names_what_is_needed_and_what_is_free(checkpoint: str, machine: Machine) -> None:
    machine.has(cpu=300_000)
    with pytest.raises(MemoryShortageError) as caught:
        load_model(checkpoint, dtype="bfloat16")
    message, advice = caught.value.message, caught.value.advice
    assert f"{PARAMETERS * 2 / 1000:.0f} kB for its weights" in message
    assert f"{CACHE_NUMBERS * 4 / 1000:.0f} kB to remember {CONTEXT} tokens a side" in message
    assert "300 kB are free." in message
    assert "on cpu" in message
    assert "load it anyway" in advice
    assert [need.fits for need in caught.value.needs] == [False]
    assert load_model(checkpoint, dtype="bfloat16", load_anyway=True).info.layers == LAYERS


def test_what_just_fits_is_not_refused(checkpoint: str, machine: Machine) -> None:
    machine.has(cpu=10**9)
    (need,) = plan_load(checkpoint, "cpu", "bfloat16").needs
    machine.has(cpu=need.total)
    plan_load(checkpoint, "cpu", "bfloat16").check_memory()
    machine.has(cpu=need.total - 1)
    with pytest.raises(MemoryShortageError):
        plan_load(checkpoint, "cpu", "bfloat16").check_memory()


def test_the_memory_of_the_model_loaded_now_is_free(checkpoint: str, machine: Machine) -> None:
    machine.has(cpu=100)
    plan = plan_load(checkpoint, "cpu", "bfloat16", {"cpu": 10**7, "cuda:0": 10**9})
    assert plan.needs[0].free == 10**7 + 100
    plan.check_memory()


@pytest.mark.parametrize(
    ("devices", "accelerate", "expected"),
    [
        ({"cpu": 3}, False, ("cpu",)),
        ({"cuda_0": 1.1, "cpu": 3}, False, ("cuda:0",)),
        ({"cuda_0": 0.2, "cuda_1": 1.1, "cpu": 3}, True, ("cuda:1",)),
        ({"cuda_0": 0.2, "cpu": 3}, True, ("cpu",)),
        ({"cuda_0": 0.6, "cuda_1": 0.6, "cpu": 3}, True, ("cuda:0", "cuda:1")),
        ({"cuda_0": 0.6, "cuda_1": 0.6, "cpu": 3}, False, ("cpu",)),
        ({"cuda_0": 0.2, "cpu": 0.1}, False, ("cuda:0",)),
    ],
)
def test_auto_takes_the_first_that_fits(
    devices: dict[str, float], accelerate: bool, expected: tuple[str, ...], checkpoint: str,
    machine: Machine, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """devices: what is free, as a multiple of what the model takes in bfloat16 without reserve."""
    monkeypatch.setattr("bh_studio.engine.models.memory._MOST_HEADROOM_SHARE", 0)
    whole = 2 * (PARAMETERS + CACHE_NUMBERS)
    machine.has(accelerate, **{name: int(share * whole) for name, share in devices.items()})
    plan = plan_load(checkpoint)
    assert plan.devices == expected
    weights = sum(need.weights for need in plan.needs)
    assert weights == pytest.approx(PARAMETERS * plan.dtype.itemsize, abs=1)


def test_a_small_model_is_computed_in_float32_on_a_cpu_only(
    checkpoint: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.has(cpu=10**9, cuda_0=10**9)
    assert plan_load(checkpoint, "cpu").dtype == torch.float32
    assert plan_load(checkpoint, "cuda:0").dtype == torch.bfloat16
    monkeypatch.setattr("bh_studio.engine.models.plan.SMALL_MODEL_PARAMETERS", PARAMETERS - 1)
    assert plan_load(checkpoint, "cpu").dtype == torch.bfloat16


def test_devices_that_are_not_there_are_refused(machine: Machine) -> None:
    machine.has(cpu=10**9)
    with pytest.raises(EngineError, match=r"'gpu' is not a device\. Choose auto, cpu, cuda:N"):
        check_device("gpu")
    for device in ("cuda", "cuda:0", "cuda:all"):
        with pytest.raises(EngineError, match="finds no CUDA GPU on this machine"):
            check_device(device)
    machine.has(cpu=10**9, cuda_0=10**9, cuda_1=10**9)
    assert check_device("cuda") == "cuda:0"
    assert check_device("cuda:1") == "cuda:1"
    with pytest.raises(EngineError, match="no cuda:2 on this machine; it has cuda:0, cuda:1"):
        check_device("cuda:2")
    with pytest.raises(EngineError, match=r"needs accelerate.*multi-gpu"):
        check_device("cuda:all")
    machine.has(accelerate=True, cpu=10**9, cuda_0=10**9, cuda_1=10**9)
    assert check_device("cuda:all") == "cuda:all"


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="an Apple GPU is there")
def test_an_apple_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(EngineError, match="finds no Apple GPU"):
        check_device("mps")


def test_number_formats_are_checked() -> None:
    check_dtype("auto")
    check_dtype("float16")
    with pytest.raises(EngineError, match=r"'int8' is not a number format\. Choose auto, bfloat16"):
        check_dtype("int8")


def test_inspecting_describes_a_model(checkpoint: str, machine: Machine) -> None:
    machine.has(cpu=1000)
    request = InspectModel(checkpoint, dtype="float16")
    found = inspect_model(request, {})
    assert found.request is request
    assert (found.device, found.dtype, found.problem) == ("cpu", "float16", "")
    assert (found.parameter_count, found.context_length) == (PARAMETERS, CONTEXT)
    assert not found.needs[0].fits


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (InspectModel("/nowhere"), "no config.json"),
        (InspectModel("nobody/nothing"), "Fetch it with `bh-studio download nobody/nothing`"),
        (InspectModel("embedded", device="gpu"), "'gpu' is not a device"),
        (InspectModel("embedded", dtype="int8"), "'int8' is not a number format"),
    ],
)
def test_inspecting_says_what_is_wrong_and_raises_nothing(
    request_: InspectModel, problem: str
) -> None:
    found = inspect_model(request_, {})
    assert problem in found.problem
    assert found.needs == ()


@pytest.mark.parametrize("config", ["", "[]", '{"model_type": 5}', '{"model_type": "llama"}'])
def test_inspecting_names_a_configuration_that_is_none(config: str, tmp_path: Path) -> None:
    save_tiny_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(config)
    assert inspect_model(InspectModel(str(tmp_path)), {}).problem


def test_a_model_of_a_hub_that_is_not_here_is_refused_with_the_command() -> None:
    with pytest.raises(EngineError) as caught:
        load_model("allenai/OLMoE-1B-7B-0924@main")
    assert caught.value.message == "allenai/OLMoE-1B-7B-0924@main is not on this computer."
    assert "`bh-studio download allenai/OLMoE-1B-7B-0924@main`" in caught.value.advice


def test_the_embedded_model_is_planned() -> None:
    plan = plan_load("embedded", "cpu")
    assert (plan.checkpoint.id, plan.checkpoint.name) == ("embedded", "olmoe-nano (embedded)")
    assert plan.dtype == torch.float32
    assert plan.is_small
