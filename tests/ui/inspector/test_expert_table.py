"""The table of experts: no number in it is cut, however narrow it is."""

from __future__ import annotations

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import QApplication, QHeaderView
from pytestqt.qtbot import QtBot

from bh_studio.engine.records.decisions.token_inspection import (
    Counting,
    Criterion,
    InspectedLayer,
)
from bh_studio.ui.inspector.expert_table import ExpertTable
from bh_studio.ui.inspector.rows_view import RowsView
from bh_studio.ui.inspector.token_words import short_number
from bh_studio.ui.widgets.theme import Theme

RANKS = 16
TAKEN = [(letter, np.arange(8)) for letter in "ABCD"]


@pytest.mark.parametrize(
    ("value", "digits", "words"),
    [
        (0.00045, 2, "4.5e-4"), (0.0045, 2, "0.0045"), (0.001, 2, "0.001"), (1.0, 2, "1"),
        (0.0, 2, "0"), (8.9e-6, 2, "8.9e-6"), (3.02e-6, 2, "3e-6"),
        (1.234e-12, 3, "1.23e-12"), (0.1416, 3, "0.142"),
    ],
)  # fmt: skip
def test_small_numbers_are_short(value: float, digits: int, words: str) -> None:
    assert short_number(value, digits) == words


def layer(smallest: float) -> InspectedLayer:
    falling = np.geomspace(0.5, smallest, RANKS)
    return InspectedLayer(
        experts=np.arange(RANKS),
        probabilities=falling.astype(np.float32),
        scores=falling.astype(np.float32),
        p_values=falling[::-1].copy(),
        criterion=Criterion(Counting.LIMIT, falling, np.array([8.0]), "P", "most"),
        raw_count=8,
        count=8,
        weights=falling[:8].astype(np.float32),
    )


@pytest.mark.parametrize("width", [200, 330, 350, 400, 700])
@pytest.mark.parametrize("percent", [100, 150])
def test_no_number_of_a_layer_is_cut(width: int, percent: int, qtbot: QtBot, theme: Theme) -> None:
    theme.set_text_percent(percent)
    table = ExpertTable()
    view = RowsView(table, "Experts of the layer", has_numbers=True)
    qtbot.addWidget(view)
    for smallest in (0.02, 1e-12):
        table.show_layer(layer(smallest), RANKS, TAKEN)
        view.fit(table)
        view.resize(width, view.height())
        view.show()
        QApplication.processEvents()
        metrics = QFontMetrics(view.font())
        for column in range(table.columnCount()):
            texts = [table.index(row, column).data() for row in range(RANKS)]
            texts.append(table.headerData(column, Qt.Orientation.Horizontal))
            widest = max(map(metrics.horizontalAdvance, texts))
            assert view.columnWidth(column) >= widest + 4, column
        header = view.horizontalHeader()
        bar = view.horizontalScrollBar()
        assert header.length() - view.viewport().width() == bar.maximum()
        assert bar.isVisible() is (bar.maximum() > 0)
        # All rows are in view beside it.
        assert view.verticalScrollBar().maximum() == 0
        wide = [column for column, is_wide in enumerate(table.stretched) if is_wide]
        assert len(wide) == 3
        modes = {header.sectionResizeMode(column) for column in wide}
        assert modes == {QHeaderView.ResizeMode.Fixed}
    view.resize(2000, view.height())
    QApplication.processEvents()
    assert not view.horizontalScrollBar().isVisible()
