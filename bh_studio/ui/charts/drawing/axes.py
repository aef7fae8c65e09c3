"""How the axes of a plot look in the colours and the text size of the theme."""

from __future__ import annotations

from collections.abc import Mapping

import pyqtgraph as pg
from PySide6.QtGui import QFont

from bh_studio.ui.widgets.theme import Theme

_SMALL, _NAME = 0.88, 0.92
# So many pixels may a mark of an axis reach beyond its end.
OVERHANG = 12


def small_font(plot: pg.PlotWidget, theme: Theme) -> QFont:
    """What is written in a plot with."""
    font = QFont(plot.font())
    font.setPointSizeF(theme.point_size * _SMALL)
    return font


def paint_axes(plot: pg.PlotWidget, theme: Theme, names: Mapping[str, str]) -> None:
    """Paint the axes of `plot` and call them `names`, by "bottom" and "left"."""
    colors = theme.colors
    plot.setBackground(colors.surface)
    for side, name in names.items():
        axis = plot.getPlotItem().getAxis(side)
        axis.setPen(pg.mkPen(colors.line))
        axis.setTextPen(pg.mkPen(colors.muted))
        axis.setTickFont(small_font(plot, theme))
        axis.setStyle(tickLength=4, tickTextOffset=4, hideOverlappingLabels=OVERHANG)
        size = f"{theme.point_size * _NAME:.1f}pt"
        axis.setLabel(name, color=colors.muted.name(), **{"font-size": size})
