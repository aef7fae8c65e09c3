"""Tooltips whose words come from a file, a folder or a hub. Knows no widget of ours."""

from __future__ import annotations

from PySide6.QtGui import Qt

from bh_studio.ui.visible_text import visible


def plain_tooltip(text: str) -> str:
    """`text` for setToolTip, shown as it is; a tooltip guesses, and may take it for HTML."""
    return Qt.convertFromPlainText(visible(text), Qt.WhiteSpaceMode.WhiteSpaceNormal)
