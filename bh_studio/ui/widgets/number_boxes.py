"""Boxes for the numbers researchers type: a decimal point everywhere, no padding zeros."""

from __future__ import annotations

import bisect

from PySide6.QtCore import QLocale, Qt
from PySide6.QtGui import QValidator, QWheelEvent
from PySide6.QtWidgets import QComboBox, QDoubleSpinBox, QSpinBox, QWidget

from bh_studio.engine.rules.catalogue import RuleEntry

# Round values from strict to lax; the arrows walk along them.
_LEVEL_STEPS = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4,
    0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999,
)  # fmt: skip
_DECIMALS = 9
# Beyond what any level means.
_LARGEST = 1e6


class NumberBox(QDoubleSpinBox):
    """A decimal number, typed with a point or a comma, shown without padding zeros."""

    def __init__(
        self,
        low: float,
        high: float,
        *,
        decimals: int,
        step: float = 0.1,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        # Papers and scripts write 0.005, whatever the system's language.
        self.setLocale(QLocale.c())
        self.setDecimals(decimals)
        self.setRange(low, high)
        self.setSingleStep(step)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def textFromValue(self, value: float) -> str:  # noqa: N802
        text = f"{value:.{self.decimals()}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text

    def valueFromText(self, text: str) -> float:  # noqa: N802
        return super().valueFromText(text.replace(",", "."))

    def validate(self, text: str, position: int) -> tuple[QValidator.State, str, int]:
        result: tuple[QValidator.State, str, int] = super().validate(
            text.replace(",", "."), position
        )
        return result

    def wheelEvent(self, event: QWheelEvent) -> None:
        # Scrolling the panel must not change the number under the pointer.
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class LevelBox(NumberBox):
    """The level of a rule. Between 0 and 1 the arrows walk along 0.001, 0.002, 0.005, 0.01 and so
    on, elsewhere by the step of the catalogue."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(-_LARGEST, _LARGEST, decimals=_DECIMALS, parent=parent)
        self._walks = False

    def set_entry(self, entry: RuleEntry) -> None:
        """Take levels of this rule from now on."""
        levels, least = entry.levels, 10.0**-_DECIMALS
        self.setDecimals(0 if levels.is_whole else _DECIMALS)
        self.setSingleStep(entry.step)
        self.setRange(
            max(levels.low if levels.has_low else levels.low + least, -_LARGEST),
            min(levels.high if levels.has_high else levels.high - least, _LARGEST),
        )
        self._walks = not (levels.has_low or levels.is_whole)

    def stepBy(self, steps: int) -> None:  # noqa: N802
        if not self._walks:
            super().stepBy(steps)
            return
        value = self.value()
        if steps > 0:
            index = bisect.bisect_right(_LEVEL_STEPS, value * (1 + 1e-9)) + steps - 1
        else:
            index = bisect.bisect_left(_LEVEL_STEPS, value * (1 - 1e-9)) + steps
        self.setValue(_LEVEL_STEPS[min(max(index, 0), len(_LEVEL_STEPS) - 1)])
        self.selectAll()


class CountBox(QSpinBox):
    """A whole number."""

    def __init__(self, low: int, high: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setLocale(QLocale.c())
        self.setRange(low, high)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def setValue(self, value: int) -> None:  # noqa: N802
        # WORKAROUND: PySide raises for a number too large for C instead of clamping it.
        super().setValue(max(self.minimum(), min(self.maximum(), value)))

    def wheelEvent(self, event: QWheelEvent) -> None:
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class ChoiceBox(QComboBox):
    """One of a few named choices; `value` is the one behind the words."""

    def __init__(self, choices: dict[str, str], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        for value, words in choices.items():
            self.addItem(words, value)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)

    @property
    def value(self) -> str:
        return str(self.currentData())

    def set_value(self, value: str) -> None:
        """Choose `value`; an unknown one changes nothing."""
        index = self.findData(value)
        if index >= 0:
            self.setCurrentIndex(index)

    def wheelEvent(self, event: QWheelEvent) -> None:
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()
