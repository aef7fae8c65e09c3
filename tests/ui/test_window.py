"""The window as a whole: controls, parameters, numbers, errors, text size, endurance."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLineEdit,
    QPlainTextEdit,
    QScrollBar,
    QTextEdit,
    QWidget,
)
from pytestqt.qtbot import QtBot

from bh_studio import paths
from bh_studio.engine.protocol.events import Notice
from bh_studio.engine.records.decisions.drift import Drift
from bh_studio.engine.records.runs.reader import load_run
from bh_studio.engine.records.terms import (
    Conversation,
    FinishReason,
    GenerationParameters,
    ModelInfo,
)
from bh_studio.engine.rules.parameters import MixingWeights, Mode, RuleParameters
from bh_studio.settings import Settings
from bh_studio.ui.main_window import MainWindow
from bh_studio.ui.remembered import remember
from bh_studio.ui.state.run_sides import ANALYZE_NOTE
from bh_studio.ui.state.session_model import RunState
from bh_studio.ui.widgets.theme import DARK, LIGHT
from tests.fake_engine import CHAT_MODEL, MODEL
from tests.ui.conftest import Desk

SHORTAGE = (
    "The null holds 112000 scores a layer, so no p-value is below 8.9e-06; a single expert would "
    "need 1.6e-06 at alpha 0.0001. Calibrate on a longer text or raise it."
)


def enabled(window: MainWindow) -> dict[str, bool]:
    actions = window.actions_
    return {
        "run": actions.run.isEnabled(),
        "run button": window.compare.prompt.run_button.isEnabled(),
        "stop": actions.stop.isEnabled(),
        "stop button": window.compare.prompt.stop_button.isEnabled(),
        "save": actions.save.isEnabled(),
        "export": actions.export_json.isEnabled(),
        "open": actions.open.isEnabled(),
        "load": actions.load_folder.isEnabled(),
    }


def flags(text: str) -> dict[str, bool]:
    names = ("run", "run button", "stop", "stop button", "save", "export", "open", "load")
    return dict(zip(names, (letter == "1" for letter in text), strict=True))


def test_enabled_controls_in_every_state(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    window, page = desk.window, desk.page
    page.prompt.set_prompt("Once")
    assert enabled(window) == flags("00000011")
    desk.model.load("embedded")
    assert enabled(window) == flags("11110010")
    desk.engine.finish_load()
    assert enabled(window) == flags("11000011")
    desk.start()
    assert enabled(window) == flags("00110000")
    desk.say([" a"])
    window.actions_.stop.trigger()
    assert desk.session.state is RunState.CANCELLING
    assert enabled(window) == flags("00000000")
    desk.engine.finish(FinishReason.STOPPED)
    assert enabled(window) == flags("11001111")


def test_run_and_stop_by_keyboard(desk: Desk, qtbot: QtBot) -> None:
    window, page = desk.window, desk.page
    page.prompt.set_prompt("Once")
    window.activateWindow()
    page.prompt.editor.setFocus()
    qtbot.waitUntil(page.prompt.editor.hasFocus)
    qtbot.keyClick(page.prompt.editor, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    assert desk.session.state is RunState.RUNNING
    assert desk.engine.run.prompt == "Once"
    qtbot.keyClick(page.prompt.editor, Qt.Key.Key_Escape)
    assert desk.engine.is_run_cancelled


def test_what_run_waits_for_is_said(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    window, page = desk.window, desk.page
    assert "No model is loaded" in page.obstacle()
    desk.model.load("embedded")
    assert page.obstacle() == "Type a prompt first."
    desk.engine.finish_load()
    page.prompt.set_prompt("  \n")
    assert page.obstacle() == "Type a prompt first."
    assert window.status.stage == "Type a prompt first."
    page.prompt.set_prompt("Once")
    assert page.obstacle() == ""
    page.settings_panel.rule_form.min_k.setValue(9)
    assert page.obstacle() == "min_k must not exceed max_k; got min_k=9, max_k=8."
    assert page.prompt.run_button.toolTip() == page.obstacle()
    assert not page.prompt.run_button.isEnabled()
    page.start()
    assert not desk.session.is_busy
    page.settings_panel.rule_form.max_k.setValue(65)
    assert page.obstacle() == "max_k must not exceed the 64 experts of a layer; got 65."


def test_loading_is_shown(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk()
    desk.model.load("embedded")
    desk.engine.progress("Reading weights", 0.25)
    assert desk.window.status.stage == "Reading weights"
    assert desk.window.status.progress_range == (250, 1000)
    desk.engine.progress("Starting PyTorch")
    assert desk.window.status.progress_range == (0, 0)
    desk.window.actions_.stop.trigger()
    assert desk.window.status.stage == "Cancelling the load…"
    desk.engine.cancel_load()
    assert desk.window.status.model_text == "No model"
    desk.load()
    assert desk.window.status.model_text == (
        "olmoe-nano  ·  11.2 M parameters  ·  16 layers × 64 experts, top-8  ·  float32 on cpu"
    )
    desk.engine.progress("late")
    assert desk.model.load_progress is None


_ODD_TEXT = "It is 10\u00a0km\r\nto\u2028the\u2029farm.\r\u00a0"


def test_a_prompt_reaches_the_engine_as_it_is(
    make_desk: Callable[..., Desk], tmp_path: Path
) -> None:
    desk = make_desk(show=True)
    desk.load()
    assert desk.start(_ODD_TEXT).prompt == _ODD_TEXT
    session = desk.engine.finish()
    assert desk.save(tmp_path / "odd.bhsession")
    desk.page.prompt.set_prompt("")
    assert desk.open(tmp_path / "odd.bhsession")
    assert session.prompt == desk.page.prompt.prompt == _ODD_TEXT
    other = make_desk(remember(desk.window))
    assert other.page.prompt.prompt == _ODD_TEXT


def test_a_system_prompt_reaches_the_engine_as_it_is(chat_desk: Desk) -> None:
    chat_desk.page.settings_panel.conversation.show_system(_ODD_TEXT)
    conversation = chat_desk.start("Where?").conversation
    assert isinstance(conversation, Conversation)
    assert conversation.system == _ODD_TEXT


def test_half_a_character_is_refused_before_it_is_asked_for(chat_desk: Desk) -> None:
    page = chat_desk.page
    page.prompt.set_prompt("a \ud800 b")
    assert page.obstacle().startswith("The message has half a character in it")
    page.prompt.set_prompt("Where?")
    assert page.obstacle() == ""
    page.settings_panel.conversation.show_system("\udc00")
    assert page.obstacle().startswith("The system prompt has half a character in it")
    assert not chat_desk.window.actions_.run.isEnabled()
    page.settings_panel.conversation.show_choice(is_chat=False)
    assert page.obstacle() == ""


@pytest.mark.parametrize("weights", list(MixingWeights))
def test_every_way_of_mixing_can_be_chosen(desk: Desk, weights: MixingWeights) -> None:
    sides = (None, RuleParameters(weights=weights))
    desk.page.settings_panel.show_sides(sides)
    assert desk.page.settings_panel.sides() == sides


def test_parameters_reach_the_engine(desk: Desk) -> None:
    rule = RuleParameters(
        level=0.005,
        temperature=1.5,
        min_k=2,
        max_k=16,
        mode=Mode.ANALYZE,
        weights=MixingWeights.RENORMALIZE,
    )
    generation = GenerationParameters(
        max_new_tokens=7, sampling=True, temperature=0.7, top_p=0.9, seed=2**62
    )
    request = desk.start("Once", rule, generation)
    assert request.sides == (None, rule)
    assert request.generation == generation


@pytest.mark.parametrize(
    ("typed", "value"),
    [("0.005", 0.005), ("0,005", 0.005), ("0.0001", 0.0001), ("0.9999", 0.9999), (".25", 0.25)],
)
def test_alpha_is_typed_as_researchers_type_it(
    desk: Desk, qtbot: QtBot, typed: str, value: float
) -> None:
    box = desk.page.settings_panel.rule_form.level
    box.setFocus()
    box.selectAll()
    qtbot.keyClicks(box, typed)
    assert box.value() == value
    box.setValue(value)
    assert box.text() == f"{value:g}"


def test_alpha_steps_along_round_values(desk: Desk) -> None:
    box = desk.page.settings_panel.rule_form.level
    box.setValue(0.005)
    seen = []
    for step in (1, 1, 1, -1, -1, -1, -1):
        box.stepBy(step)
        seen.append(box.value())
    assert seen == [0.01, 0.02, 0.05, 0.02, 0.01, 0.005, 0.002]
    box.setValue(0.03)
    box.stepBy(-1)
    assert box.value() == 0.02
    box.setValue(0.9999)
    box.stepBy(5)
    assert box.value() == 0.9999


def test_sampling_controls_rest_under_greedy(desk: Desk) -> None:
    panel = desk.page.settings_panel
    controls = (panel.sampling_temperature, panel.top_p, panel.seed, panel.new_seed)
    panel.decoding.set_value("greedy")
    assert not any(control.isEnabled() for control in controls)
    panel.decoding.set_value("sampling")
    assert all(control.isEnabled() for control in controls)
    panel.seed.setText("")
    assert panel.problem == "The seed is empty; type a whole number."
    panel.new_seed.click()
    assert panel.problem == ""


def test_numbers_on_screen_are_those_of_the_session(desk: Desk) -> None:
    session = desk.finished_run(40)
    page = desk.page
    bh, baseline = session.records[1], session.records[0]
    answer = bh.statistics()["answer"]
    assert desk.second.numbers.values["Tokens"] == "40 tok"
    assert desk.second.numbers.values["Mean experts"] == f"{answer['mean']:.2f} experts"
    assert desk.first.numbers.values["Mean experts"] == "8.00 experts"
    assert desk.second.numbers.values["Speed"] == f"{bh.tokens_per_second:.1f} tok/s"
    assert desk.second.numbers.values["First token"] == "first 50 ms"
    assert desk.second.numbers.values["Status"] == "Token limit"
    assert bh.tokens_per_second is not None
    assert baseline.tokens_per_second is not None
    assert page.differences.lines[0].text() == (
        f"B against A: {answer['mean']:.2f} ± {answer['std']:.2f} experts, "
        f"{(1 - answer['mean'] / 8) * 100:.1f} % fewer · "
        f"min_k decided {answer['share_clamped_min'] * 100:.1f} %, "
        f"max_k {answer['share_clamped_max'] * 100:.1f} % · another token at 5 · "
        f"{bh.tokens_per_second / baseline.tokens_per_second:.1f} × the speed"
    )
    _, beside = desk.layers.shown.written
    assert desk.layers.heights(beside) == pytest.approx(answer["per_layer_mean"])
    assert desk.layers.reference == 8
    assert (desk.heat_map.shown_cells == bh.expert_counts).all()


def test_nothing_is_shown_before_there_is_a_number(desk: Desk) -> None:
    page = desk.page
    desk.start("Once")
    page.clock.flush()
    assert desk.second.numbers.values["Tokens"] == "0 of 128"
    assert desk.second.numbers.values["Status"] == "Reading"
    assert {
        desk.second.numbers.values["Speed"],
        desk.second.numbers.values["Mean experts"],
    } == {""}
    assert page.differences.lines[0].text() == "B against A"
    desk.say([" a"])
    assert desk.second.numbers.values["Status"] == "Writing"
    assert desk.second.numbers.values["Speed"] == ""


def test_the_first_difference_is_shown_in_both_panels(desk: Desk, qtbot: QtBot) -> None:
    desk.start("Once")
    desk.say([" a", " b"])
    assert desk.second.difference.text() == "As A for 2 tokens"
    assert not desk.second.difference.isEnabled()
    desk.say([" c"] * 900, [" c", " d"] + [" c"] * 898)
    assert desk.second.difference.text() == "Differs from A at 3"
    # The number stays where the words have too little room.
    assert desk.second.difference.briefs == ("Differs at 3", "at 3")
    assert desk.first.difference.isHidden()
    qtbot.mouseClick(desk.second.difference, Qt.MouseButton.LeftButton)
    for panel in (desk.first, desk.second):
        assert panel.text.marked_token == 3
        assert not panel.text.is_following
        assert panel.text.verticalScrollBar().value() < panel.text.verticalScrollBar().maximum()


def test_analyze_mode_says_what_it_is(desk: Desk) -> None:
    page = desk.page
    desk.start("Once", RuleParameters(mode=Mode.ANALYZE))
    desk.say([" a", " b"])
    assert desk.second.note == ANALYZE_NOTE.format("BH")
    assert desk.first.note == ""
    assert all("B (counted only)" in slot.readout for slot in desk.slots)
    desk.say([" c", " d"])
    line = page.differences.lines[0].text()
    assert "experts, counted, " in line
    assert "speed" not in line
    assert desk.second.numbers.values["Mean experts"].endswith(" counted")
    assert desk.first.numbers.values["Mean experts"] == "8.00 experts"
    assert "counted only" in desk.second.text.describe(0)
    assert "counted only" not in desk.first.text.describe(0)
    desk.engine.finish()
    desk.start("Once")
    page.clock.flush()
    assert desk.second.note == ""


def test_hovering_a_token_frames_its_column(desk: Desk) -> None:
    desk.start("Once")
    desk.say([" a", " b"])
    desk.second.text.token_hovered.emit(1)
    assert desk.heat_map.framed_token == 1
    desk.second.text.token_hovered.emit(-1)
    assert desk.heat_map.framed_token is None


def test_what_should_be_known_of_a_run_is_under_its_numbers(desk: Desk) -> None:
    desk.window.resize(1024, 640)
    strip = desk.page.differences
    desk.start("Once")
    desk.say([" upon"])
    QApplication.processEvents()
    heights = [desk.second.text.height()]
    desk.engine.report(Notice(SHORTAGE))
    desk.page.clock.flush()
    QApplication.processEvents()
    heights.append(desk.second.text.height())
    assert strip.notice.isVisible()
    assert strip.notice.text() == SHORTAGE
    assert all(word in strip.notice.toolTip() for word in SHORTAGE.split())
    # The answers keep their lines, and the window its size: the charts give way.
    assert heights[1] >= min(heights[0], 3 * desk.page.fontMetrics().lineSpacing())
    assert desk.window.size() == QSize(1024, 640)
    assert desk.window.minimumSizeHint().height() <= 640
    desk.engine.finish()
    desk.start("Twice")
    desk.page.clock.flush()
    assert not strip.notice.isVisible()


def test_a_text_unlike_the_nulls_is_told_under_its_numbers(desk: Desk) -> None:
    desk.window.resize(1024, 640)
    strip, layers = desk.page.differences, desk.engine.model.layers
    desk.start("Once")
    desk.say([" upon"])
    for side in desk.engine.sides.values():
        side.drift = Drift(200, 0.4, 0.2, (0.1,) * layers, (0.6,) * layers)
    assert not strip.notice.isVisible()
    desk.engine.report(Notice(SHORTAGE))
    desk.engine.finish()
    desk.settle()
    assert strip.notice.isVisible()
    assert strip.notice.text().startswith(f"{SHORTAGE}  This text is unlike the one the null was")
    assert "bh-studio evaluate" in strip.notice.toolTip()
    assert desk.window.size() == QSize(1024, 640)
    desk.start("Twice")
    desk.page.clock.flush()
    assert not strip.notice.isVisible()


def test_a_failure_is_shown_copied_and_dismissed(desk: Desk, qtbot: QtBot) -> None:
    errors = desk.window.errors
    desk.start("Once")
    desk.say([" a"])
    failure = desk.engine.fail("<b>Out</b> of memory.")
    desk.page.clock.flush()
    assert errors.isVisible()
    assert errors.failure == failure
    assert desk.second.numbers.values["Status"] == "Failed"
    assert desk.second.text.toPlainText() == "Once a"
    qtbot.mouseClick(errors.details_button, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(errors.copy_button, Qt.MouseButton.LeftButton)
    copied = QApplication.clipboard().text()
    assert all(part in copied for part in (failure.message, failure.advice, failure.details))
    qtbot.mouseClick(errors.dismiss_button, Qt.MouseButton.LeftButton)
    assert not errors.isVisible()
    assert desk.page.prompt.run_button.isEnabled()


def test_closing_during_a_run_keeps_what_was_written(desk: Desk) -> None:
    desk.engine.history = paths.history_dir()
    desk.start("Once")
    desk.say([" a"])
    for _ in range(3):
        desk.window.close()
        assert desk.window.isVisible()
    assert desk.engine.is_run_cancelled
    desk.engine.finish(FinishReason.STOPPED)
    assert not desk.window.isVisible()
    (folder,) = paths.history_dir().glob("*/*/*")
    assert load_run(folder).records[1].finish_reason is FinishReason.STOPPED


def test_text_size_is_changed_and_kept_in_bounds(desk: Desk) -> None:
    actions, theme = desk.window.actions_, desk.theme
    before = theme.point_size
    actions.enlarge.trigger()
    QApplication.processEvents()
    assert theme.point_size > before
    assert desk.page.prompt.editor.font().pointSizeF() > before
    actions.reset_text.trigger()
    QApplication.processEvents()
    assert theme.point_size == before
    assert desk.page.prompt.editor.font().pointSizeF() < 1.2 * before
    for _ in range(50):
        actions.shrink.trigger()
    assert theme.text_percent == 70


def test_steps_of_the_text_size_that_come_together_are_taken_at_once(desk: Desk) -> None:
    actions, theme = desk.window.actions_, desk.theme
    changes: list[int] = []
    theme.changed.connect(lambda: changes.append(theme.text_percent))
    for _ in range(4):
        actions.enlarge.trigger()
    actions.shrink.trigger()
    assert changes == []
    # What is remembered is what was asked for, on screen or not.
    assert remember(desk.window).text_percent == 130
    QApplication.processEvents()
    assert changes == [130]
    editor = desk.page.prompt.editor
    large = editor.font().pointSizeF()
    actions.enlarge.trigger()
    actions.shrink.trigger()
    QApplication.processEvents()
    assert changes == [130]
    actions.enlarge.trigger()
    theme.set_text_percent(100)
    assert changes == [130, 100]
    assert editor.font().pointSizeF() < large
    QApplication.processEvents()
    assert changes == [130, 100]


def test_light_and_dark_switch_while_running(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.finished_run()
    for scheme in (Qt.ColorScheme.Dark, Qt.ColorScheme.Light, Qt.ColorScheme.Dark):
        wanted = DARK if scheme is Qt.ColorScheme.Dark else LIGHT
        monkeypatch.setattr(desk.theme, "_system_colors", lambda wanted=wanted: wanted)
        desk.theme.follow_system()
        colors = desk.theme.colors
        assert colors.is_dark == (scheme is Qt.ColorScheme.Dark)
        assert desk.window.palette().window().color() == colors.window
        assert desk.heat_map.plot.backgroundBrush().color() == colors.surface
        desk.window.grab()


def interactive(window: QWidget) -> Iterator[QWidget]:
    kinds = (QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit, QPlainTextEdit, QScrollBar)
    for widget in window.findChildren(QWidget):
        parent = widget.parentWidget()
        inside = isinstance(parent, QAbstractSpinBox | QComboBox) or "qt_" in widget.objectName()
        # Qt's own parts of a control speak through the control.
        is_qt_part = inside or type(widget).__name__ in ("QListView", "QMenu", "QMenuBar")
        is_scroll_part = isinstance(widget, QScrollBar) and "qt_" in (
            parent.objectName() if parent else ""
        )
        if isinstance(widget, kinds) and not is_qt_part and not is_scroll_part:
            yield widget


@pytest.mark.parametrize("model", [MODEL, CHAT_MODEL], ids=lambda model: model.name)
def test_every_control_has_a_name_and_a_tooltip(
    make_desk: Callable[..., Desk], model: ModelInfo
) -> None:
    desk = make_desk(show=True, answering=model)
    desk.load()
    desk.finished_run()
    window, page = desk.window, desk.page
    controls = [*interactive(window), desk.heat_map.plot, desk.layers.plot]
    assert len(controls) > 20
    # What tells about what is under the pointer does not tell about itself.
    texts = [panel.text for panel in page.answers.panels]
    texts += [desk.heat_map.plot, desk.layers.plot]
    # A button is called by its text, where it has no other name.
    nameless = [
        type(control).__name__
        for control in controls
        if not (
            control.accessibleName() or (isinstance(control, QAbstractButton) and control.text())
        )
    ]
    silent = [
        control.accessibleName()
        for control in controls
        if not control.toolTip() and control not in texts
    ]
    assert nameless == []
    assert silent == []
    for action in window.actions():
        assert action.toolTip(), action.text()


def test_tab_moves_from_the_prompt_to_run(desk: Desk) -> None:
    widget: QWidget | None = desk.page.prompt.editor
    reached = []
    for _ in range(12):
        assert widget is not None
        widget = widget.nextInFocusChain()
        if widget is not None and widget.focusPolicy() & Qt.FocusPolicy.TabFocus:
            reached.append(widget)
    assert reached[:2] == [
        desk.page.prompt.run_button,
        desk.page.prompt.stop_button,
    ]


def test_examples_are_offered_for_an_empty_prompt(desk: Desk) -> None:
    prompt = desk.page.prompt
    assert prompt.examples.isVisible()
    prompt.examples.menu().actions()[0].trigger()
    assert prompt.prompt
    assert not prompt.examples.isVisible()
    prompt.editor.undo()
    assert prompt.prompt == ""


def test_the_window_remembers(make_desk: Callable[..., Desk]) -> None:
    first = make_desk(show=True)
    first.load()
    first.start("Remember me", RuleParameters(level=0.001, max_k=12))
    first.window.actions_.settings.setChecked(False)
    settings = remember(first.window)
    second = make_desk(settings)
    assert second.window.compare.prompt.prompt == "Remember me"
    assert second.window.compare.settings_panel.sides()[1:] == (
        RuleParameters(level=0.001, max_k=12),
    )
    assert second.window.compare.settings_panel.isHidden()


@pytest.mark.parametrize(
    "settings",
    [
        Settings(rule={"level": 7}, generation={"seed": "x"}),
        Settings(rule={"level": "0.1"}),
        Settings(rule={"nonsense": 1}),
        Settings(sides=("own", "bh:7")),
        Settings(sides=("own", "own")),
        Settings(sides=("own", "bh", "cut:0.1", "cut:0.2", "cut:0.3")),
        Settings(sides=("whatever",)),
        Settings(geometry="not base 64", splitters={"rows": [1, 2, 3]}),
    ],
)
def test_wrong_memories_fall_back(make_desk: Callable[..., Desk], settings: Settings) -> None:
    panel = make_desk(settings).window.compare.settings_panel
    assert panel.sides()[1] == RuleParameters()
    assert panel.generation() == GenerationParameters()


def test_a_number_beyond_a_box_is_its_limit(desk: Desk) -> None:
    panel = desk.page.settings_panel
    panel.show_generation(GenerationParameters(max_new_tokens=10**30))
    assert panel.generation().max_new_tokens == panel.max_new_tokens.maximum()


def test_help_opens_beside_the_window(desk: Desk, qtbot: QtBot) -> None:
    from bh_studio.ui.help_dialogs import TextDialog

    desk.window.actions_.reading.trigger()
    desk.window.actions_.about.trigger()
    dialogs = desk.window.findChildren(TextDialog)
    assert len(dialogs) == 2
    for dialog in dialogs:
        assert not dialog.isModal()
        dialog.close()


@pytest.mark.slow
def test_nothing_piles_up_over_five_hundred_repaints(desk: Desk) -> None:
    desk.start("Once", generation=GenerationParameters(max_new_tokens=500))
    page = desk.page
    items = len(desk.heat_map.plot.getPlotItem().items)
    for number in range(500):
        desk.engine.token(0, f" w{number % 97}", 8)
        desk.engine.token(1, f" w{number % 89}", *desk.engine.random_counts())
        page.clock.flush()
        QApplication.processEvents()
    desk.engine.finish()
    page.clock.flush()
    assert desk.second.text.token_count == 500
    assert page.clock.is_idle
    assert len(desk.heat_map.plot.getPlotItem().items) == items
    assert desk.second.numbers.values["Tokens"] == "500 tok"


def test_nothing_speaks_of_two_sides(chat_desk: Desk) -> None:
    window = chat_desk.window
    window.actions_.reading.trigger()
    chat_desk.load()
    said = {action.toolTip() for action in window.actions()}
    for widget in window.findChildren(QWidget):
        said |= {widget.toolTip(), widget.accessibleDescription()}
        if isinstance(widget, QTextEdit | QPlainTextEdit):
            said |= {widget.toPlainText(), widget.placeholderText()}
    wrong = re.compile(r"both (sides|texts|answers|draw)|two sides|other side's", re.IGNORECASE)
    assert not [text for text in said if wrong.search(text)]
    assert any("All sides" in text for text in said)
