"""What evaluations on texts of several kinds say: of each kind, and over all of them.

Within a kind intervals are paired bootstraps over its windows. Over kinds there is none: they were
chosen by hand and are no sample of anything. What is said of them is how many agree, and how often
so many would if each kind fell to either side by chance. Knows results, no model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bh_studio.engine.records.estimates import Estimate, PairedBootstrap
from bh_studio.engine.records.evaluation import EvaluationResult, Scores, WindowSums
from bh_studio.engine.records.temperature_scaling import scaled_nats

# What contenders are compared by: all are better when lower.
MEASURES = ("kl", "nats", "scaled_nats")
_MOST_PERMUTED = 20


def of_kind(
    results: Sequence[EvaluationResult], names: Sequence[Sequence[str]], reference: str
) -> dict[str, Any]:
    """Every contender of `results`, which have read the same windows, and what it costs more than
    `reference`.

    names: of each result, those of its contenders after the baseline. Raises ValueError for results
    of other windows.
    """
    tokens = results[0].tokens
    bootstrap = PairedBootstrap(tokens)
    found: dict[str, dict[str, Any]] = {}
    windows: dict[str, dict[str, np.ndarray]] = {}
    for result, of_result in zip(results, names, strict=True):
        if not np.array_equal(result.tokens, tokens):
            raise ValueError("The results are of other windows.")
        scores = result.scores()
        windows.setdefault("baseline", _by_window(result.sums[0]))
        found.setdefault("baseline", _described("model's own", scores[0]))
        rows = zip(of_result, result.contenders[1:], scores[1:], result.sums[1:], strict=True)
        for name, contender, of_one, sums in rows:
            found.setdefault(name, _described(contender.label, of_one))
            windows.setdefault(name, _by_window(sums))
    for name, of_name in windows.items():
        found[name]["against"] = {
            measure: _estimate(bootstrap.mean(of_name[measure] - windows[reference][measure]))
            for measure in MEASURES
        }
    return {"scored_tokens": int(tokens.sum()), "windows": len(tokens), "contenders": found}


def _by_window(sums: WindowSums) -> dict[str, np.ndarray]:
    """Each of MEASURES, (window,) sums."""
    assert sums.scaled is not None
    nats, kl, _ = sums.quality.T
    return {"kl": kl, "nats": nats, "scaled_nats": scaled_nats(sums.scaled).nats}


def _described(rule: str, scores: Scores) -> dict[str, Any]:
    assert scores.scaled_perplexity_change is not None
    return {
        "rule": rule,
        "mean_experts": _estimate(scores.mean_experts),
        "perplexity": scores.perplexity,
        "perplexity_change": _estimate(scores.perplexity_change),
        "temperature": scores.temperature,
        "scaled_perplexity_change": _estimate(scores.scaled_perplexity_change),
        "kl": _estimate(scores.kl),
        "agreement": _estimate(scores.agreement),
        "share_raised": scores.share_raised.value,
        "share_lowered": scores.share_lowered.value,
    }


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return {
        name: value if value is None else float(f"{value:.6g}")
        for name, value in estimate.to_dict().items()
    }


def across_kinds(kinds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each contender against the reference over all kinds, by part and measure."""
    rows = []
    for part in ("carried", "same_mean"):
        for name in kinds[0][part]["contenders"]:
            for measure in MEASURES:
                gaps = [kind[part]["contenders"][name]["against"][measure] for kind in kinds]
                values = np.array([gap["value"] for gap in gaps])
                if values.any():
                    rows.append(
                        {
                            "part": part, "contender": name, "measure": measure,
                            "kinds": len(kinds),
                            "worse": int((values > 0).sum()),
                            "worse_beyond_interval": sum(gap["low"] > 0 for gap in gaps),
                            "better_beyond_interval": sum(gap["high"] < 0 for gap in gaps),
                            "median": float(np.median(values)),
                            "sign_test": sign_test(values),
                            "permutation_test": permutation_test(values),
                        }
                    )  # fmt: skip
    return rows


def sign_test(values: np.ndarray) -> float:
    """Two-sided p of as many signs being equal by chance; zeros are left out."""
    above, below = int((values > 0).sum()), int((values < 0).sum())
    number, most = above + below, max(above, below)
    tail = sum(math.comb(number, k) for k in range(most, number + 1)) / 2**number
    return min(1.0, 2 * tail)


def permutation_test(values: np.ndarray) -> float:
    """Two-sided p of a mean as far from 0, if each value could as well have the other sign; all
    2^n ways are tried. Raises ValueError for more than 20 values."""
    if len(values) > _MOST_PERMUTED:
        raise ValueError(f"{len(values)} values have too many ways to be signed.")
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    sums = np.abs(signs @ values)
    return float((sums >= abs(values.sum()) * (1 - 1e-12)).mean())
