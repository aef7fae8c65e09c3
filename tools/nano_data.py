"""The text side of training the embedded model: books, held-out books, tokenizer, token arrays.

    python -m tools.nano_data --data DATA --out PREPARED

DATA holds `books.txt.xz` (books joined by lines that hold only <|endoftext|>) and
`books_manifest.tsv` (a row a book: title, author, characters). Knows nothing of the model.
"""

from __future__ import annotations

import argparse
import csv
import json
import lzma
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

EOS = "<|endoftext|>"
EOS_ID = 0  # the trainer gives special tokens the first ids
VOCAB_SIZE = 8192
CONTEXT = 1024  # tokens

SPLIT_SEED = 1995
N_TEST, N_VALIDATION = 5, 4
MIN_CHARACTERS, MAX_CHARACTERS = 100_000, 600_000
WINDOW_WORDS = 13
MAX_OVERLAP = 0.01

# Words with their leading space, single digits, and punctuation together with the line breaks
# after it: '."' + a blank line is one token, and it ends every second paragraph of a story.
WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+\n*|\s*\n+|\s+(?!\S)|\s+"


@dataclass(frozen=True, slots=True)
class Book:
    """One book; `overlap` is the share of its 13-word windows that training books hold too."""

    index: int
    title: str
    author: str
    text: str
    overlap: float = float("nan")


def read_books(folder: Path) -> list[Book]:
    """All books in the order of the manifest."""
    with lzma.open(folder / "books.txt.xz", "rt", encoding="utf-8") as file:
        texts = file.read().strip("\n").split(f"\n{EOS}\n")
    with (folder / "books_manifest.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    pairs = zip(rows, texts, strict=True)
    return [
        Book(i, row["title"], row["author"], text.strip("\n"))
        for i, (row, text) in enumerate(pairs)
    ]


def window_hashes(text: str, word_ids: dict[str, int]) -> np.ndarray:
    """A 64-bit hash for every window of 13 words, case and punctuation ignored."""
    words = re.findall(r"[a-z']+", text.lower())
    ids = [word_ids.setdefault(word, len(word_ids) + 1) for word in words]
    padded = np.array(ids, dtype=np.uint64)
    count = max(len(padded) - WINDOW_WORDS + 1, 0)
    hashes = np.zeros(count, dtype=np.uint64)
    for offset in range(WINDOW_WORDS):  # wraps modulo 2**64 on purpose
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + padded[offset : offset + count]
    return hashes


def occurrences(ordered: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """How often each query stands in the ordered array."""
    return np.searchsorted(ordered, queries, "right") - np.searchsorted(ordered, queries, "left")


def overlap(
    hashes: Sequence[np.ndarray], corpus: np.ndarray, outside: set[int], book: int
) -> float:
    """Share of the windows of `book` found in a book that is not `outside`.

    `corpus` holds the windows of all books in order: sorting them once is the slow part.
    """
    counts = occurrences(corpus, hashes[book])
    for index in outside | {book}:
        counts -= occurrences(np.sort(hashes[index]), hashes[book])
    return float((counts > 0).mean())


def split_books(books: Sequence[Book]) -> tuple[list[Book], list[Book], list[Book]]:
    """(training, validation, test) by a seeded draw that looks at no model.

    Test books are drawn first. Each set has an author at most once. A drawn book that shares
    more than 1 % of its 13-word windows with other books goes back to training.
    """
    word_ids: dict[str, int] = {}
    hashes = [window_hashes(book.text, word_ids) for book in books]
    corpus = np.sort(np.concatenate(hashes))
    fits = [b.index for b in books if MIN_CHARACTERS <= len(b.text) <= MAX_CHARACTERS]
    random.Random(SPLIT_SEED).shuffle(fits)
    held_out: list[list[int]] = []
    for size in (N_TEST, N_VALIDATION):
        chosen: list[int] = []
        while len(chosen) < size:
            candidate = fits.pop(0)
            if any(books[i].author == books[candidate].author for i in chosen):
                continue
            if overlap(hashes, corpus, set(), candidate) <= MAX_OVERLAP:
                chosen.append(candidate)
        held_out.append(chosen)
    outside = {i for chosen in held_out for i in chosen}
    test, validation = (
        [replace(books[i], overlap=overlap(hashes, corpus, outside, i)) for i in sorted(chosen)]
        for chosen in held_out
    )
    return [b for b in books if b.index not in outside], validation, test


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Byte-level BPE: every byte is a token, so any text survives a round trip."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the two files that AutoTokenizer needs, without white space: they are shipped."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def encode(tokenizer: Tokenizer, books: Sequence[Book]) -> list[np.ndarray]:
    """Token ids of each book, uint16, with <|endoftext|> in front."""
    encoded = []
    for start in range(0, len(books), 16):  # encodings keep offsets: 16 books are 1 GB of them
        batch = tokenizer.encode_batch_fast([book.text for book in books[start : start + 16]])
        encoded += [np.array([EOS_ID, *encoding.ids], dtype=np.uint16) for encoding in batch]
    return encoded


def prepare(data: Path, out: Path) -> None:
    """Writes tokenizer, training and validation tokens, and the split to `out`.

    Test tokens are not written: the trainer cannot look at what it does not have.
    """
    training, validation, test = split_books(read_books(data))
    tokenizer = train_tokenizer(book.text for book in training)
    save_tokenizer(tokenizer, out / "tokenizer")
    np.savez_compressed(
        out / "tokens.npz",
        train=np.concatenate(encode(tokenizer, training)),
        validation=np.concatenate(encode(tokenizer, validation)),
    )
    for name, books in (("validation", validation), ("test", test)):
        for book in books:
            print(f"{name}: {book.title} ({book.author}), overlap {book.overlap:.2%}")


def main() -> None:
    """Prepare what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with books.txt.xz")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    prepare(arguments.data, arguments.out)


if __name__ == "__main__":
    main()
