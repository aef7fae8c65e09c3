"""Options that are whole numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def whole_number_from(least: int) -> Callable[[str], int]:
    """An argparse type: whole numbers from `least`, which is not below 0."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least}")
        return int(text)

    return parse
