"""The comparison in a row of numbers, and the legend of the tints. Measured values only."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from bh_studio.ui.charts.scale_legend import ScaleLegend
from bh_studio.ui.state.run_model import RunModel
from bh_studio.ui.widgets.elided_label import ElidedLabel
from bh_studio.ui.widgets.figure_row import Figure, FigureRow
from bh_studio.ui.widgets.theme import GAP, GAP_LARGE, GAP_SMALL, Theme
from bh_studio.ui.widgets.visible_text import plain_tooltip

_EXPERTS = "BH experts, mean ± std"
_COUNTED = "BH counted, mean ± std"


class StatisticsStrip(QFrame):
    """What BH did against the baseline in the run on screen."""

    def __init__(
        self, baseline: RunModel, bh: RunModel, theme: Theme, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._baseline = baseline
        self._bh = bh
        self.setProperty("role", "card")
        self.experts = Figure(
            _EXPERTS,
            "Experts per token and layer under BH: mean and standard deviation over all "
            "(token, layer) pairs of the answer.",
            role="figure",
        )
        self.share = Figure(
            "Of the baseline's",
            "BH mean experts divided by the baseline's mean experts, both over the answers.",
            role="figure",
        )
        self.at_min = Figure(
            "min_k decided",
            "Share of (token, layer) pairs in which the BH rule chose fewer experts than min_k, "
            "so that min_k decided.",
            role="figure",
        )
        self.at_max = Figure(
            "max_k decided",
            "Share of (token, layer) pairs in which the BH rule chose more experts than max_k, "
            "so that max_k decided.",
            role="figure",
        )
        self.speed = Figure(
            "Speed, BH / baseline",
            "Tokens per second of BH divided by those of the baseline, each from its own "
            "computing time in this run.",
            role="figure",
        )
        self.legend = ScaleLegend(theme, softened=True)
        caption = QLabel("Tint: mean experts of a token")
        caption.setProperty("role", "muted")
        caption.setToolTip(self.legend.toolTip())
        key = QVBoxLayout()
        key.setSpacing(2)
        key.addWidget(caption, 0, Qt.AlignmentFlag.AlignLeft)
        key.addWidget(self.legend)
        key.addStretch(1)
        # On one line, cut where it does not fit, while the window has no second one to give.
        self.notice = ElidedLabel("")
        self.notice.setAccessibleName("What should be known of these numbers")
        self.notice.hide()
        row = QHBoxLayout()
        row.setSpacing(GAP_LARGE)
        figures = (self.experts, self.share, self.at_min, self.at_max, self.speed)
        row.addWidget(FigureRow(figures), 1)
        row.addLayout(key)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(GAP, GAP_SMALL, GAP, GAP_SMALL)
        layout.setSpacing(GAP_SMALL)
        layout.addLayout(row)
        layout.addWidget(self.notice)

    def refresh(self, notices: tuple[str, ...]) -> None:
        """Show the runs as they are now, and under their numbers what should be known of them."""
        self.notice.setText("  ".join(notices))
        self.notice.setToolTip(plain_tooltip("\n".join(notices)))
        self.notice.setVisible(bool(notices))
        bh, baseline = self._bh.statistics, self._baseline.statistics
        spread = None if bh.mean is None else f"{bh.mean:.2f} ± {bh.std:.2f}"
        # Only the side that BH did not route carries a note: its experts were counted, not used.
        is_counted = bool(self._bh.note)
        self.experts.rename(_COUNTED if is_counted else _EXPERTS)
        self.experts.show_value(spread)
        self.share.show_value(
            percent(bh.mean / baseline.mean if bh.mean and baseline.mean else None)
        )
        can_be_limited = self._bh.can_be_limited
        self.at_min.show_value(percent(bh.share_clamped_min if can_be_limited else None))
        self.at_max.show_value(percent(bh.share_clamped_max if can_be_limited else None))
        # Both sides route alike when BH only counts, so their speeds say nothing about it.
        fast, slow = self._bh.tokens_per_second, self._baseline.tokens_per_second
        # Both sides route alike in analyze mode, so their speeds say nothing about BH.
        self.speed.show_value(f"{fast / slow:.2f} ×" if fast and slow and not is_counted else None)
        self.legend.set_scale(self._bh.scale)


def percent(share: float | None) -> str | None:
    """A share as a percentage with one decimal."""
    return None if share is None else f"{share * 100:.1f} %"
