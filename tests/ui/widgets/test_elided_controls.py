"""Controls that are narrower than their words say so with dots, and look as ever where they fit."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import pytest
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QComboBox, QPushButton, QWidget
from pytestqt.qtbot import QtBot

from bh_studio.ui.widgets.elided_controls import ElidedButton, ElidedComboBox
from bh_studio.ui.widgets.elided_label import ElidedLabel
from bh_studio.ui.widgets.part_line import PartLine
from bh_studio.ui.widgets.theme import Theme

WORDS = "Differs from A at 12345"


def button(kind: type[QPushButton], text: str) -> QWidget:
    result = kind()
    result.setText(text)
    result.setProperty("role", "link")
    return result


def choice(kind: type[QComboBox], text: str) -> QWidget:
    result = kind()
    result.addItem(text)
    return result


@pytest.mark.parametrize("width", [90, 400])
@pytest.mark.parametrize(
    ("make", "elided", "plain"),
    [(button, ElidedButton, QPushButton), (choice, ElidedComboBox, QComboBox)],
    ids=["button", "choice"],
)
def test_words_are_cut_with_dots(
    make: Callable[[type[QWidget], str], QWidget],
    elided: type[QWidget],
    plain: type[QWidget],
    width: int,
    qtbot: QtBot,
    theme: Theme,
) -> None:
    def picture(kind: type[QWidget], text: str) -> QImage:
        control = make(kind, text)
        qtbot.addWidget(control)
        control.setFixedSize(width, 30)
        control.show()
        return control.grab().toImage()

    seen = picture(elided, WORDS)
    texts = [WORDS, *(f"{WORDS[:letters]}…" for letters in range(3, len(WORDS)))]
    same = [text for text in texts if picture(plain, text) == seen]
    assert len(same) == 1
    assert same[0].endswith("…") is (width == 90)


def test_a_button_says_in_fewer_words_what_has_no_room(qtbot: QtBot, theme: Theme) -> None:
    control = ElidedButton()
    qtbot.addWidget(control)
    control.setText(WORDS)
    control.briefs = ("Differs at 12345", "at 12345")
    metrics = control.fontMetrics()
    for form in (WORDS, *control.briefs):
        assert control.fitted(metrics.horizontalAdvance(form)) == form
    # A number is there as a whole or not at all.
    assert control.fitted(metrics.horizontalAdvance("at 12345") - 1) == "at…"


@pytest.mark.parametrize(
    "text", ["perplexity 1234.567, 12.5 % higher", "p 4.5e-04, rank 1,234", "−12.5 nats", "12"]
)
def test_no_number_is_cut(text: str, qtbot: QtBot, theme: Theme) -> None:
    label = ElidedLabel("")
    qtbot.addWidget(label)
    metrics = label.fontMetrics()
    numbers = set(re.findall(r"[-−]?[\d.,]*\d(?:e-\d+)?", text))
    label.setText(text)
    assert label.fitted(metrics.horizontalAdvance(text)) == text
    for width in range(metrics.horizontalAdvance(text)):
        shown = label.fitted(width)
        assert shown != text
        assert metrics.horizontalAdvance(shown) <= max(width, metrics.horizontalAdvance("…"))
        assert set(re.findall(r"[-−]?[\d.,]*\d(?:e-\d+)?", shown)) <= numbers


def test_the_least_important_part_goes_first_and_none_is_cut(qtbot: QtBot, theme: Theme) -> None:
    line = PartLine("number")
    qtbot.addWidget(line)
    line.show_parts(
        (("5.69 ± 1.78 experts, 28.8 % fewer", "28.8 % fewer", 3), ("limits 0.3 %", "", 1),
         ("another at 6", "", 2)),
        ("B against A: ", "B: "),
    )  # fmt: skip
    metrics = line.fontMetrics()
    forms = [
        "B against A: 5.69 ± 1.78 experts, 28.8 % fewer · limits 0.3 % · another at 6",
        "B: 5.69 ± 1.78 experts, 28.8 % fewer · limits 0.3 % · another at 6",
        "B: 28.8 % fewer · limits 0.3 % · another at 6",
        "B: 28.8 % fewer · another at 6 …",
        "B: 28.8 % fewer …",
    ]
    assert line.text() == forms[0]
    for form, shorter in itertools.pairwise(forms):
        assert line.fitted(metrics.horizontalAdvance(form)) == form
        assert line.fitted(metrics.horizontalAdvance(form) - 1) == shorter
    assert line.fitted(metrics.horizontalAdvance("B: 28.8 ")) == "B:…"
    # What has room for one of them says that at length.
    line.show_parts((("5.69 experts, fewer", "fewer", 3), ("min_k decided 10.0 % of all", "", 1)))
    length = metrics.horizontalAdvance("5.69 experts, fewer …")
    assert line.fitted(length) == "5.69 experts, fewer …"
    assert line.fitted(length - 1) == "fewer …"
    line.show_parts(())
    assert line.fitted(100) == line.text() == ""


def test_a_line_is_painted_as_far_as_it_fits(qtbot: QtBot, theme: Theme) -> None:
    def picture(label: ElidedLabel) -> QImage:
        qtbot.addWidget(label)
        label.setFixedSize(150, 20)
        label.show()
        return label.grab().toImage()

    line, plain = PartLine("number"), ElidedLabel("number")
    line.show_parts((("12345.678 tok/s", "", 1), ("5.69 experts", "", 2)))
    plain.setText("5.69 experts …")
    assert picture(line) == picture(plain)


def test_an_elided_button_is_wide_where_there_is_room(qtbot: QtBot, theme: Theme) -> None:
    control = ElidedButton()
    qtbot.addWidget(control)
    control.setText(WORDS)
    words = control.fontMetrics().horizontalAdvance(WORDS)
    assert control.minimumSizeHint().width() < words / 2
    assert control.sizeHint().width() >= words
