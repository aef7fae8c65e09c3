"""Heat map of the expert counts of one side, token by layer."""

from __future__ import annotations

from bh_studio.ui.charts.numbers import Numbers
from bh_studio.ui.charts.scale_legend import ScaleLegend
from bh_studio.ui.charts.token_map import TokenMap
from bh_studio.ui.state.expert_scale import ExpertScale


class HeatMap(TokenMap):
    """In the colours of the run's scale, which are those behind its text, at full strength."""

    title = "Token × layer"
    meaning = (
        "A cell will show how many experts a side uses for one token in one layer: tokens from "
        "left to right, layers from bottom to top."
    )

    def build(self) -> None:
        super().build()
        self._scale: ExpertScale | None = None

    def new_legend(self) -> ScaleLegend:
        self._legend = ScaleLegend(self.theme)
        return self._legend

    def obstacle(self) -> str:
        return "" if self.side.tokens else self.meaning

    def draw(self) -> None:
        scale = self.side.about.scale
        if self._scale != scale:
            self._scale = scale
            self.take_colors(scale.lookup_table())
            self._legend.set_scale(scale)
        self.paint_cells(self.side.counts)
        super().draw()

    def hint(self) -> str:
        return f"{self.side.title}: point at a cell to read it"

    def describe(self, column: int, row: int) -> str:
        """The numbers of one cell, a token and a layer."""
        side = self.side
        count, raw = int(side.counts[column, row]), int(side.raw_counts[column, row])
        unit = "expert" if count == 1 else "experts"
        token = side.first_number + column
        # The token's text comes last: it is what may be cut off.
        return (
            f"Layer {row}, token {token}: {count} {unit}, {raw} before limits "
            f"“{self.text_of(column)}”"
        )

    def numbers(self) -> Numbers:
        side = self.side
        return Numbers(
            ("Token", "Text"),
            tuple(f"Layer {layer}" for layer in range(self.shown.layers)),
            side.counts,
            lambda token: (side.first_number + token, side.texts[token]),
        )
