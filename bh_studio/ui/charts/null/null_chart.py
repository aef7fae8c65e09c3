"""What the charts of a null share: which sides have one, and how its numbers are said."""

from __future__ import annotations

from bh_studio.engine.records.diagnostics import LayerDiagnostics, NullFit
from bh_studio.ui.charts.chart import Chart
from bh_studio.ui.charts.shown import ShownSide

_MOST_NAMED = 4


class NullChart(Chart):
    """Of one side whose rule tests with a null; it need not have said anything."""

    is_of_one_side = True

    @property
    def offered(self) -> tuple[ShownSide, ...]:
        sides = self.shown.sides
        return tuple(side for side in sides if _tests(side)) or sides

    def obstacle(self) -> str:
        side = self.side
        rule = side.about.rule
        if rule is None or not rule.is_test:
            own = "the model's own routing" if rule is None else "its rule"
            return f"Side {side.name} has no null: {own} tests nothing."
        if self.shown.nulls is None:
            return self.meaning
        found = self.shown.nulls.of(side.about.model, rule)
        if isinstance(found, str):
            return found
        self._fit = found
        return ""

    @property
    def fit(self) -> NullFit:
        """How well the null of the side fits; there is no obstacle."""
        return self._fit

    def choose(self, column: int, row: int) -> None:
        side, place = self.side, self.selection.place
        token = max(0, side.tokens - 1) if place is None else place.token
        self.selection.select(side.number, token, row)

    def hint(self) -> str:
        fit = self.fit
        about = "discarded experts" if fit.is_about_discarded else "all experts, kept ones too,"
        distances = [layer.ks_distance for layer in fit.layers]
        worst = distances.index(max(distances))
        shares = [100 * layer.null_share_at_alpha for layer in fit.layers]
        words = (
            f"{self.side.title}: worst layer {worst}, KS distance {distances[worst]:.3f}  ·  p ≤ "
            f"{self._level_words()}: {min(shares):.1f} to {max(shares):.1f} %  ·  {about} of "
            f"{fit.held_out_tokens:,} held-out tokens"
        )
        alarm = self._alarm_words()
        return f"{alarm}  ·  {words}" if alarm else words

    def layer_words(self, layer: int) -> str:
        """What there is to say of the null in a layer."""
        fit, of_layer = self.fit, self.fit.layers[layer]
        symbol = fit.rule.level_symbol
        return (
            f"{self._smallest_words(layer)}  ·  KS distance {of_layer.ks_distance:.3f}  ·  p ≤ "
            f"{symbol} {fit.levels[layer]:g}: {100 * of_layer.null_share_at_alpha:.2f} %"
        )

    def layer_values(self, layer: int) -> tuple[float, ...]:
        """The numbers of `layer_names` in a layer; nan for none."""
        of_layer = self.fit.layers[layer]
        needed = self.fit.needed_p
        nan = float("nan")
        return (
            of_layer.ks_distance,
            of_layer.null_share_at_alpha,
            nan if of_layer.smallest_p is None else of_layer.smallest_p,
            nan if needed is None else needed[layer],
        )

    @property
    def layer_names(self) -> tuple[str, ...]:
        """What the table calls them."""
        symbol = self.fit.rule.level_symbol
        return "KS distance", f"Share p ≤ {symbol}", "Smallest p", "One expert needs p ≤"

    def _level_words(self) -> str:
        fit = self.fit
        symbol, levels = fit.rule.level_symbol, set(fit.levels)
        return f"{symbol} {levels.pop():g}" if len(levels) == 1 else symbol

    def _smallest_words(self, layer: int) -> str:
        needed = self.fit.needed_p
        words = _smallest(self.fit.layers[layer])
        if needed is not None:
            words += f", one expert needs {needed[layer]:.1e}"
        if self.fit.selects_no_single_expert[layer]:
            words += ": never one by itself"
        return words

    def _alarm_words(self) -> str:
        cut_off = [n for n, is_so in enumerate(self.fit.selects_no_single_expert) if is_so]
        if not cut_off:
            return ""
        if len(cut_off) == len(self.fit.layers):
            return "No layer can ever select an expert by itself: the null is too small"
        named = ", ".join(map(str, cut_off[:_MOST_NAMED]))
        more = len(cut_off) - _MOST_NAMED
        where = f"{named} and {more} more" if more > 0 else named
        layers = "Layer" if len(cut_off) == 1 else "Layers"
        return f"{layers} {where} can never select an expert by itself: the null is too small"


def _tests(side: ShownSide) -> bool:
    return side.about.rule is not None and side.about.rule.is_test


def _smallest(layer: LayerDiagnostics) -> str:
    return "p by a formula" if layer.smallest_p is None else f"smallest p {layer.smallest_p:.1e}"
