"""The inspector in the window: what it shows, and what a person does with it."""

from __future__ import annotations

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QGuiApplication, QTextCursor
from PySide6.QtWidgets import QAbstractScrollArea, QApplication, QScrollArea, QWidget

from bh_studio.engine.protocol.events import ModelLoaded
from bh_studio.engine.protocol.requests import InspectToken, LoadModel
from bh_studio.engine.rules import parse_rule
from bh_studio.ui.compare.token_text import TokenText
from bh_studio.ui.inspector.token_inspector import HINT, TokenInspector
from bh_studio.ui.inspector.token_words import KEPT_NOTE
from bh_studio.ui.remembered import remember
from bh_studio.ui.state.inspection.level_scale import LevelScale
from bh_studio.ui.state.selection import Place
from bh_studio.ui.widgets.theme import DARK
from tests.fake_engine import FakeEngine
from tests.ui.conftest import Desk
from tests.ui.inspector.conftest import CUT, finished_run

WORDS = [" many", " words", " were", " said", " here", " today"]


def opened(desk: Desk, **wishes: object) -> TokenInspector:
    """The inspector of a finished run, with the last token of the last side."""
    finished_run(desk, WORDS, **wishes)  # type: ignore[arg-type]
    desk.window.actions_.inspector.trigger()
    settle(desk)
    return desk.page.inspector


def settle(desk: Desk) -> None:
    desk.qtbot.waitUntil(lambda: not desk.engine.has_files_left)
    desk.page.inspector.clock.flush()


def select(desk: Desk, side: int, token: int, layer: int | None = None) -> None:
    desk.session.selection.select(side, token, layer)
    settle(desk)


def cells(inspector: TokenInspector, column: int) -> list[str]:
    model = inspector.experts
    return [model.data(model.index(row, column)) for row in range(model.rowCount())]


def heads(inspector: TokenInspector) -> list[str]:
    model = inspector.experts
    wide = Qt.Orientation.Horizontal
    return [model.headerData(column, wide) for column in range(model.columnCount())]


def point_in(view: TokenText, token: int) -> QPoint:
    """A point inside the second letter of a token."""
    cursor = QTextCursor(view.document())
    cursor.setPosition(len("Once") + len("".join(WORDS[:token])) + 2)
    return view.cursorRect(cursor).center() - QPoint(2, 0)


def test_without_a_run_it_says_how_to_get_there(desk: Desk) -> None:
    desk.window.actions_.inspector.trigger()
    settle(desk)
    inspector = desk.page.inspector
    assert inspector.isVisible()
    assert inspector.message.text() == HINT
    assert inspector.header.title.text() == "Token inspector"
    assert desk.engine.files == []


def test_opening_it_selects_the_last_token_of_the_last_side(desk: Desk) -> None:
    inspector = opened(desk)
    assert desk.session.selection.place == Place(1, 5, None)
    assert inspector.header.title.text() == "Token 5 “ today”"
    assert inspector.header.identity.text() == f"id {sum(b' today')}"
    assert [button.text() for button in inspector.header.side_buttons[:2]] == ["A  8.00", "B  5.00"]
    assert inspector.header.side_buttons[1].isChecked()


def test_a_click_selects_and_marks_the_token_in_all_answers(desk: Desk) -> None:
    finished_run(desk, WORDS)
    panels = desk.page.answers.panels
    desk.qtbot.mouseClick(
        panels[0].text.viewport(), Qt.MouseButton.LeftButton, pos=point_in(panels[0].text, 2)
    )
    assert desk.session.selection.place == Place(0, 2, None)
    assert [panel.text.marked_token for panel in panels[:2]] == [2, 2]
    assert not desk.page.inspector.isVisible()
    assert not [body for body in desk.engine.files if isinstance(body, InspectToken)]


def test_what_is_dragged_over_is_selected_as_text_alone(desk: Desk) -> None:
    finished_run(desk, WORDS)
    view = desk.page.answers.panels[0].text
    left, port = Qt.MouseButton.LeftButton, view.viewport()
    desk.qtbot.mousePress(port, left, pos=point_in(view, 1))
    desk.qtbot.mouseMove(port, point_in(view, 3))
    desk.qtbot.mouseRelease(port, left, pos=point_in(view, 3))
    assert view.textCursor().hasSelection()
    assert desk.session.selection.place is None


def test_keys_walk_from_token_to_token_and_open_the_inspector(desk: Desk) -> None:
    finished_run(desk, WORDS)
    view = desk.page.answers.panels[1].text
    view.setFocus()
    cursor = view.textCursor()
    cursor.setPosition(len("Once") + 1)
    view.setTextCursor(cursor)
    desk.qtbot.keyClick(view, Qt.Key.Key_Return)
    assert desk.page.inspector.isVisible()
    assert desk.session.selection.place == Place(1, 0, None)
    desk.qtbot.keyClick(view, Qt.Key.Key_Right)
    desk.qtbot.keyClick(view, Qt.Key.Key_Right)
    desk.qtbot.keyClick(view, Qt.Key.Key_Left)
    assert desk.session.selection.place == Place(1, 1, None)
    desk.qtbot.keyClick(view, Qt.Key.Key_Left)
    desk.qtbot.keyClick(view, Qt.Key.Key_Left)
    assert desk.session.selection.place == Place(1, 0, None)


def test_enter_on_a_cell_of_a_chart_opens_the_inspector_and_the_space_bar_selects(
    desk: Desk,
) -> None:
    finished_run(desk, WORDS)
    plot = desk.heat_map.plot
    for key in (Qt.Key.Key_Right, Qt.Key.Key_Right, Qt.Key.Key_Up, Qt.Key.Key_Space):
        desk.qtbot.keyClick(plot, key)
    assert desk.session.selection.place == Place(1, 1, 1)
    assert not desk.window.actions_.inspector.isChecked()
    desk.qtbot.keyClick(plot, Qt.Key.Key_Right)
    desk.qtbot.keyClick(plot, Qt.Key.Key_Return)
    assert desk.session.selection.place == Place(1, 2, 1)
    assert desk.window.actions_.inspector.isChecked()
    assert desk.page.inspector.isVisible()
    settle(desk)
    assert desk.page.inspection.layer == 1


def test_a_cell_of_a_former_run_opens_nothing(desk: Desk) -> None:
    finished_run(desk, WORDS)
    desk.heat_map.is_live = False
    for key in (Qt.Key.Key_Right, Qt.Key.Key_Return):
        desk.qtbot.keyClick(desk.heat_map.plot, key)
    assert not desk.page.is_inspecting


def test_without_a_selection_the_arrows_move_the_text_s_own_cursor(desk: Desk) -> None:
    finished_run(desk, WORDS)
    view = desk.page.answers.panels[1].text
    view.setFocus()
    before = view.textCursor().position()
    desk.qtbot.keyClick(view, Qt.Key.Key_Right)
    assert view.textCursor().position() == before + 1
    assert desk.session.selection.place is None


def test_escape_and_the_button_close_it(desk: Desk) -> None:
    inspector = opened(desk)
    desk.qtbot.keyClick(desk.window, Qt.Key.Key_Escape)
    assert not inspector.isVisible()
    assert not desk.window.actions_.inspector.isChecked()
    desk.window.actions_.inspector.trigger()
    inspector.header.close_button.click()
    assert not inspector.isVisible()
    assert not desk.window.actions_.inspector.isChecked()


def test_closing_it_gives_the_keys_back_to_the_answer(desk: Desk) -> None:
    inspector = opened(desk)
    select(desk, 1, 2)
    inspector.what_if.box.setFocus()
    inspector.header.close_button.click()
    assert not inspector.isVisible()
    assert desk.window.focusWidget() is desk.second.text
    # Who is elsewhere stays there.
    desk.window.actions_.inspector.trigger()
    desk.page.prompt.editor.setFocus()
    desk.window.actions_.inspector.trigger()
    assert desk.window.focusWidget() is desk.page.prompt.editor


def test_the_header_leads_into_the_prompt_and_to_the_other_side(desk: Desk) -> None:
    inspector = opened(desk)
    select(desk, 1, 0)
    inspector.header.previous.click()
    settle(desk)
    assert inspector.header.title.text() == "Prompt token 1"
    assert inspector.header.identity.text() == ""
    inspector.header.previous.click()
    assert desk.session.selection.place == Place(1, -2, None)
    settle(desk)
    assert not inspector.header.previous.isEnabled()
    inspector.header.side_buttons[0].click()
    settle(desk)
    assert desk.session.selection.place == Place(0, -2, None)
    select(desk, 0, 5)
    assert not inspector.header.next.isEnabled()


def test_the_strip_shows_every_layer_and_chooses_one(desk: Desk) -> None:
    inspector = opened(desk)
    token = inspector.shown_token
    assert token is not None
    assert inspector.strip.shades.shape == (16, 64)
    x, _ = inspector.strip.border
    assert x[::2].tolist() == [layer.count + 0.5 for layer in token.layers]
    inspector.strip.plot.setFocus()
    for key in (Qt.Key.Key_Up, Qt.Key.Key_Up, Qt.Key.Key_Down):
        desk.qtbot.keyClick(inspector.strip.plot, key)
        settle(desk)
    assert desk.session.selection.place == Place(1, 5, 1)
    assert inspector.strip.framed_layer == 1
    assert inspector.figure.title == "Layer 1, t 0.04"
    expected = f"Layer 1, rank 1: expert {token.layers[1].experts[0]}, probability"
    assert inspector.strip.describe(1, 1).startswith(expected)


def test_the_table_says_which_sides_took_an_expert(desk: Desk) -> None:
    inspector = opened(desk)
    token = inspector.shown_token
    assert token is not None
    assert heads(inspector) == ["Rank", "Expert", "P", "A", "B"]
    for side, column in ((0, 3), (1, 4)):
        routed = desk.session.sides.runs[side].routed_experts
        assert routed is not None
        ran = set(routed[7, 0].tolist())
        taken = [int(expert) in ran for expert in token.layers[0].experts[:16]]
        assert cells(inspector, column) == ["●" if took else "·" for took in taken]
    inspector.figure.all.click()
    settle(desk)
    assert inspector.experts.rowCount() == 64
    assert cells(inspector, 1) == [str(expert) for expert in token.layers[0].experts]


def test_a_side_that_has_not_come_so_far_leaves_its_column_empty(desk: Desk) -> None:
    desk.engine.keeps_logits = True
    desk.page.settings_panel.show_sides((None, CUT))
    desk.page.prompt.set_prompt("Once")
    desk.window.actions_.run.trigger()
    for word in WORDS:
        desk.engine.token(0, word, 8)
    desk.engine.token(1, WORDS[0], 5)
    desk.window.actions_.inspector.trigger()
    select(desk, 0, 3)
    inspector = desk.page.inspector
    assert set(cells(inspector, 4)) == {""}
    assert inspector.header.side_buttons[1].text() == "B  none here"
    for word in WORDS[1:]:
        desk.engine.token(1, word, 5)
    desk.page.clock.flush()
    assert "●" in cells(inspector, 4)
    assert desk.page.answers.panels[1].text.marked_token == 3
    desk.engine.finish()


def test_copy_puts_the_table_on_the_clipboard(desk: Desk) -> None:
    inspector = opened(desk)
    inspector.copy_button.click()
    head, *rows = QGuiApplication.clipboard().text().splitlines()
    assert head == "Rank\tExpert\tP\tA\tB"
    assert len(rows) == 16
    token = inspector.shown_token
    assert token is not None
    rank, expert, probability, *_ = rows[0].split("\t")
    assert (int(rank), int(expert)) == (1, token.layers[0].experts[0])
    assert np.float32(probability) == token.layers[0].probabilities[0]


def test_what_else_each_side_could_have_said(desk: Desk) -> None:
    inspector = opened(desk)
    found = inspector.choices.candidates
    assert [(one.side, one.rank) for one in found if one.side == "A"][:2] == [("A", 1), ("A", 2)]
    chosen = [one for one in found if one.is_chosen]
    assert [(one.side, one.text) for one in chosen] == [("A", " today"), ("B", " today")]
    assert [one.probability for one in chosen] == pytest.approx([0.5, 0.5])
    assert all(one.text is None for one in found if not one.is_chosen)
    select(desk, 1, -1)
    assert not inspector.choice_view.isVisible()


def test_another_level_shows_what_it_changes_and_back_all_is_as_before(desk: Desk) -> None:
    inspector = opened(desk)
    stored = inspector.shown_token
    before = inspector.what_if.change.text()
    inspector.what_if.box.setValue(0.2)
    settle(desk)
    desk.qtbot.waitUntil(lambda: desk.page.inspection.run_mean is not None)
    settle(desk)
    assert inspector.shown_token is desk.page.inspection.what_if
    words = inspector.what_if.change.text()
    assert words.count("→") >= 2
    assert words.split("  ·  ")[2].startswith("run 5.00 → ")
    assert inspector.what_if.sentence.text() == KEPT_NOTE
    assert inspector.figure.title == "Layer 0, t 0.2"
    inspector.what_if.box.setValue(0.04)
    settle(desk)
    assert inspector.shown_token is stored
    assert inspector.what_if.change.text() == before
    assert "→" not in before


def test_the_slider_comes_back_to_the_stored_level_exactly(desk: Desk) -> None:
    level = 0.0412345678901234
    inspector = opened(desk, sides=(None, parse_rule(f"cut:{level}")))
    slider = inspector.what_if.slider
    stored = slider.value()
    tried = []
    for step in (stored + 100, stored):
        slider.setValue(step)
        tried.append(desk.page.inspection.level)
    for value in (0.2, round(level, 9)):
        inspector.what_if.box.setValue(value)
        tried.append(desk.page.inspection.level)
    assert tried == [inspector_level(inspector, stored + 100), None, 0.2, None]


def inspector_level(inspector: TokenInspector, step: int) -> float:
    """The level of a step of the slider."""
    token = inspector.shown_token
    assert token is not None
    assert token.rule is not None
    scores = np.stack([layer.scores for layer in token.layers])
    return LevelScale.of(token.rule, scores).level_at(step)


def test_buttons_give_the_level_to_the_next_run(desk: Desk) -> None:
    inspector = opened(desk)
    panel, tried = desk.page.settings_panel, parse_rule("cut:0.2")
    assert not inspector.what_if.use_button.isEnabled()
    inspector.what_if.box.setValue(0.2)
    settle(desk)
    assert inspector.what_if.use_button.text() == "Use 0.2 on side B"
    inspector.what_if.add_button.click()
    assert panel.sides() == (None, CUT, tried)
    inspector.what_if.use_button.click()
    assert panel.sides() == (None, tried, tried)
    assert panel.rule_form.rule() == tried
    panel.show_sides((None,))
    settle(desk)
    assert not inspector.what_if.use_button.isEnabled()
    panel.show_sides((None, CUT, tried, parse_rule("bh:0.05")))
    assert not inspector.what_if.add_button.isEnabled()


@pytest.mark.parametrize(
    ("side", "words"),
    [
        (0, "The model's own routing has no level: it takes 8 experts in every layer."),
        (1, "This rule has a level of its own for each layer, so there is no single one to try."),
    ],
)
def test_where_there_is_no_one_level_a_sentence_says_why(desk: Desk, side: int, words: str) -> None:
    of_layers = parse_rule("top-k:" + "/".join(["5"] * 16))
    inspector = opened(desk, sides=(None, of_layers))
    select(desk, side, 2)
    assert inspector.what_if.sentence.text() == words
    assert not inspector.what_if.slider.isVisible()


def test_an_answer_that_takes_long_is_waited_for_in_words(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspector = opened(desk)
    words = "Computing what was decided here…"
    with monkeypatch.context() as patch:
        patch.setattr(FakeEngine, "_do_file", lambda _engine: None)
        desk.session.selection.select(0, 5)
        assert inspector.strip.isVisible()
        assert inspector.message.text() != words
        desk.qtbot.waitUntil(lambda: inspector.message.text() == words)
        assert not inspector.strip.isVisible()
    desk.engine._do_file()
    settle(desk)
    assert inspector.strip.isVisible()


def test_without_logits_it_says_so_and_shows_what_there_is(desk: Desk) -> None:
    inspector = opened(desk, keeps_logits=False)
    assert "no router logits" in inspector.message.text()
    assert not inspector.strip.isVisible()
    assert inspector.header.title.text() == "Token 5 “ today”"


def test_it_opens_on_a_session_from_a_file(desk: Desk, tmp_path: pytest.TempPathFactory) -> None:
    finished_run(desk, WORDS)
    path = tmp_path / "one.bhsession"  # type: ignore[operator]
    assert desk.save(path)
    assert desk.open(path)
    desk.window.actions_.inspector.trigger()
    settle(desk)
    assert desk.page.inspector.shown_token is not None


def test_a_text_that_has_parted_says_so(desk: Desk) -> None:
    desk.engine.keeps_logits = True
    desk.page.settings_panel.show_sides((None, CUT))
    desk.page.prompt.set_prompt("Once")
    desk.window.actions_.run.trigger()
    for word in WORDS:
        desk.engine.token(0, word, 8)
        desk.engine.token(1, " other" if word == " were" else word, 5)
    desk.engine.finish()
    desk.window.actions_.inspector.trigger()
    settle(desk)
    header = desk.page.inspector.header
    assert header.parting.text() == "Another text than A's: B from token 2 on."
    select(desk, 1, 2)
    assert not header.parting.isVisible()


def test_the_difference_of_a_side_is_selected(desk: Desk) -> None:
    desk.engine.keeps_logits = True
    desk.page.settings_panel.show_sides((None, CUT))
    desk.page.prompt.set_prompt("Once")
    desk.window.actions_.run.trigger()
    for word in WORDS:
        desk.engine.token(0, word, 8)
        desk.engine.token(1, " other" if word == " were" else word, 5)
    desk.engine.finish()
    desk.settle()
    desk.page.answers.panels[1].difference.click()
    assert desk.session.selection.place == Place(1, 2, None)


def test_it_takes_the_theme_and_every_size_of_text(desk: Desk) -> None:
    inspector = opened(desk)
    before = inspector.width()
    desk.theme.set_text_percent(220)
    desk.qtbot.wait(20)
    assert inspector.width() > before
    desk.page.clock.flush()
    assert inspector.width() <= desk.page.width() * 0.42 + 1
    assert inspector.geometry().right() < desk.page.width()
    desk.theme.set_text_percent(100)
    assert (
        inspector.experts.data(inspector.experts.index(0, 0), Qt.ItemDataRole.BackgroundRole)
        == desk.theme.colors.accent_soft
    )
    assert desk.theme.colors is not DARK


def test_in_a_narrow_window_the_settings_make_room(desk: Desk) -> None:
    desk.window.resize(1024, 640)
    inspector = opened(desk)
    assert inspector.isVisible()
    assert not desk.page.settings_panel.isVisible()
    desk.window.actions_.inspector.trigger()
    assert desk.page.settings_panel.isVisible()


def test_the_settings_that_made_room_come_back_at_the_first_key(desk: Desk) -> None:
    desk.window.resize(1024, 640)
    opened(desk)
    panel, action = desk.page.settings_panel, desk.window.actions_.settings
    assert not action.isChecked()
    action.trigger()
    assert panel.isVisible()
    desk.window.resize(1030, 640)
    assert panel.isVisible()
    action.trigger()
    assert not panel.isVisible()


def test_settings_that_only_made_room_are_there_at_the_next_start(desk: Desk) -> None:
    desk.window.resize(1024, 640)
    opened(desk)
    assert remember(desk.window).settings_visible
    desk.window.actions_.inspector.trigger()
    assert desk.window.actions_.settings.isChecked()
    desk.window.actions_.settings.trigger()
    assert not remember(desk.window).settings_visible


def test_everything_that_takes_the_focus_has_a_name(desk: Desk) -> None:
    inspector = opened(desk)
    nameless = [
        widget
        for widget in inspector.findChildren(QWidget)
        if widget.focusPolicy() & Qt.FocusPolicy.TabFocus
        and widget.isVisible()
        and not (widget.accessibleName() or getattr(widget, "text", str)())
        and not isinstance(widget.parent(), QAbstractScrollArea)
    ]
    assert nameless == []


def test_a_token_stays_inspected_while_the_prompt_is_run_again(desk: Desk) -> None:
    words = [f" word{number}" if number % 9 else "\n" for number in range(1, 400)]
    finished_run(desk, words)
    select(desk, 1, 6, 3)
    page, inspector = desk.page, desk.page.inspector
    desk.window.actions_.inspector.trigger()
    settle(desk)
    assert page.inspection.token is not None
    page.settings_panel.show_sides((None, parse_rule("cut:0.1")))
    desk.window.actions_.run.trigger()
    desk.engine.begin()
    page.clock.flush()
    settle(desk)
    assert desk.session.selection.place == Place(1, 6, 3)
    waiting = "Waiting until side B comes to token 6."
    assert inspector.message.text() == waiting
    for index, word in enumerate(words):
        for side in (0, 1):
            desk.engine.token(side, word, 5 if side else 8)
        if index in (3, 6, 7, 300):
            page.clock.flush()
            QApplication.processEvents()
    settle(desk)
    shown = inspector.shown_token
    assert shown is not None
    assert shown.rule == parse_rule("cut:0.1")
    assert inspector.message.text() != waiting
    for panel in page.answers.shown:
        bar = panel.text.verticalScrollBar()
        assert panel.text.marked_token == 6
        # It is marked where it stands; what is written goes on being followed.
        assert panel.text.is_following
        assert bar.value() == bar.maximum() > 0


def test_what_was_looked_at_is_there_again_once_the_token_is(desk: Desk) -> None:
    inspector = opened(desk)
    QApplication.processEvents()
    area = inspector.findChild(QScrollArea)
    assert area is not None
    bar = area.verticalScrollBar()
    bar.setValue(bar.maximum() // 2)
    left = bar.value()
    assert left > 0
    inspector.what_if.box.setFocus()
    desk.window.actions_.run.trigger()
    desk.engine.begin()
    desk.page.clock.flush()
    settle(desk)
    QApplication.processEvents()
    assert inspector.message.text().startswith("Waiting")
    assert inspector.isAncestorOf(desk.window.focusWidget())
    for number in range(12):
        for side in (0, 1):
            desk.engine.token(side, f" word{number}", 5 if side else 8)
    desk.page.clock.flush()
    settle(desk)
    QApplication.processEvents()
    assert inspector.shown_token is not None
    assert bar.value() == left
    assert desk.window.focusWidget() is inspector.what_if.box


def test_texts_that_nobody_said_are_known_while_the_model_is_loaded(desk: Desk) -> None:
    words = tuple(f"<{number}>" for number in range(2000))
    desk.model.load("embedded")
    desk.engine.report(ModelLoaded(desk.engine.model, words), desk.engine.job_of(LoadModel))
    inspector = opened(desk)
    select(desk, 1, 0)
    texts = [candidate.text for candidate in inspector.choices.candidates]
    assert None not in texts
    inspector.header.previous.click()
    settle(desk)
    assert inspector.header.title.text() == "Prompt token 1 “<2>”"
    desk.model.unload()
    desk.engine.unload()
    select(desk, 1, 0)
    select(desk, 1, -1)
    assert inspector.header.title.text() == "Prompt token 1"
