"""A full-size OLMoE-1B-7B checkpoint with random weights, laid out as the hub's own repository.

    python -m tools.make_olmoe_checkpoint --out DIR [--layers N] [--seed S] [--logits FILE.npz]

For trying downloads, loading, memory and speed where the real weights cannot be had: shapes,
names, shards and file sizes are those of the real model, the text it writes is noise. Tensors
are streamed to the shards, so that 13.8 GB need little memory. Knows nothing of BH Studio.
`--logits` names real router logits (array `logits`: layer, token, expert) to scale routers by, see
tools/olmoe_tensor_plan.py.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tools.olmoe_tensor_plan import (
    CheckpointError,
    TensorPlan,
    checkpoint_plan,
    real_top_masses,
    split_into_shards,
)

LOGITS = Path(__file__).parents[1] / "tests" / "data" / "olmoe_router_logits_160.npz"
END_OF_TEXT, PADDING = "<|endoftext|>", "<|padding|>"
SHARD_BYTES = 5_000_000_000
SPARE_BYTES = 50_000_000  # tokenizer, headers and index, with room
BLOCK_VALUES = 2**23  # values drawn at a time: 32 MiB in fp32

CONFIG: dict[str, Any] = {
    "architectures": ["OlmoeForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "clip_qkv": None,
    "eos_token_id": 50279,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 1024,
    "max_position_embeddings": 4096,
    "model_type": "olmoe",
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 16,
    "num_key_value_heads": 16,
    "output_router_logits": False,
    "pad_token_id": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "router_aux_loss_coef": 0.01,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.0.dev0",
    "use_cache": True,
    "vocab_size": 50304,
}


def write_tensor(file: BinaryIO, plan: TensorPlan, generator: torch.Generator) -> None:
    """Draws the values in fp32, block by block, and appends them in bfloat16."""
    for start in range(0, plan.values, BLOCK_VALUES):
        count = min(BLOCK_VALUES, plan.values - start)
        if plan.std is None:
            block = torch.ones(count)
        else:
            block = torch.randn(count, generator=generator).mul_(plan.std)
        file.write(block.bfloat16().view(torch.uint8).numpy().data)


def write_shard(path: Path, plans: Sequence[TensorPlan], generator: torch.Generator) -> None:
    """One safetensors file: length of the header, header, then the tensors without gaps.

    The library's own writer would need the whole shard in memory.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for plan in plans:
        start, end = end, end + plan.bytes
        header[plan.name] = {"dtype": "BF16", "shape": plan.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the tensors aligned to 8 bytes
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for plan in plans:
            write_tensor(file, plan, generator)


def make_tokenizer(end_id: int, pad_id: int) -> Tokenizer:
    """One token a byte; ids that are left, up to the end of text, have names of their own.

    No text is encoded to such a name, but a random model draws them and they must decode.
    """
    free = (i for i in range(end_id) if i != pad_id)
    vocabulary = {PADDING: pad_id, END_OF_TEXT: end_id}
    vocabulary |= {c: next(free) for c in sorted(pre_tokenizers.ByteLevel.alphabet())}
    vocabulary |= {f"Ġunused{i}": i for i in free}  # Ġ is the byte-level spelling of a space
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PADDING, END_OF_TEXT])
    return tokenizer


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Indented as the hub's files are."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_tokenizer(folder: Path, config: Mapping[str, Any]) -> None:
    """The hub's three tokenizer files."""
    tokenizer = make_tokenizer(config["eos_token_id"], config["pad_token_id"])
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    settings = {
        "add_prefix_space": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TEXT,
        "model_max_length": 10**30,  # no limit of its own: the model's configuration has it
        "pad_token": PADDING,
        "tokenizer_class": "GPTNeoXTokenizer",
        "unk_token": None,
    }
    write_json(folder / "tokenizer_config.json", settings)
    specials = {"eos_token": END_OF_TEXT, "pad_token": PADDING}
    write_json(folder / "special_tokens_map.json", specials)


def check_folder(folder: Path, total_bytes: int) -> None:
    """Raises CheckpointError unless the folder is empty or new and the disk has room."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} already has files. Name a folder that is empty or new.")
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free, needed = shutil.disk_usage(existing).free, total_bytes + SPARE_BYTES
    if free < needed:
        raise CheckpointError(
            f"The checkpoint needs {needed / 1e9:.2f} GB and the disk of {folder} has "
            f"{free / 1e9:.2f} GB free. Free some, or name a folder on another disk."
        )


def make_checkpoint(
    folder: Path,
    config: Mapping[str, Any],
    masses: Sequence[float],
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes the checkpoint; the index comes last, so an interrupted one has none.

    `masses` is the wanted top-k mass of the routers, a layer each. Raises CheckpointError
    before anything is written.
    """
    plans = checkpoint_plan(config, masses)
    total = sum(plan.bytes for plan in plans)
    check_folder(folder, total)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    kept = ("eos_token_id", "pad_token_id", "transformers_version")
    generation = {"_from_model_config": True, **{key: config[key] for key in kept}}
    write_json(folder / "generation_config.json", generation)
    write_tokenizer(folder, config)
    generator = torch.Generator().manual_seed(seed)
    shards = split_into_shards(plans, shard_bytes)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        started = perf_counter()
        write_shard(folder / name, shard, generator)
        weight_map |= {plan.name: name for plan in shard}
        size, seconds = sum(plan.bytes for plan in shard) / 1e9, perf_counter() - started
        print(f"{name}: {len(shard)} tensors, {size:.2f} GB, {seconds:.0f} s", flush=True)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / "model.safetensors.index.json", index)


def main() -> None:
    """Make what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder that is empty or new")
    layers = CONFIG["num_hidden_layers"]
    parser.add_argument("--layers", type=int, default=layers, help=f"instead of {layers}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--logits", type=Path, default=LOGITS, help="real router logits (.npz)")
    arguments = parser.parse_args()
    config = CONFIG | {"num_hidden_layers": arguments.layers}
    try:
        masses = real_top_masses(arguments.logits, config["num_experts_per_tok"])
        make_checkpoint(arguments.out, config, masses, arguments.seed)
    except CheckpointError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
