"""Trains the embedded model: a small but complete OLMoE (16 layers, 64 experts, top-8).

    python -m tools.nano_data --data DATA --out PREPARED
    python -m tools.train_nano --prepared PREPARED --out resources/models/olmoe-nano

DATA holds books.txt.xz and books_manifest.tsv. The first command takes about a minute on 2 CPU
cores. The second takes 12 minutes on one NVIDIA H200 (torch 2.11, transformers 5.17) and 7 GiB of
its memory: 26,000 steps of 32,768 tokens, about 44 times through the books.

What is trained is transformers' own OlmoeForCausalLM; only the way its experts are computed and
the order of its kernels are chosen for speed. Knows nothing of BH Studio.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GenerationConfig, OlmoeConfig, OlmoeForCausalLM
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.models.olmoe.modeling_olmoe import OlmoeDecoderLayer, OlmoeExperts

from tools import nano_data
from tools.muon import Muon


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the result, apart from the data."""

    vocab_size: int = nano_data.VOCAB_SIZE
    hidden_size: int = 192
    expert_width: int = 16  # a multiple of 8: grouped_mm wants rows of 16 bytes in bf16
    heads: int = 6
    layers: int = 16
    experts: int = 64
    experts_per_token: int = 8
    context: int = nano_data.CONTEXT  # tokens
    batch: int = 32  # sequences a step
    steps: int = 26_000
    warmup: int = 500  # steps
    learning_rate: float = 4e-3
    weight_decay: float = 0.3
    dropout: float = 0.1
    balance_coefficient: float = 0.01
    z_coefficient: float = 0.001
    seed: int = 1


def build(recipe: Recipe) -> OlmoeForCausalLM:
    """The stock model with random weights."""
    config = OlmoeConfig(
        vocab_size=recipe.vocab_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.expert_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_experts=recipe.experts,
        num_experts_per_tok=recipe.experts_per_token,
        max_position_embeddings=recipe.context,
        norm_topk_prob=False,
        tie_word_embeddings=True,
        eos_token_id=nano_data.EOS_ID,
        pad_token_id=None,
        router_aux_loss_coef=recipe.balance_coefficient,
    )
    torch.manual_seed(recipe.seed)
    return OlmoeForCausalLM(config)


def dense_experts(experts: OlmoeExperts, x: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """OLMoE's experts as two large matrix products: every expert computed, most times zero.

    The same function as the sparse one. For experts this narrow it is several times faster in
    training, since nothing is sorted or gathered and all shapes are static.
    x: (tokens, hidden); index, weights: (tokens, top_k).
    """
    count, hidden, width = experts.down_proj.shape
    mix = x.new_zeros(len(x), count, dtype=weights.dtype).scatter(1, index, weights)
    gate_up = F.linear(x, experts.gate_up_proj.flatten(0, 1)).view(len(x), count, 2 * width)
    gate, up = gate_up.chunk(2, dim=-1)
    inner = F.silu(gate) * up * mix.unsqueeze(-1)
    down = experts.down_proj.permute(1, 0, 2).reshape(hidden, count * width)
    return F.linear(inner.flatten(1), down)


ALL_EXPERTS_FUNCTIONS.register("dense", dense_experts)


def block(
    layer: OlmoeDecoderLayer, x: Tensor, rope: tuple[Tensor, Tensor], dropout: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One decoder layer, as its own forward computes it, with dropout on both branches.

    x: (batch, time, hidden). Returns x, the load-balancing loss (its minimum is top_k, as in
    transformers, but each layer balances on its own) and the router z-loss.
    """
    attention, _ = layer.self_attn(layer.input_layernorm(x), rope, None)
    x = x + F.dropout(attention, dropout)
    tokens = layer.post_attention_layernorm(x).flatten(0, 1)
    logits, weights, index = layer.mlp.gate(tokens)
    x = x + F.dropout(layer.mlp.experts(tokens, index, weights), dropout).view_as(x)

    logits = logits.float()
    chosen = torch.zeros_like(logits).scatter(1, index, 1.0)
    balance = logits.shape[1] * (chosen.mean(0) * logits.softmax(-1).mean(0)).sum()
    return x, balance, logits.logsumexp(-1).square().mean()


def cross_entropy(model: OlmoeForCausalLM, x: Tensor, targets: Tensor) -> Tensor:
    """Mean nats a token. x: (batch, time, hidden) of the last layer."""
    logits = model.lm_head(model.model.norm(x))
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def optimizers(model: OlmoeForCausalLM, recipe: Recipe, lr: Tensor) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embedding, routers and norms."""
    layers = model.model.layers
    hidden, width = recipe.hidden_size, recipe.expert_width
    projections = ("q_proj", "k_proj", "v_proj", "o_proj")
    shapes = {
        (hidden, hidden): [
            getattr(x.self_attn, name).weight for x in layers for name in projections
        ],
        (width, hidden): [layer.mlp.experts.gate_up_proj for layer in layers],
        (hidden, width): [layer.mlp.experts.down_proj for layer in layers],
    }
    taken = {id(p) for params in shapes.values() for p in params}
    rest = [p for p in model.parameters() if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr, betas=(0.9, 0.95), fused=True, capturable=lr.is_cuda)
    return [adam, Muon(shapes, lr, recipe.weight_decay)]


class Replayed:
    """Runs a function of no arguments three times, then records it and replays the recording.

    One step is some thousand small kernels: started one by one from Python they would take
    longer to start than to run.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self.function, self.calls = function, 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self.graph is not None:
            self.graph.replay()
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.function()
        torch.cuda.current_stream().wait_stream(side)
        self.calls += 1
        if self.calls == 3:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.function()


class Trainer:
    """Model, optimizers and the tensors that a step reads and writes in place."""

    def __init__(self, recipe: Recipe, device: str) -> None:
        torch.set_float32_matmul_precision("high")
        self.recipe, self.device = recipe, device
        self.model = build(recipe).to(device).train()
        self.model.set_experts_implementation("dense")
        self.lr = torch.zeros((), device=device)
        self.optimizers = optimizers(self.model, recipe, self.lr)
        size = (recipe.batch, recipe.context + 1)
        self.windows = torch.zeros(size, dtype=torch.long, device=device)
        self.sums = torch.zeros(3, device=device)  # cross-entropy, balance, z
        self.block, self.head = block, cross_entropy
        self.step: Callable[[], None] = self.update
        if device == "cuda":  # the compiled block serves all layers, so compiling is short
            self.block = torch.compile(block, dynamic=False)
            self.head = torch.compile(cross_entropy, dynamic=False)
            self.step = Replayed(self.update)

    def losses(self) -> Tensor:
        """Cross-entropy, balance and z of self.windows; the last two are means of the layers."""
        inner, dropout = self.model.model, self.recipe.dropout
        x = F.dropout(inner.embed_tokens(self.windows[:, :-1]), dropout)
        positions = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
        rope = inner.rotary_emb(x, positions)
        balance, z = [], []
        for layer in inner.layers:
            x, layer_balance, layer_z = self.block(layer, x, rope, dropout)
            balance.append(layer_balance)
            z.append(layer_z)
        nats = self.head(self.model, x, self.windows[:, 1:])
        return torch.stack([nats, torch.stack(balance).mean(), torch.stack(z).mean()])

    def update(self) -> None:
        """One step on self.windows at self.lr."""
        recipe = self.recipe
        with torch.autocast(self.device, torch.bfloat16):
            losses = self.losses()
        nats, balance, z = losses
        (nats + recipe.balance_coefficient * balance + recipe.z_coefficient * z).backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.sums += losses.detach()


def batches(tokens: Tensor, recipe: Recipe) -> Iterator[Tensor]:
    """Endless (batch, context + 1) windows: an epoch has every window once, its cuts moved."""
    generator = torch.Generator().manual_seed(recipe.seed)
    span = torch.arange(recipe.context + 1, device=tokens.device)
    while True:
        shift = int(torch.randint(recipe.context, (), generator=generator))
        count = (len(tokens) - 1 - shift) // recipe.context
        starts = torch.randperm(count, generator=generator) * recipe.context + shift
        for chosen in torch.split(starts.to(tokens.device), recipe.batch):
            if len(chosen) == recipe.batch:
                yield tokens[chosen[:, None] + span].long()


def rate(step: int, recipe: Recipe) -> float:
    """Share of the peak learning rate: linear warm-up, then linear decay to zero."""
    return min((step + 1) / recipe.warmup, (recipe.steps - step) / (recipe.steps - recipe.warmup))


@torch.no_grad()
def validate(model: OlmoeForCausalLM, tokens: Tensor, recipe: Recipe) -> float:
    """Mean nats a token through the model's own forward, in windows that do not overlap."""
    model.eval()
    count = (len(tokens) - 1) // recipe.context
    inputs = tokens[: count * recipe.context].view(count, -1).long()
    targets = tokens[1 : count * recipe.context + 1].view(count, -1).long()
    total = 0.0
    for part, wanted in zip(torch.split(inputs, 32), torch.split(targets, 32), strict=True):
        with torch.autocast(model.device.type, torch.bfloat16):
            logits = model(part).logits.flatten(0, 1).float()
        total += F.cross_entropy(logits, wanted.flatten(), reduction="sum").item()
    model.train()
    return total / targets.numel()


def export(model: OlmoeForCausalLM, folder: Path) -> None:
    """Writes config, generation config and the weights in bf16."""
    state = {name: t.bfloat16().cpu() for name, t in model.state_dict().items()}
    copy = OlmoeForCausalLM(model.config).bfloat16()
    copy.load_state_dict(state)
    copy.generation_config = GenerationConfig(eos_token_id=nano_data.EOS_ID, do_sample=False)
    copy.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # it is written for its owner alone


def train(recipe: Recipe, prepared: Path, out: Path, device: str, every: int) -> OlmoeForCausalLM:
    """Trains; every so many steps it prints a row of losses and exports what there is."""
    shutil.copytree(prepared / "tokenizer", out, dirs_exist_ok=True)
    with np.load(prepared / "tokens.npz") as arrays:
        tokens, held_out = (
            torch.from_numpy(arrays[name].astype(np.int32)).to(device)
            for name in ("train", "validation")
        )
    trainer, stream = Trainer(recipe, device), batches(tokens, recipe)
    start, last = time.perf_counter(), 0
    for step in range(1, recipe.steps + 1):
        trainer.lr.fill_(recipe.learning_rate * rate(step - 1, recipe))
        trainer.windows.copy_(next(stream))
        trainer.step()
        if step % every == 0 or step == recipe.steps:
            nats, balance, z = (trainer.sums / (step - last)).tolist()
            trainer.sums.zero_()
            last, held = step, validate(trainer.model, held_out, recipe)
            print(
                f"step {step} train {nats:.4f} validation {held:.4f} balance {balance:.3f} "
                f"z {z:.2f} seconds {time.perf_counter() - start:.1f}",
                flush=True,
            )
            export(trainer.model, out)
    return trainer.model


def main() -> None:
    """Train with what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prepared", type=Path, required=True, help="what nano_data wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    parser.add_argument("--every", type=int, default=2000, help="steps between two exports")
    arguments = parser.parse_args()
    recipe = Recipe(steps=arguments.steps)
    print(recipe, flush=True)
    train(recipe, arguments.prepared, arguments.out, arguments.device, arguments.every)


if __name__ == "__main__":
    main()
