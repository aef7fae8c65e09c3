"""The files of a model repository in miniature, made from nothing in a moment."""

from __future__ import annotations

import hashlib
import json
import struct

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def fake_weights(size: int, seed: int = 0) -> bytes:
    """A safetensors file with one tensor of about `size` bytes that do not repeat."""
    block = hashlib.sha256(bytes([seed])).digest()
    body = b"".join(
        hashlib.sha256(block + struct.pack("<I", i)).digest() for i in range(size // 32)
    )
    tensor = {"dtype": "U8", "shape": [len(body)], "data_offsets": [0, len(body)]}
    header = json.dumps({f"tensor{seed}": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + body


def fake_model(shard_size: int = 500_000) -> dict[str, bytes]:
    """The files of a repository in two shards, with some that nobody should fetch."""
    index = {"metadata": {}, "weight_map": {f"tensor{i}": name for i, name in enumerate(SHARDS)}}
    return {
        "config.json": json.dumps({"model_type": "olmoe"}).encode(),
        "generation_config.json": b"{}",
        "tokenizer.json": json.dumps({"padding": "x" * 3000}).encode(),
        "tokenizer_config.json": b'{"model_max_length": 128}',
        "README.md": b"# A tiny model\n",
        "model.safetensors.index.json": json.dumps(index).encode(),
        **{name: fake_weights(shard_size, i) for i, name in enumerate(SHARDS)},
        ".gitattributes": b"*.safetensors filter=lfs\n",
        "pytorch_model.bin": b"\x80\x04pickle",
        "modeling_olmoe.py": b"import os\n",
        "original/model.safetensors": b"other weights",
        "model.gguf": b"GGUF",
    }
