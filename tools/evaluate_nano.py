"""Measures an exported model on held-out books, and writes samples: the model card's numbers.

    python -m tools.evaluate_nano books --data DATA --model FOLDER --set test
    python -m tools.evaluate_nano samples --model FOLDER

Loads the folder as a user would. The books take about 4 minutes on 2 CPU cores.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tools import nano_data

SAMPLES = (  # prompt, temperature (0: greedy), seed
    ("Once upon a time", 0.0, 0),
    ("Once upon a time", 0.8, 1),
    ('"Where are you going?" asked the rabbit.', 0.8, 2),
    ("The snow had fallen all night, and in the morning", 0.8, 3),
)


@dataclass(slots=True)
class RouterCount:
    """What the routers did with the scored tokens."""

    chosen: Tensor  # (layer, expert): tokens that selected the expert
    mass: Tensor  # (layer,): sum over tokens of the selected experts' probability
    tokens: int = 0

    def add(self, logits: Tensor, top_k: int) -> None:
        """logits: (layer, token, expert)."""
        values, index = logits.float().softmax(-1).topk(top_k)
        self.chosen += F.one_hot(index, logits.shape[-1]).sum((1, 2))
        self.mass += values.sum((1, 2))
        self.tokens += logits.shape[1]

    def rows(self) -> list[str]:
        """A Markdown row a layer: lowest and highest load over the mean, CV, entropy, mass."""
        load = self.chosen / self.chosen.float().mean(1, keepdim=True)  # mean 1
        share = (load / load.shape[1]).clamp_min(1e-12)
        entropy = -(share * share.log()).sum(1) / math.log(load.shape[1])
        return [
            f"| {layer} | {int(self.chosen[layer].min())} | {load[layer].min():.2f} "
            f"| {load[layer].max():.2f} | {load[layer].std(correction=0):.3f} "
            f"| {entropy[layer]:.4f} | {self.mass[layer] / self.tokens:.3f} |"
            for layer in range(len(load))
        ]


def spans(length: int, context: int, stride: int) -> list[tuple[int, int, int]]:
    """(start, end, first scored target) windows over `length` inputs; each target once."""
    windows, scored = [], 0
    while scored < length:
        end = min(max(scored + stride, context), length)
        windows.append((max(end - context, 0), end, scored))
        scored = end
    return windows


@torch.inference_mode()
def book_nats(
    model: PreTrainedModel, ids: Tensor, stride: int, routers: RouterCount, batch: int = 8
) -> float:
    """Total nats of ids[1:]; every token but the first ones sees context - stride or more."""
    context = model.config.max_position_embeddings
    inputs, targets, total = ids[:-1], ids[1:], 0.0
    windows = spans(len(inputs), context, stride)
    for at in range(0, len(windows), batch):
        part = windows[at : at + batch]
        size = max(end - start for start, end, _ in part)
        rows = [F.pad(inputs[start:end], (0, size - end + start)) for start, end, _ in part]
        output = model(torch.stack(rows), output_router_logits=True)
        routing = torch.stack(output.router_logits)
        routing = routing.view(len(routing), len(part), size, -1)  # (layer, window, token, expert)
        for row, (start, end, first) in enumerate(part):
            scored = slice(first - start, end - start)
            logits = output.logits[row, scored].float()
            total += F.cross_entropy(logits, targets[first:end], reduction="sum").item()
            routers.add(routing[:, row, scored], model.config.num_experts_per_tok)
    return total


def evaluate(folder: Path, books: list[nano_data.Book], stride: int) -> None:
    """Prints nats a token and bits a character for each book and together, then the routers."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = model.config
    shape = (config.num_hidden_layers, config.num_experts)
    routers = RouterCount(torch.zeros(shape, dtype=torch.long), torch.zeros(shape[0]))
    nats = tokens = characters = 0.0
    print("| book | author | characters | tokens | nats a token | bits a character | overlap |")
    print("|---|---|---|---|---|---|---|")
    for book in books:
        (ids,) = nano_data.encode(tokenizer.backend_tokenizer, [book])
        found = book_nats(model, torch.from_numpy(ids.astype("int64")), stride, routers)
        count, length = len(ids) - 1, len(book.text)
        nats, tokens, characters = nats + found, tokens + count, characters + length
        print(
            f"| {book.title} | {book.author} | {length:,} | {count:,} | {found / count:.4f} "
            f"| {found / length / math.log(2):.4f} | {book.overlap:.2%} |",
            flush=True,
        )
    print(
        f"| together | | {characters:,.0f} | {tokens:,.0f} | {nats / tokens:.4f} "
        f"| {nats / characters / math.log(2):.4f} | |\n"
    )
    print("| layer | fewest tokens | lowest / mean | highest / mean | CV | entropy | top-k mass |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(routers.rows()))


def write_samples(folder: Path, new_tokens: int = 150) -> None:
    """Prints the samples of the model card."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for prompt, temperature, seed in SAMPLES:
        torch.manual_seed(seed)
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0}
        ids = tokenizer(prompt, return_tensors="pt")
        out = model.generate(**ids, max_new_tokens=new_tokens, **(sampling if temperature else {}))
        how = f"temperature {temperature}, seed {seed}" if temperature else "greedy"
        print(f"**{how}**\n\n{tokenizer.decode(out[0])}\n\n---\n", flush=True)


def main() -> None:
    """Measure or write what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    books = commands.add_parser("books", help="bits a character and router statistics")
    books.add_argument("--data", type=Path, required=True, help="folder with books.txt.xz")
    books.add_argument("--set", choices=("validation", "test"), default="validation")
    books.add_argument("--stride", type=int, default=512, help="tokens between two windows")
    samples = commands.add_parser("samples", help="the samples of the model card")
    for command in (books, samples):
        command.add_argument("--model", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "samples":
        write_samples(arguments.model)
        return
    _, validation, test = nano_data.split_books(nano_data.read_books(arguments.data))
    evaluate(
        arguments.model, {"validation": validation, "test": test}[arguments.set], arguments.stride
    )


if __name__ == "__main__":
    main()
