"""Whatever the style sheet writes can be read, and what it draws can be seen, light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from PySide6.QtGui import QColor, QPalette

from bh_studio.ui.widgets import theme
from bh_studio.ui.widgets.theme import DARK, LIGHT, Colors
from tests.ui.state.test_expert_scale import contrast

# What the guidelines ask for (WCAG 2.2, 1.4.3 and 1.4.11); a control that is disabled is exempt.
READABLE, VISIBLE = 4.5, 3.0
BOTH = pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])


def rules(colors: Colors) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Each rule of the style sheet: its selector without a state, the state, what it sets."""
    sheet = theme._style_sheet(colors, 10.0)
    for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", sheet):
        values = dict(re.findall(r"([\w-]+):\s*([^;]+)", body))
        for selector in selectors.split(","):
            parts = re.fullmatch(r"((?:(?!:)|::).*?)(?<!:)(?::(?!:)(.*))?", selector.strip())
            assert parts is not None
            if "disabled" not in (state := parts[2] or ""):
                yield parts[1], state, values


def faint_texts(colors: Colors) -> list[tuple[str, str, str, float]]:
    """Selector, ink, ground and contrast of what cannot be read."""
    base = {name: values for name, state, values in rules(colors) if not state}
    found = []
    for name, state, values in rules(colors):
        own = {**base.get(name, {}), **values}
        ink = QColor(own.get("color", colors.text.name()))
        ground = own.get("background", "transparent")
        grounds = [QColor(ground)]
        if ground == "transparent":
            grounds = [colors.window, colors.surface]
        for one in grounds:
            if (ratio := contrast(ink, one)) < READABLE:
                found.append((f"{name}:{state}", ink.name(), one.name(), round(ratio, 2)))
        selected = own.get("selection-color"), own.get("selection-background-color")
        if selected[0] and selected[1]:
            assert contrast(QColor(selected[0]), QColor(selected[1])) >= READABLE
    return found


@BOTH
def test_text_of_every_role_is_readable(colors: Colors) -> None:
    texts = [
        fault
        for fault in faint_texts(colors)
        # These have no words.
        if not re.search(r"::|indicator|QScrollBar|QSplitter|rule", fault[0])
    ]
    assert texts == []


@BOTH
def test_text_of_the_palette_is_readable(colors: Colors) -> None:
    palette, role = theme._palette(colors), QPalette.ColorRole
    for ink, ground in (
        (role.WindowText, role.Window),
        (role.Text, role.Base),
        (role.Text, role.AlternateBase),
        (role.ButtonText, role.Button),
        (role.PlaceholderText, role.Base),
        (role.ToolTipText, role.ToolTipBase),
        (role.HighlightedText, role.Highlight),
        (role.Link, role.Base),
        (role.Link, role.Window),
        (role.BrightText, role.Window),
    ):
        assert contrast(palette.color(ink), palette.color(ground)) >= READABLE, (ink, ground)


@BOTH
@pytest.mark.parametrize(
    ("ink", "grounds"),
    [
        # Charts and numbers are on cards, words between them on the window.
        ("text", ("window", "surface", "accent_soft", "alarm_soft", "found")),
        ("muted", ("window", "surface", "accent_soft")),
        ("accent", ("window", "surface", "accent_soft")),
        ("alarm", ("window", "surface", "alarm_soft")),
        ("on_accent", ("accent",)),
        # The match that is gone to.
        ("surface", ("text",)),
    ],
)
def test_what_is_painted_by_hand_is_readable(
    colors: Colors, ink: str, grounds: tuple[str, ...]
) -> None:
    for ground in grounds:
        assert contrast(getattr(colors, ink), getattr(colors, ground)) >= READABLE, ground


@BOTH
def test_marks_and_what_is_typed_into_stand_out(colors: Colors) -> None:
    seen = 0
    for name, state, values in rules(colors):
        edge = re.search(r"#\w{6}", values.get("border", ""))
        if edge and (name.startswith("QPlainTextEdit") or "indicator" in name):
            inks = [edge[0]]
        elif name == "QScrollBar::handle" and "background" in values:
            inks = [values["background"]]
        elif left := re.search(r"#\w{6}", values.get("border-left", "")):
            inks = [left[0]] if "checked" in state else []
        else:
            continue
        for ink in inks:
            seen += 1
            for ground in (colors.window, colors.surface):
                assert contrast(QColor(ink), ground) >= VISIBLE, (name, state, ink, ground.name())
    assert seen >= 8
    for ground in (colors.window, colors.surface):
        # What has the focus, a line that stands for a value, what no expert ever did.
        for mark in (colors.accent, colors.muted, colors.alarm, colors.faint):
            assert contrast(mark, ground) >= VISIBLE
