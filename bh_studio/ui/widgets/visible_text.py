"""Plain text made safe to show: characters that would break a view get a visible stand-in."""

from __future__ import annotations

from PySide6.QtGui import Qt

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_NEWLINE = "\N{SYMBOL FOR NEWLINE}"


def _stand_ins() -> dict[int, str]:
    table = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
    table[0x7F] = "\N{SYMBOL FOR DELETE}"
    unsafe = [
        *range(0x80, 0xA0),  # C1 controls
        *range(0x202A, 0x202F),  # direction overrides would reorder the tokens around them
        *range(0x2066, 0x206A),
        *range(0xD800, 0xE000),  # halves of surrogate pairs
        *range(0xFDD0, 0xFDF0),  # Qt's own document marks live here
        0xFEFF,
        0xFFFE,
        0xFFFF,
    ]
    table.update((code, _REPLACEMENT) for code in unsafe)
    table.update((code, _NEWLINE) for code in (0x2028, 0x2029))
    return table


_STAND_INS = _stand_ins()


def visible(text: str, *, mark_newlines: bool = False) -> str:
    """`text` with each unsafe character replaced by one visible one, so positions keep.

    mark_newlines: show line breaks and tabs as symbols too, for a text on a single line.
    """
    shown = text.translate(_STAND_INS)
    if mark_newlines:
        shown = shown.replace("\n", "↵").replace("\t", "⇥")
    return shown


def plain_tooltip(text: str) -> str:
    """`text` for setToolTip, shown as it is; a tooltip guesses, and may take it for HTML."""
    return Qt.convertFromPlainText(visible(text), Qt.WhiteSpaceMode.WhiteSpaceNormal)
