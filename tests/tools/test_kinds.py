"""Texts of many kinds: their parts, and what is said over kinds, against scipy."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bh_studio.engine.experiments.budget.level_search import looseness_of
from bh_studio.engine.rules.text import parse_rule
from tools.kind_statistics import permutation_test, sign_test
from tools.kind_texts import part_of, read_kinds
from tools.measure_kinds import moved, whole_numbers


def kinds(folder: Path, content: bytes, digest: str) -> Path:
    (folder / "code.txt").write_bytes(content)
    (folder / "manifest.tsv").write_text(f"kind\tfile\tsha256\ncode\tcode.txt\t{digest}\n")
    return folder


def test_a_text_that_is_not_the_manifests_is_refused(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"x = 1\n").hexdigest()
    assert read_kinds(kinds(tmp_path, b"x = 1\n", digest)) == {"code": "x = 1\n"}
    with pytest.raises(ValueError, match=r"code\.txt is not the file"):
        read_kinds(kinds(tmp_path, b"x = 2\n", digest))


def test_what_choices_are_made_on_is_not_measured_on() -> None:
    texts = {
        kind: "".join(chr(0x4E00 + i % 20_000) for i in range(200_000))
        for kind in ("code", "verse", "german")
    }
    choosing, measuring = part_of(texts, "choosing"), part_of(texts, "measuring")
    assert set(choosing) == {"code", "verse"}
    assert set(measuring) == set(texts)
    assert {kind: len(text) for kind, text in choosing.items()} == {"code": 60_000, "verse": 60_000}
    lengths = {kind: len(text) for kind, text in measuring.items()}
    assert lengths == {"code": 60_000, "verse": 80_000, "german": 60_000}
    assert all(texts[kind].endswith(text) for kind, text in measuring.items())


@pytest.mark.parametrize("seed", range(5))
def test_tests_over_kinds_are_scipys(seed: int) -> None:
    values = np.random.default_rng(seed).normal(0.4, 1, 11)
    expected = stats.binomtest(int((values > 0).sum()), len(values)).pvalue
    assert sign_test(values) == pytest.approx(expected)
    permuted = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert permutation_test(values) == pytest.approx(permuted.pvalue)
    assert sign_test(np.append(values, 0)) == pytest.approx(expected)


def test_levels_of_layers_move_together() -> None:
    for text in ("bh:0.01/0.2", "cut:0.03/0.05"):
        rule = parse_rule(text)
        assert moved(rule, 0.0) == rule
        looser = moved(rule, 0.5)
        assert isinstance(rule.level, tuple)
        assert isinstance(looser.level, tuple)
        for before, after in zip(rule.level, looser.level, strict=True):
            step = looseness_of(rule.rule, after) - looseness_of(rule.rule, before)
            assert step == pytest.approx(0.5, abs=1e-3)
            assert (after > before) is text.startswith("bh")


def test_whole_numbers_keep_the_sum() -> None:
    means = np.array([5.2, 4.6, 4.4, 5.8])
    assert whole_numbers(means) == [5, 5, 4, 6]
    assert sum(whole_numbers(np.array([4.5, 4.5, 4.5, 6.5]))) == 20
