"""Loading: the embedded model, folders, and what is refused with a sentence that helps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from bh_studio.engine.errors import Cancelled, CancelToken, EngineError
from bh_studio.engine.execution.host import Host
from bh_studio.engine.loading import load_model
from bh_studio.engine.moe.experts import expert_path
from bh_studio.engine.protocol.events import Event, LoadProgress, ModelInspected, failure
from bh_studio.engine.protocol.requests import InspectModel, LoadModel
from tests.tiny_olmoe import (
    EXPERTS,
    LAYERS,
    TOP_K,
    save_tiny_checkpoint,
    tiny_model,
    tiny_tokenizer,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny-olmoe"))


def test_a_folder_is_loaded_with_its_null(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A cache of its own: the null of this very model may be there from another test.
    monkeypatch.setattr("bh_studio.paths.cache_dir", lambda: tmp_path)
    progress: list[LoadProgress] = []
    loaded = load_model(str(checkpoint), progress.append)
    assert (loaded.info.layers, loaded.info.experts, loaded.info.top_k) == (LAYERS, EXPERTS, TOP_K)
    assert loaded.info.dtype == "float32"
    assert loaded.info.fingerprint == loaded.recording.origin.model_fingerprint
    assert loaded.info.expert_path == expert_path(loaded.model)
    assert loaded.info.null_samples == loaded.recording.samples > 10_000
    assert loaded.end_token_ids == {256}
    shares = [p.fraction for p in progress if p.stage.startswith("Preparing")]
    assert shares[-1] == 1.0
    assert [p.fraction for p in progress if p.stage == "Reading the weights"][-1] == 1.0


def test_the_dtype_can_be_asked_for(checkpoint: Path) -> None:
    assert load_model(str(checkpoint), dtype="bfloat16").model.dtype == torch.bfloat16


def test_loading_can_be_cancelled(checkpoint: Path) -> None:
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        load_model(str(checkpoint), cancel=cancel)


def test_loading_can_be_cancelled_while_the_weights_are_read(checkpoint: Path) -> None:
    cancel = CancelToken()
    shares = []

    def report(progress: LoadProgress) -> None:
        if progress.stage == "Reading the weights":
            shares.append(progress.fraction)
            cancel.cancel()

    with pytest.raises(Cancelled):
        load_model(str(checkpoint), report, cancel)
    assert len(shares) == 1
    # The next load is not held up by what the cancelled one left behind.
    assert load_model(str(checkpoint)).info.layers == LAYERS


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no config\.json"):
        load_model(str(tmp_path))
    with pytest.raises(EngineError, match=r"no config\.json"):
        load_model(str(tmp_path / "missing"))


def test_weights_that_could_run_code_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(checkpoint, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(EngineError, match="safetensors"):
        load_model(str(folder))


def test_damaged_weights_are_named(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(checkpoint, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5000])
    with pytest.raises(EngineError, match="could not be read"):
        load_model(str(folder))
    weights.write_bytes(b"not weights at all")
    with pytest.raises(EngineError, match="could not be read"):
        load_model(str(folder))


def test_a_missing_tokenizer_is_named(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mute"
    shutil.copytree(checkpoint, folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(EngineError, match=r"no tokenizer\.json"):
        load_model(str(folder))


def test_a_tokenizer_with_more_words_than_the_model_is_refused(tmp_path: Path) -> None:
    tiny_model(vocab_size=200, eos_token_id=None).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(EngineError) as refused:
        load_model(str(tmp_path))
    assert refused.value.message == (
        f"The tokenizer in {tmp_path} has 256 tokens, and the model only 200."
    )


def test_weights_that_are_missing_are_not_made_up(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineError, match=r"lacks 1 weights, model\.norm\.weight"):
        load_model(str(folder))


def with_file(checkpoint: Path, folder: Path, name: str, content: str) -> Path:
    """A copy of the checkpoint in `folder` with another file `name`."""
    shutil.copytree(checkpoint, folder)
    (folder / name).write_text(content, encoding="utf-8")
    return folder


def test_what_real_tokenizers_say_is_taken(checkpoint: Path, tmp_path: Path) -> None:
    said = {
        "add_bos_token": False, "model_max_length": 10**30, "bos_token": None,
        "eos_token": {"content": "<|endoftext|>", "lstrip": False, "__type": "AddedToken"},
        "additional_special_tokens": ["<|endoftext|>"], "chat_template": "{{ messages }}",
    }  # fmt: skip
    folder = with_file(checkpoint, tmp_path / "m", "tokenizer_config.json", json.dumps(said))
    assert load_model(str(folder)).end_token_ids == {256}


def with_config(checkpoint: Path, folder: Path, **values: object) -> Path:
    config = json.loads((checkpoint / "config.json").read_bytes())
    return with_file(checkpoint, folder, "config.json", json.dumps({**config, **values}))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("generation_config.json", '{"eos_token_id": "x"}', r"eos_token_id\[0\] is the string 'x'"),
        ("generation_config.json", '{"eos_token_id": [[1]]}', "eos_token_id"),
        ("generation_config.json", '{"eos_token_id": 257}', "none of the 257 tokens"),
        ("generation_config.json", "[]", "is no object"),
        ("generation_config.json", "{", "is not valid JSON"),
        ("generation_config.json", "[" * 10**5, "is not valid JSON"),
        ("special_tokens_map.json", '{"eos_token": {"x": 1}}', "eos_token is no token"),
        ("special_tokens_map.json", json.dumps({"eos_token": "e" * 10**6}), "_token is no token"),
        ("tokenizer_config.json", '{"eos_token": 3}', "eos_token is no token"),
        (
            "tokenizer_config.json", json.dumps({"extra_special_tokens": ["a", "e" * 10**6]}),
            "extra_special_tokens is no token",
        ),
        (
            "tokenizer_config.json", json.dumps({"extra_special_tokens": {"a": "e" * 10**6}}),
            "extra_special_tokens is no token",
        ),
        ("tokenizer_config.json", '{"model_max_length": [1]}', "a value is not what it should be"),
        ("tokenizer.json", '{"model": 3}', "tokenizer in .* could not be read"),
        ("tokenizer.json", "[" + "[]," * 10**6 + "0]", "MiB of memory"),
    ],
)  # fmt: skip
def test_side_files_are_looked_at_before_the_former_model_goes(
    name: str, content: str, said: str, checkpoint: Path, tmp_path: Path
) -> None:
    host = Host()
    list(host.answer(LoadModel(str(checkpoint)), CancelToken()))
    before = host.loaded
    assert before is not None
    folder = with_file(checkpoint, tmp_path / "model", name, content)
    events: list[Event] = []
    with pytest.raises(EngineError, match=said) as caught:
        events.extend(host.answer(LoadModel(str(folder)), CancelToken()))
    assert caught.value.advice
    assert host.loaded is before


@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 10**18}, {"num_hidden_layers": 1000}, {"num_hidden_layers": "3"},
        {"hidden_size": 10**9}, {"hidden_size": -32}, {"num_attention_heads": 0},
        {"head_dim": 10**9},
        {"max_position_embeddings": 10**20}, {"max_position_embeddings": 0}, {"vocab_size": 10**12},
        {"num_experts": [16]}, {"num_experts_per_tok": ""}, {"num_experts_per_tok": -1},
        {"model_type": ["olmoe"]}, {"architectures": [3]}, {"architectures": 3},
        {"eos_token_id": [1, "x"]},
        {"hidden_act": "x"}, {"rms_norm_eps": "x"}, {"dtype": float("-inf")}, {"rope_scaling": 3},
        {"quantization_config": 3}, {"quantization_config": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_a_configuration_of_other_values_is_refused_in_a_sentence(
    values: dict[str, object], checkpoint: Path, tmp_path: Path
) -> None:
    folder = with_config(checkpoint, tmp_path / "model", **values)
    with pytest.raises(EngineError, match=r"[.]$") as caught:
        load_model(str(folder))
    assert caught.value.advice
    (found,) = Host().answer(InspectModel(str(folder)), CancelToken())
    assert isinstance(found, ModelInspected)


def test_a_calibration_of_another_shape_is_refused_before_the_weights(checkpoint: Path) -> None:
    null = Path(__file__).parents[1] / "data" / "former" / "calibrations" / "probability.npz"
    stages: list[str] = []
    with pytest.raises(EngineError, match="2 layers of 8 experts"):
        load_model(str(checkpoint), lambda told: stages.append(told.stage), calibration=null)
    assert stages == []


def test_a_dense_model_is_refused(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=257, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(EngineError, match="has no experts to choose from"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("alloc_cpu.cpp:127: DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
)  # fmt: skip
def test_out_of_memory_is_named(error: Exception) -> None:
    failed = failure(error)
    assert failed.message == "There is not enough memory for this."
    assert "smaller model" in failed.advice


def test_other_errors_keep_their_report() -> None:
    failed = failure(KeyError("surprise"))
    assert "surprise" in failed.message
    assert "KeyError" in failed.details
