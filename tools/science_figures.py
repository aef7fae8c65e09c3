"""Draws the figures of docs/science.md from what was measured.

    python -m tools.science_figures --folder docs/science

FOLDER has what tools.measure_quality wrote, sensitivity.json, variants.json and curves.json, and
gets the figures. What needs no held-out text (who decided, real router logits, diagnostics) is
computed here, from the embedded model's calibration and from tests/data. Needs matplotlib:
pip install -e ".[figures]" -c constraints.txt.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from bh_studio.engine.calibration.diagnostics import diagnose
from bh_studio.engine.loading import load_model
from bh_studio.engine.records.estimates import on_front
from bh_studio.engine.routing.recordings import Recording, load_router_logits
from bh_studio.engine.routing.replay import ReplayedCounts, replay, replay_leave_one_out
from bh_studio.engine.rules.parameters import NullName, ScoreName
from bh_studio.engine.rules.text import parse_rule

ROOT = Path(__file__).resolve().parent.parent
BLUE, ORANGE, GREEN, PURPLE, RED, GREY, INK = (
    "#2a6fbb", "#d9822b", "#3a8f5c", "#7a5fb0", "#c23b4a", "#9aa0a6", "#22262a",
)  # fmt: skip
_WIDEST = 0.05
# (label, which rows, colour, marker) of the curves of quality against experts.
CURVES: tuple[tuple[str, str, str | None, str, str], ...] = (
    ("top-p", "top-p:", "bundled", PURPLE, "v"),
    ("min-p", "min-p:", "bundled", GREEN, "^"),
    ("higher criticism", "hc:", "bundled", RED, "P"),
    ("entropy, 4 or 8", "entropy:", "bundled", "#b08a00", "d"),
    ("fixed top-k", "top-k:", "bundled", GREY, "s"),
    ("plain cut, P ≥ t", "cut:", "bundled", ORANGE, "D"),
    ("BH on P", "bh:", "bundled", BLUE, "o"),
    ("BH on sensitivity, null pooled", "bh:sens", "books", INK, "*"),
)


def main() -> None:
    """Draw everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder
    warnings.filterwarnings("ignore", message="The null holds")
    mpl.rcParams.update({
        "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.color": "#e6e8ea", "axes.axisbelow": True,
        "axes.edgecolor": GREY, "savefig.dpi": 160, "figure.constrained_layout.use": True,
    })  # fmt: skip
    sensitivity, variants, curves = (
        json.loads((folder / f"{name}.json").read_text())
        for name in ("sensitivity", "variants", "curves")
    )
    draw_quality(curves, sensitivity, folder / "quality_against_experts.png")
    write_front(curves, folder / "pareto_front.json")
    draw_differences([variants, sensitivity], folder / "differences_at_same_mean.png")
    recording = load_model().recording
    draw_who_decided(recording, folder / "who_decided.png")
    draw_diagnostics(recording, folder / "null_diagnostics.png")
    draw_real_vectors(folder / "real_router_logits.png")


def draw_quality(curves: dict[str, Any], sensitivity: dict[str, Any], path: Path) -> None:
    """Perplexity change against mean experts, a curve a rule."""
    figure, axes = plt.subplots(figsize=(7.2, 4.6))
    for label, prefix, calibration, colour, marker in CURVES:
        measured = sensitivity if calibration == "books" else curves
        rows = [r for r in measured["rows"] if belongs(r, prefix, calibration)]
        rows.sort(key=lambda r: r["mean_experts"]["value"])
        x = np.array([r["mean_experts"]["value"] for r in rows])
        low, y, high = (
            np.array([100 * r["perplexity_change"][key] for r in rows])
            for key in ("low", "value", "high")
        )
        axes.errorbar(
            x, y, yerr=(y - low, high - y), color=colour, marker=marker, markersize=4.5,
            linewidth=1.3, elinewidth=0.8, label=label,
        )  # fmt: skip
    axes.set(xlim=(2.8, 8.2), ylim=(-0.3, 10), xlabel="mean experts of a token in a layer",
             ylabel="perplexity against top-8, % more")  # fmt: skip
    axes.legend(frameon=False)
    tokens, more = (f"{found['scored_tokens']:,}" for found in (curves, sensitivity))
    axes.set_title(
        f"5 held-out books, {tokens} tokens (sensitivity: {more}), 95 % intervals", loc="left",
        fontsize=9,
    )  # fmt: skip
    figure.savefig(path)
    plt.close(figure)


def write_front(curves: dict[str, Any], path: Path) -> None:
    """The rules that no other one beats at both mean experts and loss, by mean experts."""
    rows = [row for row in curves["rows"] if row["control"] is None]
    front = on_front([(r["mean_experts"]["value"], r["nats"]["value"]) for r in rows])
    kept = [
        {key: row[key] for key in ("label", "mean_experts", "nats", "perplexity_change")}
        for row, is_kept in zip(rows, front, strict=True)
        if is_kept
    ]
    kept.sort(key=lambda row: row["mean_experts"]["value"])
    path.write_text(json.dumps(kept, indent=1, allow_nan=False) + "\n")


def belongs(row: dict[str, Any], prefix: str, calibration: str | None) -> bool:
    """Whether a row is a point of the curve: the rule without other settings."""
    if row["control"] is not None or row["calibration"] != calibration:
        return False
    if prefix == "bh:sens":
        return str(row["rule"]).endswith(",score=sensitivity,null=pooled")
    plain = "," not in row["rule"] or (prefix == "entropy:" and row["rule"].count(",") == 1)
    wide = prefix == "top-k:" and "max_k" in row["rule"]
    by_layer = "/" in row["rule"]
    return str(row["rule"]).startswith(prefix) and (plain or wide) and not by_layer


def draw_differences(measured: list[dict[str, Any]], path: Path) -> None:
    """Paired difference to fixed top-k at the same mean, a line a rule.

    A rule that was measured more than once is shown as the last of `measured` has it.
    """
    figure, panels = plt.subplots(1, 2, figsize=(9.2, 5.8), sharey=True)
    found: dict[float, dict[str, dict[str, Any]]] = {5.0: {}, 4.0: {}}
    for d in (d for one in measured for d in one["differences"]):
        if d["against"] == f"top-k:{d['target']:g}":
            found[d["target"]][rule_name(d["rule"], d["calibration"])] = d
    # Beyond this are rules that a line would only squeeze the others for; the table has them.
    names = [name for name, d in found[5.0].items() if abs(d["value"]) < _WIDEST]
    names.sort(key=lambda name: -found[5.0][name]["value"])
    for axes, (target, by_name) in zip(panels, found.items(), strict=True):
        for place, name in enumerate(names):
            if name not in by_name:
                continue
            low, value, high = (100 * by_name[name][key] for key in ("low", "value", "high"))
            if abs(value) >= 100 * _WIDEST:
                axes.text(0.98, place, f"{value:+.1f} →", transform=axes.get_yaxis_transform(),
                          ha="right", va="center", color=BLUE)  # fmt: skip
                continue
            colour = INK if "sensitivity" in name else ORANGE if name.startswith("cut") else BLUE
            axes.plot([low, high], [place, place], color=colour, linewidth=2)
            axes.plot(value, place, "o", color=colour, markersize=4.5)
        axes.axvline(0, color=GREY, linewidth=1)
        axes.set_title(f"mean {target:g} experts", loc="left", fontsize=9)
    panels[0].set_yticks(range(len(names)), names)
    figure.supxlabel("100 × nats a token against fixed top-k at the same mean (left is better)",
                     fontsize=9)  # fmt: skip
    figure.savefig(path)
    plt.close(figure)


def rule_name(rule: str, calibration: str) -> str:
    """What to call a rule that was set to a target: without its level."""
    head, *settings = rule.split(",")
    kind, level = head.split(":")
    name = {"bh": "BH", "by": "BY", "storey": "Storey"}.get(kind, kind)
    name += ", alpha by layer" if "/" in level else ""
    return ", ".join([name, *settings]) + (" [books]" if calibration == "books" else "")


def draw_who_decided(recording: Recording, path: Path) -> None:
    """Mean experts, and by whom they were decided, against alpha, for three nulls."""
    alphas = np.array([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 0.9])
    nulls = (
        ("discarded scores (here)", "score=probability,null=discarded", BLUE),
        ("all logits (earlier scripts)", "score=logit,null=all", ORANGE),
        ("1 - softmax (earlier scripts)", "null=softmax", RED),
    )
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.9))
    for label, settings, colour in nulls:
        counts = [replayed(recording, f"bh:{alpha},{settings}") for alpha in alphas]
        left.plot(alphas, [c.counts.mean() for c in counts], color=colour, marker="o",
                  markersize=3.5, label=label)  # fmt: skip
        low = [100 * (c.raw_counts < c.counts).mean() for c in counts]
        high = [100 * (c.raw_counts > c.counts).mean() for c in counts]
        right.plot(alphas, low, color=colour, marker="o", markersize=3.5)
        right.plot(alphas, high, color=colour, marker="o", markersize=3.5, linestyle=":")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("BH level alpha")
    left.set(ylabel="mean experts of a token in a layer", ylim=(0, 8.3))
    right.set(ylabel="% of (token, layer) that a limit decided", ylim=(-2, 102))
    right.plot([], [], color=INK, label="raised to min_k = 1")
    right.plot([], [], color=INK, linestyle=":", label="cut to max_k = 8")
    left.legend(frameon=False, loc="upper left")
    right.legend(frameon=False)
    left.set_title("What a chart of counts shows", loc="left", fontsize=9)
    right.set_title("Who decided them", loc="left", fontsize=9)
    figure.savefig(path)
    plt.close(figure)


def replayed(recording: Recording, rule: str) -> ReplayedCounts:
    """Counts of `rule` on the recorded tokens themselves."""
    return replay(recording.logits, parse_rule(rule), recording, recording.origin.top_k)


def draw_diagnostics(recording: Recording, path: Path) -> None:
    """Quantiles of held-out null p-values against uniform ones, and all experts' p-values."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.9))
    for null, score, colour, label in (
        (NullName.DISCARDED, ScoreName.PROBABILITY, BLUE, "discarded, probability"),
        (NullName.POOLED, ScoreName.PROBABILITY, GREEN, "pooled over layers, probability"),
        (NullName.DISCARDED, ScoreName.LOGIT, ORANGE, "discarded, logit"),
    ):
        found = diagnose(recording, null, score, 0.05)
        distances = [layer.ks_distance for layer in found.layers]
        left.plot(range(len(distances)), distances, color=colour, marker="o", markersize=3.5,
                  label=label)  # fmt: skip
    layers = diagnose(recording, NullName.DISCARDED, ScoreName.PROBABILITY, 0.05).layers
    shares = np.array([layer.all_histogram for layer in layers]) * 20
    edges = np.linspace(0, 1, shares.shape[1] + 1)
    for of_layer in shares:
        right.stairs(of_layer, edges, color=BLUE, alpha=0.25, linewidth=0.9)
    right.stairs(shares.mean(0), edges, color=INK, linewidth=1.6, label="mean of the layers")
    right.axhline(1, color=GREY, linewidth=1)
    left.set(xlabel="layer", ylabel="distance to uniform (KS)", ylim=(0, None))
    right.set(xlabel="p-value", ylabel="density", ylim=(0, None))
    left.set_title("Null scores of tokens that were not fitted on", loc="left", fontsize=9)
    right.set_title("p-values of all experts, discarded null", loc="left", fontsize=9)
    left.legend(frameon=False)
    right.legend(frameon=False)
    figure.savefig(path)
    plt.close(figure)


def draw_real_vectors(path: Path) -> None:
    """Counts of each layer on router logits of the real OLMoE-1B-7B, leave-one-out null."""
    logits = load_router_logits(ROOT / "tests/data/olmoe_router_logits_160.npz").logits[:, 1:]
    figure, axes = plt.subplots(figsize=(7.2, 3.6))
    for text, colour, label in (
        ("bh:0.05,null=pooled", BLUE, "alpha 0.05, pooled"),
        ("bh:0.01,null=pooled", GREEN, "0.01, pooled"),
        ("bh:0.005,null=pooled", PURPLE, "0.005, pooled"),
        ("bh:0.05", ORANGE, "0.05, null of the layer"),
    ):
        counts = replay_leave_one_out(logits, parse_rule(text), 8).counts
        axes.plot(counts.mean(axis=0), color=colour, marker="o", markersize=3.5,
                  label=f"{label}: mean {counts.mean():.2f}")  # fmt: skip
    axes.set(xlabel="layer", ylabel="mean experts of 9 tokens", ylim=(0, 8.3))
    axes.legend(frameon=False, loc="lower left", ncols=2)
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main()
