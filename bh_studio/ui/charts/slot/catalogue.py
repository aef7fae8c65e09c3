"""The charts that a slot can show, in the order in which they are offered."""

from __future__ import annotations

from bh_studio.ui.charts.chart import Chart
from bh_studio.ui.charts.count_histogram import CountHistogram
from bh_studio.ui.charts.difference_map import DifferenceMap
from bh_studio.ui.charts.divergence_chart import DivergenceChart
from bh_studio.ui.charts.heat_map import HeatMap
from bh_studio.ui.charts.layer_chart import LayerChart
from bh_studio.ui.charts.limit_chart import LimitChart
from bh_studio.ui.charts.null.null_map import NullMap
from bh_studio.ui.charts.null.null_quantiles import NullQuantiles
from bh_studio.ui.charts.probability_chart import ProbabilityChart
from bh_studio.ui.charts.utilisation_map import UtilisationMap

CHARTS: tuple[type[Chart], ...] = (
    LayerChart, HeatMap, DifferenceMap, UtilisationMap, CountHistogram, LimitChart,
    ProbabilityChart, DivergenceChart, NullMap, NullQuantiles,
)  # fmt: skip
