"""Cutting long texts into windows that a model can read, every token scored once.

The perplexity of a text longer than the context depends on how it is cut: windows that overlap
give every scored token at least window - stride tokens to look back on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """Tokens start .. end of a document as input, of which those from `first` on are scored.

    Input i is scored by how well it predicts token i + 1.
    """

    document: int
    start: int
    end: int
    first: int

    @property
    def scored(self) -> int:
        return self.end - self.first


def spans(length: int, context: int, stride: int) -> list[tuple[int, int, int]]:
    """(start, end, first scored) of windows over `length` inputs, each input scored once.

    context: most inputs of a window. stride: inputs scored in a window, but for the first, which
    scores all of its own, and the last.
    """
    found, scored = [], 0
    while scored < length:
        end = min(max(scored + stride, context), length)
        found.append((max(end - context, 0), end, scored))
        scored = end
    return found


def windows(lengths: Sequence[int], context: int, stride: int) -> list[Window]:
    """Windows over documents of `lengths` tokens, none across two documents.

    Raises ValueError unless 1 <= stride <= context.
    """
    if not 1 <= stride <= context:
        raise ValueError(
            f"stride must lie between 1 and the window of {context} tokens; got {stride}."
        )
    return [
        Window(document, *span)
        for document, length in enumerate(lengths)
        for span in spans(length - 1, context, stride)
    ]


def thinned(found: Sequence[Window], tokens: int | None) -> list[Window]:
    """Windows spread evenly over all of `found`, with about `tokens` scored tokens together."""
    total = sum(window.scored for window in found)
    if tokens is None or tokens >= total:
        return list(found)
    wanted = max(1, round(len(found) * tokens / total))
    chosen = np.linspace(0, len(found) - 1, wanted).round().astype(int)
    return [found[index] for index in np.unique(chosen)]


def batches(found: Sequence[Window], most: int) -> list[list[Window]]:
    """Runs of at most `most` windows that have the same number of inputs, in order.

    Nothing is padded, so that every row that runs through the model belongs to a text.
    """
    grouped: list[list[Window]] = []
    for window in found:
        last = grouped[-1] if grouped else []
        if last and len(last) < most and _size(last[0]) == _size(window):
            last.append(window)
        else:
            grouped.append([window])
    return grouped


def _size(window: Window) -> int:
    return window.end - window.start
