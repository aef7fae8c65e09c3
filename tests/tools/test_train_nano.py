"""The training of the embedded model, small: what is learned, held out, exported and measured."""

from __future__ import annotations

import dataclasses
import lzma
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from tools import evaluate_nano, muon, nano_data, train_nano

RECIPE = train_nano.Recipe(
    vocab_size=300,
    hidden_size=32,
    expert_width=8,
    heads=2,
    layers=2,
    experts=16,
    experts_per_token=4,
    context=32,
    batch=4,
    steps=2,
    warmup=1,
    learning_rate=1e-2,
)
WORDS = [a + b for a in "bdfglmnprst" for b in ("a", "e", "in", "or", "ush")]


def make_text(seed: int, words: int = 400) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words)) + "."


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen books; books 2 and 3 are one text twice, book 4 is too short to hold out."""
    folder = tmp_path_factory.mktemp("data")
    texts = [make_text(seed) for seed in range(14)]
    texts[3] = texts[2]
    texts[4] = make_text(4, 20)
    rows = ["index\ttitle\tauthor\tcharacters"]
    rows += [f"{i}\tTitle {i}\tAuthor {i % 7}\t{len(text)}" for i, text in enumerate(texts)]
    (folder / "books_manifest.tsv").write_text("\n".join(rows))
    with lzma.open(folder / "books.txt.xz", "wt") as file:
        file.write(f"\n{nano_data.EOS}\n".join(texts) + "\n")
    return folder


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nano_data, "MIN_CHARACTERS", 500)
    monkeypatch.setattr(nano_data, "VOCAB_SIZE", RECIPE.vocab_size)


@pytest.fixture
def prepared(data: Path, tmp_path: Path) -> Path:
    nano_data.prepare(data, tmp_path / "prepared")
    return tmp_path / "prepared"


def test_held_out_books_are_whole_and_never_in_the_training_tokens(
    data: Path, prepared: Path
) -> None:
    books = nano_data.read_books(data)
    training, validation, test = nano_data.split_books(books)
    assert len(books) == 14
    assert (len(validation), len(test)) == (nano_data.N_VALIDATION, nano_data.N_TEST)
    indices = [book.index for part in (training, validation, test) for book in part]
    assert sorted(indices) == list(range(14))
    for part in (validation, test):
        assert len({book.author for book in part}) == len(part)
        assert all(book.overlap == 0 for book in part)
    tokenizer = AutoTokenizer.from_pretrained(prepared / "tokenizer")
    with np.load(prepared / "tokens.npz") as tokens:
        learned = tokenizer.decode(tokens["train"].tolist())
    assert learned == "".join(nano_data.EOS + book.text for book in training)


def test_a_book_that_training_books_repeat_or_that_is_short_is_not_held_out(data: Path) -> None:
    training, *_ = nano_data.split_books(nano_data.read_books(data))
    assert {2, 3, 4} <= {book.index for book in training}


def test_overlap_is_the_share_of_windows_found_elsewhere() -> None:
    shared, own, other = make_text(1, 100), make_text(2, 50), make_text(3, 50)
    ids: dict[str, int] = {}
    hashes = [nano_data.window_hashes(text, ids) for text in (f"{shared} {own}", shared, other)]
    corpus = np.sort(np.concatenate(hashes))
    assert nano_data.overlap(hashes, corpus, set(), 0) == pytest.approx(88 / 138)
    assert nano_data.overlap(hashes, corpus, {1}, 0) == 0


def test_dense_experts_and_the_training_forward_equal_the_stock_model() -> None:
    trainer = train_nano.Trainer(dataclasses.replace(RECIPE, dropout=0.0), "cpu")
    model = trainer.model.eval()
    torch.nn.init.normal_(model.model.layers[0].mlp.gate.weight)
    trainer.windows.random_(RECIPE.vocab_size)
    inputs, targets = trainer.windows[:, :-1], trainer.windows[:, 1:]
    with torch.no_grad():
        nats = trainer.losses()[0]
        dense = model(inputs).logits
        model.set_experts_implementation("eager")
        eager = model(inputs).logits
    torch.testing.assert_close(dense, eager, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(nats, F.cross_entropy(eager.flatten(0, 1), targets.flatten()))


def test_the_balance_loss_is_smallest_where_every_expert_has_the_same_load() -> None:
    trainer = train_nano.Trainer(RECIPE, "cpu")
    trainer.windows.random_(RECIPE.vocab_size)
    even = trainer.losses()[1].item()
    for layer in trainer.model.model.layers:  # the same four ahead for half of the tokens
        torch.nn.init.zeros_(layer.mlp.gate.weight)
        layer.mlp.gate.weight.data[:4] = 1.0
    skewed = trainer.losses()[1].item()
    assert RECIPE.experts_per_token * 0.99 < even < skewed


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (32, 32)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(muon.orthogonalize(torch.randn(3, *shape)).float())
    assert values.shape == (3, min(shape))
    assert values.min() > 0.3
    assert values.max() < 1.4


def test_training_lowers_the_loss_and_every_weight_moves(prepared: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=20)
    before = train_nano.build(recipe).state_dict()
    model = train_nano.train(recipe, prepared, tmp_path / "out", "cpu", every=20)
    with np.load(prepared / "tokens.npz") as arrays:
        held_out = torch.from_numpy(arrays["validation"].astype(np.int32))
    after = train_nano.validate(model, held_out, recipe)
    assert after < math.log(recipe.vocab_size) - 1
    for name, weight in model.state_dict().items():
        assert not torch.equal(weight, before[name]), name


def test_the_exported_folder_loads_and_repeats_the_logits(prepared: Path, tmp_path: Path) -> None:
    model = train_nano.train(RECIPE, prepared, tmp_path / "out", "cpu", every=1).eval()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.bfloat16
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id == nano_data.EOS_ID
    text = 'naïve café, 日本語, "😀"\n\nbadin'
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    token_ids = tokenizer(make_text(1, 20), return_tensors="pt").input_ids
    for parameter in model.parameters():  # not model.bfloat16(): that rounds rope's frequencies too
        parameter.data = parameter.data.bfloat16()
    for copy in (model, loaded):
        copy.set_experts_implementation("eager")
    with torch.no_grad():
        assert torch.equal(loaded(token_ids).logits, model(token_ids).logits)


def test_windows_of_an_epoch_cover_the_tokens_once() -> None:
    tokens = torch.arange(10 * RECIPE.context * RECIPE.batch)
    stream = train_nano.batches(tokens, RECIPE)
    seen = torch.cat([next(stream)[:, 1:].flatten() for _ in range(9)])
    assert len(seen.unique()) == len(seen)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 100, 128])
def test_every_target_is_scored_once_and_with_enough_context(length: int) -> None:
    scored: list[int] = []
    for start, end, first in evaluate_nano.spans(length, context=32, stride=8):
        assert end - start <= 32
        assert first == 0 or first - start >= 24
        scored += range(first, end)
    assert scored == list(range(length))


def test_book_nats_equal_one_long_forward_where_the_book_fits() -> None:
    model = train_nano.build(RECIPE).eval()
    model.set_experts_implementation("eager")
    token_ids = torch.randint(RECIPE.vocab_size, (RECIPE.context - 3,))
    routers = evaluate_nano.RouterCount(torch.zeros(2, 16, dtype=torch.long), torch.zeros(2))
    found = evaluate_nano.book_nats(model, token_ids, 8, routers)
    logits = model(token_ids[None, :-1]).logits[0]
    assert found == pytest.approx(F.cross_entropy(logits, token_ids[1:], reduction="sum").item())
    assert routers.tokens == len(token_ids) - 1
    assert routers.chosen.sum(1).tolist() == [4 * routers.tokens] * 2
