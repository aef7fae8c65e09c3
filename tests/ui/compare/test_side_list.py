"""The rows of the sides: which one is looked at can be seen."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QApplication

from bh_studio.ui.compare.side_list import SideList
from tests.ui.conftest import Desk
from tests.ui.state.test_expert_scale import contrast


def edge_of(sides: SideList, side: int) -> QColor:
    """The colour at the left end of the row of `side`."""
    picture = sides.rows[side].button.grab().toImage()
    return picture.pixelColor(2, picture.height() // 2)


@pytest.mark.parametrize("scheme", [Qt.ColorScheme.Light, Qt.ColorScheme.Dark])
def test_the_side_that_is_looked_at_stands_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, scheme: Qt.ColorScheme
) -> None:
    sides = desk.page.settings_panel.side_list
    sides.add()
    monkeypatch.setattr(desk.theme, "_forced", scheme)
    desk.theme.follow_system()
    for chosen in range(3):
        sides.choose(chosen)
        desk.page.prompt.editor.setFocus()
        QApplication.processEvents()
        seen = edge_of(sides, chosen)
        assert all(contrast(seen, edge_of(sides, s)) >= 3 for s in range(3) if s != chosen)
