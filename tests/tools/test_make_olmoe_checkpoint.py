"""The random checkpoint: the library loads it, and its layout, size and routers are as promised."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, OlmoeForCausalLM

from tools import make_olmoe_checkpoint as tool
from tools.olmoe_tensor_plan import (
    CheckpointError,
    TensorPlan,
    checkpoint_plan,
    layer_plan,
    real_top_masses,
    split_into_shards,
    top_mass,
)

END_ID = 290
CONFIG = tool.CONFIG | {
    "hidden_size": 32,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 2,
    "vocab_size": 300,
    "eos_token_id": END_ID,
}
MASSES = (0.5, 0.7)
SHARD_BYTES = 40_000
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "olmoe"
    tool.make_checkpoint(folder, CONFIG, MASSES, shard_bytes=SHARD_BYTES)
    return folder


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, by the library's own reader."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def test_the_library_loads_every_weight(checkpoint: Path) -> None:
    model, report = AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
    assert isinstance(model, OlmoeForCausalLM)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert model.dtype == torch.bfloat16
    with torch.no_grad():
        logits = model(torch.tensor([[5, 6, 7]])).logits
    assert logits.isfinite().all()
    assert logits.float().std() > 0.01


def test_tensors_are_named_and_shaped_as_the_library_saves_them(
    checkpoint: Path, tmp_path: Path
) -> None:
    model = OlmoeForCausalLM(AutoConfig.from_pretrained(checkpoint))
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    saved, written = read_tensors(tmp_path), read_tensors(checkpoint)
    assert {n: (t.shape, t.dtype) for n, t in written.items()} == {
        n: (t.shape, t.dtype) for n, t in saved.items()
    }


def test_text_survives_the_tokenizer_and_every_id_decodes(checkpoint: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    text = "Wörld 😀, it's\n\n  2.5 <|endoftext|>"
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text
    assert ids[-1] == tokenizer.eos_token_id == END_ID
    assert tokenizer.pad_token_id == 1
    assert tokenizer.decode([END_ID - 1]) == f" unused{END_ID - 1}"
    names = tokenizer.convert_ids_to_tokens(range(END_ID + 1))
    assert len(set(names)) == END_ID + 1
    assert None not in names


def test_the_full_size_has_the_files_of_the_hub() -> None:
    plans = checkpoint_plan(tool.CONFIG, real_top_masses(tool.LOGITS, 8))
    assert sum(plan.bytes for plan in plans) == 13_838_323_712
    sizes = [sum(p.bytes for p in s) for s in split_into_shards(plans, tool.SHARD_BYTES)]
    assert len(sizes) == 3
    assert max(sizes) <= 5_000_000_000
    tokenizer = tool.make_tokenizer(tool.CONFIG["eos_token_id"], tool.CONFIG["pad_token_id"])
    assert tokenizer.token_to_id("<|endoftext|>") == 50279
    assert tokenizer.get_vocab_size() == 50280


def test_shards_are_as_large_as_asked_and_indexed(checkpoint: Path) -> None:
    index = json.loads((checkpoint / INDEX).read_text("utf-8"))
    found: dict[str, str] = {}
    total = 0
    shards = sorted(checkpoint.glob("*.safetensors"))
    assert shards[0].name == f"model-00001-of-{len(shards):05}.safetensors"
    assert len(shards) > 2
    for path in shards:
        tensors = load_file(path)
        size = sum(t.nbytes for t in tensors.values())
        assert size <= SHARD_BYTES
        total += size
        found |= dict.fromkeys(tensors, path.name)
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}
    assert index == {"metadata": {"total_size": total}, "weight_map": found}


def test_a_seed_repeats_and_another_differs(checkpoint: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        tool.make_checkpoint(tmp_path / str(seed), CONFIG, MASSES, seed)
    first, again, other = (read_tensors(f) for f in (checkpoint, tmp_path / "0", tmp_path / "1"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    same = {name for name in first if torch.equal(first[name], other[name])}
    assert same == {name for name in first if "norm" in name}


@pytest.mark.parametrize("layer", [0, 1])
def test_routers_have_the_wanted_mass(layer: int) -> None:
    """At the real width: a router of 32 columns differs too much from one draw to the next."""
    config = CONFIG | {"hidden_size": 2048}
    name = f"model.layers.{layer}.mlp.gate.weight"
    (plan,) = (p for p in layer_plan(config, layer, MASSES[layer]) if p.name == name)
    assert plan.std is not None
    generator = torch.Generator().manual_seed(7)
    router = torch.randn(plan.shape, generator=generator) * plan.std
    states = torch.randn(4000, 2048, generator=generator)
    states /= states.square().mean(-1, keepdim=True).sqrt()
    assert top_mass(states @ router.T, 4) == pytest.approx(MASSES[layer], abs=0.02)


def test_the_wanted_mass_leaves_the_first_token_out(tmp_path: Path) -> None:
    logits = np.zeros((1, 3, 16), dtype=np.float32)
    logits[0, 0, 3] = 50.0  # the sink: nearly all mass on one expert
    np.savez(tmp_path / "logits.npz", logits=logits)
    assert real_top_masses(tmp_path / "logits.npz", 4) == pytest.approx([0.25])


def test_a_folder_with_files_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(CheckpointError, match="already has files"):
        tool.make_checkpoint(tmp_path, CONFIG, MASSES)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_full_disk_is_refused_with_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**10, 10**10, 10**6))
    with pytest.raises(CheckpointError, match=r"needs 0\.05 GB .* has 0\.00 GB free"):
        tool.make_checkpoint(tmp_path / "out", CONFIG, MASSES)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_leaves_no_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard = tool.write_shard

    def interrupted(path: Path, plans: list[TensorPlan], generator: torch.Generator) -> None:
        if "00002-of" in path.name:
            raise KeyboardInterrupt
        write_shard(path, plans, generator)

    monkeypatch.setattr(tool, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tool.make_checkpoint(tmp_path, CONFIG, MASSES, shard_bytes=SHARD_BYTES)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert not (tmp_path / INDEX).exists()


@pytest.mark.parametrize("layers", [0, 3])
def test_layers_without_router_logits_are_refused(tmp_path: Path, layers: int) -> None:
    with pytest.raises(CheckpointError, match="Ask for 1 to 2"):
        tool.make_checkpoint(tmp_path / "out", CONFIG | {"num_hidden_layers": layers}, MASSES)
    assert not (tmp_path / "out").exists()


def test_a_file_without_logits_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", counts=np.zeros(3))
    with pytest.raises(CheckpointError, match="holds no array `logits`"):
        real_top_masses(tmp_path / "other.npz", 8)
