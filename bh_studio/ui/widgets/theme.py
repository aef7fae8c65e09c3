"""Colours, type and spacing of the window, for light and dark. Knows no widget of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PySide6.QtCore import QObject, Qt, QTimer, Signal, Slot
from PySide6.QtGui import QColor, QFont, QPalette
from PySide6.QtWidgets import QApplication, QWidget

# One spacing scale for every margin and gap.
GAP_TINY, GAP_SMALL, GAP, GAP_LARGE = 4, 8, 12, 16

_SMALLEST_TEXT, _LARGEST_TEXT, _TEXT_STEP = 70, 220, 10
_BASE_POINT_SIZE = 10.0


@dataclass(frozen=True, slots=True)
class Colors:
    """The restrained palette: two grounds, three inks, one accent, one alarm, one for matches."""

    window: QColor
    surface: QColor
    line: QColor
    text: QColor
    muted: QColor
    faint: QColor
    accent: QColor
    on_accent: QColor
    accent_soft: QColor
    alarm: QColor
    alarm_soft: QColor
    found: QColor
    is_dark: bool


LIGHT = Colors(
    window=QColor("#f2f4f6"),
    surface=QColor("#ffffff"),
    line=QColor("#d5dae0"),
    text=QColor("#1c2127"),
    muted=QColor("#57616d"),
    faint=QColor("#7d8691"),
    accent=QColor("#1f6f8b"),
    on_accent=QColor("#ffffff"),
    accent_soft=QColor("#dcebf1"),
    alarm=QColor("#a3271b"),
    alarm_soft=QColor("#fbe9e6"),
    found=QColor("#ffb65c"),
    is_dark=False,
)
DARK = Colors(
    window=QColor("#14171b"),
    surface=QColor("#1b1e23"),
    line=QColor("#343a42"),
    text=QColor("#e7e9ec"),
    muted=QColor("#a4adb8"),
    faint=QColor("#6c7580"),
    accent=QColor("#62b5d0"),
    on_accent=QColor("#0d1a20"),
    accent_soft=QColor("#1d3540"),
    alarm=QColor("#f0a79d"),
    alarm_soft=QColor("#3a2220"),
    found=QColor("#8a4b00"),
    is_dark=True,
)


class Theme(QObject):
    """Keeps the application's palette, font and style sheet in step with the system's scheme.

    `changed` tells what paints by itself, such as charts and tints, to take the new colours.
    """

    changed = Signal()

    def __init__(
        self, app: QApplication, forced: Qt.ColorScheme | None = None, text_percent: int = 100
    ) -> None:
        super().__init__(app)
        self._app = app
        self._forced = forced
        self._base_font = QFont(app.font())
        self._base_size = max(self._base_font.pointSizeF(), _BASE_POINT_SIZE)
        self.text_percent = _within_limits(text_percent)
        self.colors = self._system_colors()
        # All widgets are measured and painted again: once for all steps that come together.
        self._steps = QTimer(self)
        self._steps.setSingleShot(True)
        self._steps.timeout.connect(self._take_steps)
        app.setStyle("Fusion")
        app.styleHints().colorSchemeChanged.connect(self.follow_system)
        self._apply()

    @property
    def point_size(self) -> float:
        """Size of ordinary text, steps included that are not on screen yet."""
        return self._base_size * self.text_percent / 100

    @contextmanager
    def put_on_at_end(self) -> Iterator[None]:
        """Build many widgets in here: the style sheet is put on them all when it is left.

        Qt otherwise looks through it again whenever a widget gets a parent: 45 of the 110 ms that
        building the window took. What was measured in here is measured again by `changed`.
        """
        style_sheet = self._app.styleSheet()
        self._app.setStyleSheet("")
        try:
            yield
        finally:
            self._app.setStyleSheet(style_sheet)
            self.changed.emit()

    @Slot()
    def follow_system(self) -> None:
        """Take the scheme that the system asks for, or the one that was forced."""
        colors = self._system_colors()
        if colors is not self.colors:
            self.colors = colors
            self._apply()
            self.changed.emit()

    def set_text_percent(self, percent: int) -> None:
        """Scale all text; 100 is the system's size."""
        self.text_percent = _within_limits(percent)
        self._take_steps()

    @Slot()
    def enlarge_text(self) -> None:
        """Scale all text up by a step, from the next turn of the event loop on."""
        self._step_to(self.text_percent + _TEXT_STEP)

    @Slot()
    def shrink_text(self) -> None:
        """Scale it down, likewise."""
        self._step_to(self.text_percent - _TEXT_STEP)

    @Slot()
    def reset_text(self) -> None:
        """Show it in the system's size, likewise."""
        self._step_to(100)

    def _step_to(self, percent: int) -> None:
        self.text_percent = _within_limits(percent)
        self._steps.start(0)

    @Slot()
    def _take_steps(self) -> None:
        self._steps.stop()
        if self.text_percent != self._applied_percent:
            self._apply()
            self.changed.emit()

    def _system_colors(self) -> Colors:
        scheme = self._forced
        if scheme is None:
            scheme = self._app.styleHints().colorScheme()
        return DARK if scheme is Qt.ColorScheme.Dark else LIGHT

    def _apply(self) -> None:
        self._applied_percent = self.text_percent
        font = QFont(self._base_font)
        font.setPointSizeF(self.point_size)
        self._app.setFont(font)
        self._app.setPalette(_palette(self.colors))
        self._app.setStyleSheet(_style_sheet(self.colors, self.point_size))


def set_role(widget: QWidget, role: str) -> None:
    """Have the style sheet draw `widget` as `role` from now on."""
    if widget.property("role") != role:
        widget.setProperty("role", role)
        # A style sheet looks at properties only when a widget is polished.
        widget.style().unpolish(widget)
        widget.style().polish(widget)


def _within_limits(percent: int) -> int:
    return max(_SMALLEST_TEXT, min(_LARGEST_TEXT, percent))


def _palette(colors: Colors) -> QPalette:
    role = QPalette.ColorRole
    palette = QPalette()
    for target, color in {
        role.Window: colors.window,
        role.WindowText: colors.text,
        role.Base: colors.surface,
        role.AlternateBase: colors.window,
        role.Text: colors.text,
        role.PlaceholderText: colors.muted,
        role.Button: colors.surface if colors.is_dark else QColor("#fafbfc"),
        role.ButtonText: colors.text,
        role.BrightText: colors.alarm,
        role.ToolTipBase: colors.surface,
        role.ToolTipText: colors.text,
        role.Highlight: colors.accent,
        role.HighlightedText: colors.on_accent,
        role.Link: colors.accent,
        role.LinkVisited: colors.accent,
        role.Accent: colors.accent,
        role.Light: colors.surface.lighter(115),
        role.Midlight: colors.line,
        role.Mid: colors.line,
        role.Dark: colors.faint,
        role.Shadow: QColor("#000000"),
    }.items():
        palette.setColor(target, color)
    disabled = QPalette.ColorGroup.Disabled
    for target in (role.WindowText, role.Text, role.ButtonText):
        palette.setColor(disabled, target, colors.faint)
    palette.setColor(disabled, role.Base, colors.window)
    palette.setColor(disabled, role.Highlight, colors.line)
    return palette


def _style_sheet(colors: Colors, size: float) -> str:
    c = {name: getattr(colors, name).name() for name in Colors.__slots__ if name != "is_dark"}
    side = round(size * 1.3)
    return f"""
QLabel[role="muted"] {{ color: {c["muted"]}; font-size: {size * 0.92:.2f}pt; }}
QLabel[role="section"] {{ color: {c["text"]}; font-weight: 600; }}
QLabel[role="title"] {{ font-size: {size * 1.15:.2f}pt; font-weight: 600; }}
QLabel[role="number"] {{ font-size: {size * 0.95:.2f}pt; font-weight: 600; }}
QLabel[role="empty"] {{ color: {c["muted"]}; font-size: {size * 1.05:.2f}pt; }}
QLabel[role="note"] {{
    color: {c["text"]}; background: {c["accent_soft"]};
    border-left: 3px solid {c["accent"]}; padding: 5px 8px;
}}
QLabel[role="problem"] {{ color: {c["alarm"]}; }}
QFrame[role="card"] {{
    background: {c["surface"]}; border: 1px solid {c["line"]}; border-radius: 8px;
}}
QFrame[role="card"] QLabel {{ background: transparent; }}
QFrame[role="card"] QLabel[role="note"] {{ background: {c["accent_soft"]}; }}
QFrame[role="rule"] {{ background: {c["line"]}; border: none; max-height: 1px; }}
QFrame[role="alarm"] {{
    background: {c["alarm_soft"]}; border: 1px solid {c["alarm"]}; border-radius: 8px;
}}
QFrame[role="alarm"] QLabel {{ color: {c["text"]}; background: transparent; }}
QFrame[role="alarm"] QLabel[role="section"] {{ color: {c["alarm"]}; }}
QPlainTextEdit[role="answer"] {{
    background: {c["surface"]}; border: none; font-size: {size * 1.15:.2f}pt;
    selection-background-color: {c["accent"]}; selection-color: {c["on_accent"]};
}}
QPlainTextEdit[role="prompt"] {{
    background: {c["surface"]}; border: 1px solid {c["faint"]}; border-radius: 8px;
    padding: 4px; font-size: {size * 1.1:.2f}pt;
    selection-background-color: {c["accent"]}; selection-color: {c["on_accent"]};
}}
QPlainTextEdit[role="prompt"]:focus {{ border: 1px solid {c["accent"]}; }}
QPlainTextEdit[role="field"] {{
    background: {c["surface"]}; border-radius: 3px;
    border: 1px solid {c["faint"]};
    selection-background-color: {c["accent"]}; selection-color: {c["on_accent"]};
}}
QPlainTextEdit[role="field"]:focus {{ border: 1px solid {c["accent"]}; }}
QPlainTextEdit[role="field"]:disabled {{ background: {c["window"]}; color: {c["faint"]}; }}
QPushButton[role="primary"] {{
    background: {c["accent"]}; color: {c["on_accent"]}; border: 1px solid {c["accent"]};
    border-radius: 6px; padding: 7px 18px; font-weight: 600;
}}
QPushButton[role="primary"]:hover {{ background: {colors.accent.darker(108).name()}; }}
QPushButton[role="primary"]:pressed {{ background: {colors.accent.darker(120).name()}; }}
QPushButton[role="primary"]:focus {{ border: 1px solid {c["text"]}; }}
QPushButton[role="primary"]:disabled {{
    background: {c["line"]}; color: {c["muted"]}; border: 1px solid {c["line"]};
}}
QPushButton[role="plain"] {{
    background: {c["surface"]}; color: {c["text"]}; border: 1px solid {c["line"]};
    border-radius: 6px; padding: 7px 14px;
}}
QPushButton[role="plain"]:hover {{ background: {c["accent_soft"]}; }}
QPushButton[role="plain"]:focus {{ border: 1px solid {c["accent"]}; }}
QPushButton[role="plain"]:disabled {{ background: {c["window"]}; color: {c["faint"]}; }}
QPushButton[role="link"] {{
    background: transparent; color: {c["accent"]}; border: 1px solid transparent;
    border-radius: 4px; padding: 2px 4px; text-align: left;
}}
QPushButton[role="link"]:hover {{ background: {c["accent_soft"]}; }}
QPushButton[role="link"]:focus {{ border: 1px solid {c["accent"]}; }}
QPushButton[role="link"]:disabled {{ color: {c["muted"]}; }}
QPushButton[role="side"] {{
    background: {c["surface"]}; color: {c["text"]}; border: 1px solid {c["line"]};
    border-left: 4px solid {c["line"]}; border-radius: 4px; padding: 4px 6px; text-align: left;
}}
QPushButton[role="side"]:hover {{ background: {c["accent_soft"]}; }}
QPushButton[role="side"]:checked {{
    background: {c["accent_soft"]}; border-left: 4px solid {c["accent"]};
}}
QPushButton[role="side"]:focus {{ border: 1px solid {c["accent"]}; border-left-width: 4px; }}
QPushButton[role="mode"] {{
    background: transparent; color: {c["text"]}; border: 1px solid {c["line"]};
    border-radius: 6px; padding: 4px 10px;
}}
QPushButton[role="mode"]:hover {{ background: {c["accent_soft"]}; }}
QPushButton[role="mode"]:checked {{
    background: {c["accent_soft"]}; border: 1px solid {c["accent"]};
}}
QPushButton[role="mode"]:focus {{ border: 1px solid {c["text"]}; }}
QTabBar::tab {{
    background: {c["surface"]}; color: {c["text"]}; border: 1px solid {c["line"]};
    border-radius: 6px; padding: 3px 10px; margin-right: 4px;
}}
QTabBar::tab:hover {{ background: {c["accent_soft"]}; }}
QTabBar::tab:selected {{ background: {c["accent_soft"]}; border: 1px solid {c["accent"]}; }}
QTabBar::tab:disabled {{ color: {c["muted"]}; }}
QToolButton[role="tool"] {{
    background: transparent; border: 1px solid transparent; border-radius: 6px; padding: 4px;
}}
QToolButton[role="tool"]:hover, QToolButton[role="tool"]:checked {{
    background: {c["accent_soft"]};
}}
QToolButton[role="tool"]:focus {{ border: 1px solid {c["accent"]}; }}
QToolButton[role="tool"]::menu-indicator {{ image: none; }}
QFrame[role="rail"] {{ border: none; border-right: 1px solid {c["line"]}; }}
QToolButton[role="place"] {{
    background: transparent; color: {c["text"]}; border: 1px solid transparent;
    border-left: 3px solid transparent; padding: 6px 0; font-size: {size * 0.9:.2f}pt;
}}
QToolButton[role="place"]:hover {{ background: {c["accent_soft"]}; }}
QToolButton[role="place"]:checked {{
    background: {c["accent_soft"]}; border-left: 3px solid {c["accent"]};
}}
QToolButton[role="place"]:focus {{ border: 1px solid {c["accent"]}; border-left-width: 3px; }}
QToolButton[role="float"] {{
    background: {c["accent"]}; color: {c["on_accent"]}; border: none; border-radius: 6px;
    padding: 4px 10px;
}}
QRadioButton::indicator, QCheckBox::indicator {{
    width: {side}px; height: {side}px;
    background: {c["surface"]}; border: 1px solid {c["muted"]}; border-radius: 3px;
}}
QRadioButton::indicator {{ border-radius: {side // 2}px; }}
QRadioButton::indicator:checked, QCheckBox::indicator:checked {{
    background: {c["accent"]}; border: 1px solid {c["accent"]};
}}
QRadioButton::indicator:disabled, QCheckBox::indicator:disabled {{
    background: {c["line"]}; border: 1px solid {c["line"]};
}}
QScrollBar {{ background: transparent; border: none; margin: 0; }}
QScrollBar:vertical {{ width: 11px; }}
QScrollBar:horizontal {{ height: 11px; }}
QScrollBar::handle {{ background: {c["faint"]}; border-radius: 4px; margin: 2px; }}
QScrollBar::handle:vertical {{ min-height: 28px; }}
QScrollBar::handle:horizontal {{ min-width: 28px; }}
QScrollBar::handle:hover {{ background: {c["muted"]}; }}
QScrollBar::add-line, QScrollBar::sub-line {{ width: 0; height: 0; }}
QScrollBar::add-page, QScrollBar::sub-page {{ background: transparent; }}
QSplitter::handle {{ background: transparent; }}
QSplitter::handle:hover {{ background: {c["accent_soft"]}; }}
QScrollArea[role="sidebar"], QScrollArea[role="sidebar"] > QWidget > QWidget {{
    background: transparent; border: none;
}}
QStatusBar {{ border-top: 1px solid {c["line"]}; }}
QStatusBar::item {{ border: none; }}
QToolTip {{
    color: {c["text"]}; background: {c["surface"]}; border: 1px solid {c["line"]}; padding: 4px;
}}
"""
