"""What the bottom line of the window says about the loaded model."""

from __future__ import annotations

import dataclasses

import pytest
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from bh_studio.ui.state.words import describe_model
from bh_studio.ui.status_line import StatusLine
from tests.fake_engine import MODEL


@pytest.mark.parametrize("decode_path", ["own forward on the CPU", ""])
def test_the_tooltip_says_what_computes_experts_and_tokens(decode_path: str, qtbot: QtBot) -> None:
    line = StatusLine()
    qtbot.addWidget(line)
    model = dataclasses.replace(MODEL, decode_path=decode_path)
    line.show_model(model)
    (label,) = (each for each in line.findChildren(QLabel) if each.text() == describe_model(model))
    assert f"Experts computed by: {MODEL.expert_path}" in label.toolTip()
    assert "context of 1,024 tokens" in label.toolTip()
    # Nothing is said where nothing is known.
    assert (f"Tokens after the prompt by: {decode_path}" in label.toolTip()) is bool(decode_path)
    assert ("after the prompt" in label.toolTip()) is bool(decode_path)
