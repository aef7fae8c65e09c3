"""Weights read by the engine equal those that transformers reads, bit for bit; damage is named."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from bh_studio.engine.errors import EngineError
from bh_studio.engine.models.layout import empty_model, layout
from bh_studio.engine.models.plan import LoadPlan, plan_load
from bh_studio.engine.models.weights import materialize, read_weights
from tests.tiny_moe import save_tiny_of_type, tiny_of_type
from tests.tiny_olmoe import save_tiny_checkpoint, tiny_tokenizer

INDEX = "model.safetensors.index.json"
EXPERT = "model.layers.1.mlp.experts.3.up_proj.weight"
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("olmoe", {}),
    ("flex_olmo", {}),
    ("qwen3_moe", {}),
    ("qwen3_moe", {"tie_word_embeddings": True}),
    ("qwen3_moe", {"mlp_only_layers": [0]}),
]


def planned(folder: Path, dtype: str = "bfloat16") -> tuple[LoadPlan, PreTrainedModel]:
    """The plan for the checkpoint in `folder` and a model for it, not filled yet."""
    plan = plan_load(str(folder), "cpu", dtype)
    model = empty_model(plan.config, plan.dtype)
    materialize(model, plan.dtype, layout(model, plan.devices, plan.dtype).device_of)
    return plan, model


def read(folder: Path, dtype: str = "bfloat16") -> PreTrainedModel:
    plan, model = planned(folder, dtype)
    list(read_weights(model, plan.tensors, plan.architecture))
    return model


def check_equal(model: PreTrainedModel, folder: Path, dtype: torch.dtype) -> None:
    """Every parameter and buffer is what transformers makes of `folder`, to the last bit."""
    expected = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    for kind in ("named_parameters", "named_buffers"):
        ours = dict(getattr(model, kind)(remove_duplicate=False))
        theirs = dict(getattr(expected, kind)(remove_duplicate=False))
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert ours[name].dtype == tensor.dtype, name
            assert torch.equal(ours[name], tensor), name


def changed(folder: Path, name: str, tensor: torch.Tensor | None) -> None:
    """Write the weights in `folder` anew, with `tensor` as `name`, or without it."""
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    if tensor is not None:
        weights[name] = tensor
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that no test changes."""
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-olmoe"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_tiny_checkpoint(tmp_path)


@pytest.mark.parametrize(("model_type", "config"), MODELS)
def test_weights_equal_those_of_transformers(
    model_type: str, config: dict[str, Any], tmp_path: Path
) -> None:
    save_tiny_of_type(model_type, tmp_path, **config)
    model = read(tmp_path)
    check_equal(model, tmp_path, torch.bfloat16)
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    assert (head.weight is embeddings.weight) == ("tie_word_embeddings" in config)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_other_number_formats_are_converted_as_transformers_does(
    dtype: str, stored: torch.dtype, tmp_path: Path
) -> None:
    tiny_of_type("olmoe", stored).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    check_equal(read(tmp_path, dtype), tmp_path, getattr(torch, dtype))


@pytest.mark.parametrize("model_type", ["olmoe", "qwen3_moe"])
def test_weights_in_several_files(model_type: str, tmp_path: Path) -> None:
    tiny_of_type(model_type, torch.bfloat16).save_pretrained(tmp_path, max_shard_size="30KB")
    tiny_tokenizer().save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    check_equal(read(tmp_path), tmp_path, torch.bfloat16)


def test_the_model_computes_what_the_one_of_transformers_does(kept: Path) -> None:
    expected = AutoModelForCausalLM.from_pretrained(kept, dtype=torch.float32)
    model, tokens = read(kept, "float32"), torch.arange(40)[None]
    with torch.inference_mode():
        assert torch.equal(model(tokens).logits, expected(tokens).logits)


def test_a_missing_expert_is_named(checkpoint: Path) -> None:
    changed(checkpoint, EXPERT, None)
    with pytest.raises(EngineError) as caught:
        read(checkpoint)
    assert caught.value.message == f"The checkpoint lacks 1 weights, {EXPERT} among them."
    assert "complete" in caught.value.advice


def test_a_wrong_shape_is_named(checkpoint: Path) -> None:
    changed(checkpoint, EXPERT, torch.zeros(16, 31, dtype=torch.bfloat16))
    with pytest.raises(EngineError) as caught:
        read(checkpoint)
    assert caught.value.message == (
        f"{EXPERT} has the shape [16, 31] in model.safetensors; the configuration asks for "
        "[16, 32]."
    )


def test_another_number_of_experts_than_configured_is_found(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "num_experts": 17}))
    with pytest.raises(EngineError, match=r"lacks 9 weights|has the shape \[16, 32\]"):
        read(checkpoint)


def test_whole_numbers_are_no_weights(checkpoint: Path) -> None:
    changed(checkpoint, EXPERT, torch.zeros(16, 32, dtype=torch.int64))
    with pytest.raises(
        EngineError, match=f"{EXPERT} has the number format I64".replace(".", r"\.")
    ):
        plan_load(str(checkpoint))


def test_a_file_that_is_cut_after_its_header_was_read(checkpoint: Path) -> None:
    plan, model = planned(checkpoint)
    with (checkpoint / "model.safetensors").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 100)
    with pytest.raises(EngineError) as caught:
        list(read_weights(model, plan.tensors, plan.architecture))
    assert "model.safetensors could not be read: it is shorter" in caught.value.message
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(EngineError, match=r"model\.safetensors could not be read: No such file"):
        list(read_weights(model, plan.tensors, plan.architecture))


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "a\\x.safetensors"])
def test_an_index_may_not_leave_its_folder(name: str, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "model-00001-of-00001.safetensors")
    (checkpoint / INDEX).write_text(json.dumps({"weight_map": {EXPERT: name}}))
    with pytest.raises(EngineError, match="names a file outside its folder"):
        plan_load(str(checkpoint))


@pytest.mark.parametrize("index", ["", "[]", '{"weight_map": {"a": 1}}', '{"weight_map": {}}'])
def test_a_damaged_index_is_named(index: str, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "model-00001-of-00001.safetensors")
    (checkpoint / INDEX).write_text(index)
    with pytest.raises(EngineError, match=r"could not be read: model\.safetensors\.index\.json"):
        plan_load(str(checkpoint))


def test_a_file_of_the_index_that_is_not_there_is_named(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "model-00001-of-00002.safetensors")
    (checkpoint / INDEX).write_text(json.dumps({"weight_map": {EXPERT: "gone.safetensors"}}))
    with pytest.raises(EngineError, match=r"could not be read: gone\.safetensors"):
        plan_load(str(checkpoint))


def test_progress_rises_to_one(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bh_studio.engine.models.weights._PIECE_BYTES", 10_000)
    plan, model = planned(kept)
    shares = list(read_weights(model, plan.tensors, plan.architecture))
    assert len(shares) > 5
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    check_equal(model, kept, torch.bfloat16)


def test_closing_ends_the_reading(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bh_studio.engine.models.weights._PIECE_BYTES", 1)
    plan, model = planned(kept)
    shares = read_weights(model, plan.tensors, plan.architecture)
    assert next(shares) < 0.5
    shares.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("weights")]
