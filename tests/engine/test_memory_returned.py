"""The memory of a model is given back when it goes, however it goes, and is taken only once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import OlmoeConfig

from tests.tiny_olmoe import tiny_tokenizer

EXPERTS, HIDDEN, WIDTH, VOCABULARY = 64, 512, 640, 257
# Bytes of the experts of a layer in bfloat16, all that counts.
LAYER = EXPERTS * 3 * HIDDEN * WIDTH * 2
SIZE, SMALL_SIZE = 2 * LAYER, LAYER
PART = SIZE // 4

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc"),
]


def save_checkpoint(folder: Path, layers: int) -> Path:
    """Random weights, 126 MB a layer, as a hub has them: one tensor a projection of an expert."""
    folder.mkdir()
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens": (VOCABULARY, HIDDEN),
        "lm_head": (VOCABULARY, HIDDEN),
    }
    shapes["model.norm"] = (HIDDEN,)
    for layer in (f"model.layers.{n}." for n in range(layers)):
        shapes |= {f"{layer}self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"}
        norms = ("self_attn.q_norm", "self_attn.k_norm", "input_layernorm")
        shapes |= {layer + name: (HIDDEN,) for name in (*norms, "post_attention_layernorm")}
        shapes[f"{layer}mlp.gate"] = (EXPERTS, HIDDEN)
        for expert in (f"{layer}mlp.experts.{n}." for n in range(EXPERTS)):
            shapes |= {f"{expert}{name}_proj": (WIDTH, HIDDEN) for name in ("gate", "up")}
            shapes[f"{expert}down_proj"] = (HIDDEN, WIDTH)
    torch.manual_seed(0)
    weights = {
        f"{name}.weight": torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.05)
        for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    OlmoeConfig(
        architectures=["OlmoeForCausalLM"], dtype="bfloat16", vocab_size=VOCABULARY,
        hidden_size=HIDDEN, intermediate_size=WIDTH, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=8, num_experts=EXPERTS, num_experts_per_tok=8,
        max_position_embeddings=128, pad_token_id=None, bos_token_id=None, eos_token_id=256,
    ).save_pretrained(folder)  # fmt: skip
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def resident(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Resident bytes of a process of its own, above what it had before the first large model."""
    folder = tmp_path_factory.mktemp("checkpoints")
    large = save_checkpoint(folder / "large", layers=2)
    small = save_checkpoint(folder / "small", layers=1)
    probe = subprocess.run(
        [sys.executable, "-m", "tests.engine.memory_probe", str(large), str(small)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert probe.returncode == 0, probe.stderr
    sizes: dict[str, int] = json.loads(probe.stdout.splitlines()[-1])
    return {what: size - sizes["before"] for what, size in sizes.items()}


def test_a_model_takes_its_size(resident: dict[str, int]) -> None:
    assert SIZE * 0.95 < resident["loading"] < SIZE + PART


@pytest.mark.parametrize("what", ["unloading", "cancelling", "a wrong calibration", "failing"])
def test_memory_is_given_back(what: str, resident: dict[str, int]) -> None:
    assert resident[what] < PART


def test_of_two_models_only_the_new_one_stays(resident: dict[str, int]) -> None:
    assert resident["switching"] - SMALL_SIZE < PART


@pytest.mark.parametrize("what", ["loading", "loading again"])
def test_weights_are_in_memory_once(what: str, resident: dict[str, int]) -> None:
    assert SIZE * 0.95 < resident[f"peak of {what}"] < SIZE + PART


def test_a_wrong_calibration_is_refused_before_weights_are_read(resident: dict[str, int]) -> None:
    assert resident["peak of a wrong calibration"] < PART


def test_a_load_that_failed_had_taken_memory(resident: dict[str, int]) -> None:
    # Otherwise there was nothing to give back.
    assert resident["half a load"] > SIZE * 0.4
