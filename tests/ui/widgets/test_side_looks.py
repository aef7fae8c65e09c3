"""Sides are told apart in both themes, by every eye, and without colours."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PySide6.QtGui import QColor

from bh_studio.engine.rules.sides import MOST_SIDES
from bh_studio.ui.widgets.side_looks import SideLook, side_look
from bh_studio.ui.widgets.theme import DARK, LIGHT, Colors

# Machado, Oliveira and Fernandes (2009), full severity, on linear RGB.
_VISIONS = {
    "all colours": np.eye(3),
    "no red": np.array([
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ]),
    "no green": np.array([
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]),
    "no blue": np.array([
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ]),
}  # fmt: skip
_TO_XYZ = np.array([
    [0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
    [0.0193339, 0.1191920, 0.9503041],
])  # fmt: skip
_WHITE = np.array([0.95047, 1.0, 1.08883])


def linear(color: QColor) -> np.ndarray:
    rgb = np.array([color.redF(), color.greenF(), color.blueF()])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    parts = (_TO_XYZ @ rgb.clip(0, 1)) / _WHITE
    x, y, z = np.where(parts > 0.008856, np.cbrt(parts), 7.787 * parts + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: QColor, other: QColor) -> float:
    dark, light = sorted(float((_TO_XYZ @ linear(color))[1]) for color in (one, other))
    return (light + 0.05) / (dark + 0.05)


def looks(colors: Colors) -> list[SideLook]:
    own = side_look(0, True, colors)
    return [own, *(side_look(side, False, colors) for side in range(MOST_SIDES))]


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("vision", _VISIONS)
def test_colours_are_apart_for_every_eye(colors: Colors, vision: str) -> None:
    seen = [lab(_VISIONS[vision] @ linear(look.color)) for look in looks(colors)]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) >= 20


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_stand_out_of_their_ground(colors: Colors) -> None:
    assert min(contrast(look.color, colors.surface) for look in looks(colors)) >= 3.4


def test_no_two_sides_have_one_kind_of_line() -> None:
    assert len({look.line for look in looks(LIGHT)[1:]}) == MOST_SIDES


def test_own_routing_is_grey_wherever_it_stands() -> None:
    for side in range(MOST_SIDES):
        color = side_look(side, True, LIGHT).color
        assert color.hsvSaturation() < 40
        assert color != side_look(side, False, LIGHT).color
