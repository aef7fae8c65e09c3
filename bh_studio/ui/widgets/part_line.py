"""Words in parts on one line: where not all fit, the least important go first, and none is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PySide6.QtWidgets import QWidget

from bh_studio.ui.widgets.elided_label import ElidedLabel, cut

_SEPARATOR = " · "
_MORE = " …"

# words: where there is room. brief: where there is less; empty for none. weight: the lightest goes
# first.
Part = tuple[str, str, int]


class PartLine(ElidedLabel):
    """Its text is all of its words; the tooltip has to hold them."""

    def __init__(self, role: str, parent: QWidget | None = None) -> None:
        super().__init__(role, parent)
        self._lead = ("", "")
        self._parts: tuple[Part, ...] = ()

    def show_parts(self, parts: Sequence[Part], lead: tuple[str, str] = ("", "")) -> None:
        """Show these in their order. lead: what stands before them, and its shorter form."""
        parts = tuple(parts)
        if (parts, lead) != (self._parts, self._lead):
            self._parts, self._lead = parts, lead
            self.setText(lead[0] + _SEPARATOR.join(words for words, _, _ in parts))
            self.update()

    def fitted(self, width: int) -> str:
        metrics, line = self.fontMetrics(), ""
        for line in self._lines():
            if metrics.horizontalAdvance(line) <= width:
                return line
        return cut(line, metrics, width)

    def _lines(self) -> Iterator[str]:
        """Those that say more before those that say less, down to the part that weighs most."""
        lead, brief_lead = self._lead
        rising = sorted(range(len(self._parts)), key=lambda place: self._parts[place][2])
        for left_out in range(max(len(rising), 1)):
            more = _MORE if left_out else ""
            kept = {place: self._parts[place][0] for place in sorted(rising[left_out:])}
            yield lead + _SEPARATOR.join(kept.values()) + more
            yield brief_lead + _SEPARATOR.join(kept.values()) + more
            for place in rising[left_out:]:
                kept[place] = self._parts[place][1] or kept[place]
                yield brief_lead + _SEPARATOR.join(kept.values()) + more
