"""The page of models: what it offers, asks, loads and downloads; what the window shows of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractButton, QFileDialog, QLabel, QWidget
from pytestqt.qtbot import QtBot

from bh_studio.engine.hub.events import DownloadStalled
from bh_studio.engine.hub.status import HubState, HubStatus
from bh_studio.engine.protocol.requests import LoadModel, SaveCalibration, UnloadModel
from bh_studio.settings import Settings
from bh_studio.ui.models.page import ModelsPage
from bh_studio.ui.remembered import remember
from bh_studio.ui.state.engine_model import EngineState
from tests.fake_download import TOTAL
from tests.ui.conftest import Desk
from tests.ui.test_window import interactive

BASE, INSTRUCT = "allenai/OLMoE-1B-7B-0924", "allenai/OLMoE-1B-7B-0924-Instruct"
FOLDER = "/models/recipes"


def opened(desk: Desk, qtbot: QtBot, source: str = "embedded") -> ModelsPage:
    """The page, with what is on this machine looked up, at `source`."""
    desk.window.actions_.models.trigger()
    page = desk.window.models.page
    qtbot.waitUntil(lambda: page.list.lines[1] != "OLMoE-1B-7B-0924")
    look_again(desk, qtbot)
    page.list.select(source)
    return page


def look_again(desk: Desk, qtbot: QtBot) -> None:
    """Have what is on this machine looked up and told."""
    with qtbot.waitSignal(desk.window.models.shelf.statuses.changed):
        desk.window.models.shelf.refresh_all()


def offered(page: ModelsPage) -> list[str]:
    """The words of the buttons on the right that can be pressed."""
    panels: tuple[QWidget, ...] = (page.download_panel, page.load_panel)
    buttons = [button for panel in panels for button in panel.findChildren(QAbstractButton)]
    return [b.text() for b in buttons if b.isVisible() and b.isEnabled() and b.text() != "File…"]


def last_load(desk: Desk) -> LoadModel:
    request = desk.engine.requests[-1]
    assert isinstance(request, LoadModel)
    return request


def same(request: LoadModel, **values: object) -> bool:
    """Whether `request` has these values and defaults for the rest."""
    return request == LoadModel(**values)  # type: ignore[arg-type]


def test_the_list_says_what_there_is_and_how_much_of_it(
    make_desk: Callable[..., Desk], qtbot: QtBot
) -> None:
    desk = make_desk(Settings(recent_models=(FOLDER, "somebody/other@v2")), show=True)
    desk.load()
    desk.hub.complete(BASE)
    desk.hub.statuses[INSTRUCT] = HubStatus(HubState.PARTIAL, 3_140_000_000, TOTAL)
    desk.hub.complete("allenai/OLMoE-1B-7B-0125-Instruct", HubState.UNVERIFIED)
    desk.hub.others = ["somebody/found"]
    desk.hub.statuses["somebody/found"] = HubStatus(HubState.PARTIAL, 2_000_000_000)
    page = opened(desk, qtbot)
    lines = page.list.lines
    assert lines[0] == "olmoe-nano, Loaded, Comes with the program; writes little stories"
    assert lines[1].startswith("OLMoE-1B-7B-0924, 13.8 GB, complete, ")
    assert lines[2].startswith("OLMoE-1B-7B-0924-Instruct, 3.1 of 13.8 GB, ")
    assert lines[3].startswith("OLMoE-1B-7B-0125, 13.8 GB, not downloaded, ")
    assert lines[4].startswith("OLMoE-1B-7B-0125-Instruct, 13.8 GB, not verified, ")
    assert lines[5:] == [
        f"recipes, {FOLDER}",
        "other@v2, not downloaded, From the hub: somebody/other",
        "found, partly here, From the hub: somebody/found",
    ]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (HubStatus(HubState.NOT_THERE), ["Download"]),
        (HubStatus(HubState.PARTIAL, 3_140_000_000, TOTAL), ["Resume", "Discard…"]),
        (HubStatus(HubState.UNVERIFIED, TOTAL, TOTAL, "c" * 40, Path("/c")), ["Verify", "Load"]),
        (HubStatus(HubState.COMPLETE, TOTAL, TOTAL, "c" * 40, Path("/c")), ["Load"]),
    ],
)
def test_what_is_offered_depends_on_what_is_here(
    desk: Desk, qtbot: QtBot, status: HubStatus, words: list[str]
) -> None:
    desk.hub.statuses[BASE] = status
    page = opened(desk, qtbot, BASE)
    assert offered(page) == words


# --- loading ---


def test_the_memory_is_asked_for_every_choice(desk: Desk, qtbot: QtBot) -> None:
    desk.hub.complete(BASE)
    page = opened(desk, qtbot, BASE)
    panel = page.load_panel
    assert panel.facts.text() == "Looking at the model…"
    desk.engine.answer_inspections()
    assert desk.engine.inspections[-1].source == BASE
    assert panel.facts.text() == (
        "6.92 B parameters, context of 4,096 tokens; as bfloat16 on the CPU."
    )
    assert panel.memory.text == (
        "Needs 14.6 GB on the CPU (13.8 weights, 0.3 cache for 2\u00a0×\u00a01,024 tokens, "
        "0.5 headroom); 21.0 GB free."
    )
    assert not panel.memory.is_alarm
    panel.dtype.set_value("float32")
    panel.device.set_value("cpu")
    desk.engine.answer_inspections()
    question = desk.engine.inspections[-1]
    assert (question.device, question.dtype) == ("cpu", "float32")


def test_what_does_not_fit_is_loaded_only_anyway(desk: Desk, qtbot: QtBot) -> None:
    desk.hub.complete(BASE)
    page = opened(desk, qtbot, BASE)
    panel = page.load_panel
    desk.engine.answer_inspections(free=8_170_000_000)
    assert panel.memory.is_alarm
    assert panel.memory.text.startswith("Does not fit. Needs 14.7 GB on the CPU (")
    assert panel.memory.text.endswith(", but only 8.1 GB are free.")
    assert offered(page) == ["Load anyway"]
    panel.device.set_value("cpu")
    desk.engine.answer_inspections(free=8_170_000_000)
    qtbot.mouseClick(panel.anyway_button, Qt.MouseButton.LeftButton)
    assert same(last_load(desk), source=BASE, device="cpu", load_anyway=True)


def test_what_cannot_be_used_is_said_before_loading(
    make_desk: Callable[..., Desk], qtbot: QtBot
) -> None:
    desk = make_desk(Settings(recent_models=(FOLDER,)), show=True)
    desk.load()
    page = opened(desk, qtbot, FOLDER)
    desk.engine.answer_inspections(problem=f"{FOLDER} holds no tokenizer.json.")
    assert page.load_panel.memory.text == f"{FOLDER} holds no tokenizer.json."
    assert offered(page) == []
    assert page.load_panel.load_button.toolTip() == f"{FOLDER} holds no tokenizer.json."


def test_choices_and_calibration_reach_the_engine(desk: Desk, qtbot: QtBot, tmp_path: Path) -> None:
    desk.hub.complete(BASE)
    page = opened(desk, qtbot, BASE)
    panel = page.load_panel
    panel.device.set_value("cpu")
    panel.dtype.set_value("bfloat16")
    panel.calibration.file_button.click()
    assert panel.calibration.dialog is not None
    panel.calibration.dialog.fileSelected.emit(str(tmp_path / "shared.npz"))
    assert panel.calibration.words == "shared.npz"
    qtbot.mouseClick(panel.load_button, Qt.MouseButton.LeftButton)
    assert same(
        last_load(desk),
        source=BASE,
        device="cpu",
        dtype="bfloat16",
        calibration=tmp_path / "shared.npz",
    )


def test_a_calibration_is_not_carried_to_another_model(desk: Desk, qtbot: QtBot) -> None:
    page = opened(desk, qtbot)
    page.load_panel.calibration.choose(Path("/shared.npz"))
    desk.window.models.shelf.changed.emit()
    words = [page.load_panel.calibration.words]
    page.list.select(BASE)
    words.append(page.load_panel.calibration.words)
    assert words == ["shared.npz", "Bundled text"]


def test_a_load_is_watched_cancelled_and_named(desk: Desk, qtbot: QtBot) -> None:
    desk.hub.complete(BASE)
    page = opened(desk, qtbot, BASE)
    desk.engine.answer_inspections()
    page.load_panel.load()
    desk.engine.progress("Reading the weights", 0.42)
    assert page.loading.isVisible()
    assert page.loading.words == "OLMoE-1B-7B-0924: Reading the weights"
    assert page.loading.steps == (420, 1000)
    assert desk.window.status.stage == "Reading the weights"
    assert page.list.lines[1].startswith("OLMoE-1B-7B-0924, Loading…, ")
    assert offered(page) == []
    # What was there answers no run, but is not given up yet.
    assert desk.window.status.model_text.startswith("olmoe-nano")
    qtbot.mouseClick(page.cancel_button, Qt.MouseButton.LeftButton)
    assert desk.engine.job_of(LoadModel) in desk.engine.cancelled
    assert page.loading.words == "OLMoE-1B-7B-0924: Cancelling the load…"
    assert not page.cancel_button.isEnabled()
    desk.engine.cancel_load()
    assert not page.loading.isVisible()
    assert desk.model.state is EngineState.READY
    desk.engine.answer_inspections()
    page.load_panel.load()
    desk.engine.unload()
    desk.engine.model = dataclasses.replace(desk.engine.model, id=BASE, name="OLMoE-1B-7B-0924")
    desk.engine.finish_load()
    assert page.list.lines[1].startswith("OLMoE-1B-7B-0924, Loaded, ")
    assert page.list.lines[0].startswith("olmoe-nano, Comes")
    assert desk.window.status.model_text.startswith("OLMoE-1B-7B-0924  ·  ")


def test_escape_leaves_the_page_and_not_the_load(desk: Desk, qtbot: QtBot) -> None:
    page = opened(desk, qtbot)
    page.load_panel.load()
    qtbot.keyClick(page, Qt.Key.Key_Escape)
    assert not page.isVisible()
    assert desk.model.state is EngineState.LOADING
    assert not desk.engine.cancelled


def test_a_failed_load_is_told_above_the_page(desk: Desk, qtbot: QtBot) -> None:
    page = opened(desk, qtbot)
    desk.engine.answer_inspections()
    page.load_panel.load()
    desk.engine.fail("The weights are damaged.")
    assert page.isVisible()
    assert desk.window.errors.isVisible()
    assert desk.window.errors.failure is not None
    assert desk.window.errors.failure.message == "The weights are damaged."


def test_the_loaded_model_can_be_unloaded(desk: Desk, qtbot: QtBot) -> None:
    page = opened(desk, qtbot)
    assert offered(page) == ["Load again", "Unload"]
    qtbot.mouseClick(page.load_panel.unload_button, Qt.MouseButton.LeftButton)
    assert isinstance(desk.engine.requests[-1], UnloadModel)
    assert desk.page.obstacle() == "The model is being unloaded."
    desk.engine.unload()
    assert offered(page) == ["Load"]
    assert desk.window.status.model_text == "No model"


def test_nothing_is_loaded_during_a_run(desk: Desk, qtbot: QtBot) -> None:
    page = opened(desk, qtbot)
    desk.engine.answer_inspections()
    desk.start("Once")
    desk.window.actions_.models.trigger()
    page.list.select(BASE)
    page.list.select("embedded")
    panel = page.load_panel
    assert offered(page) == []
    assert panel.load_button.toolTip() == "The run has to end first."
    assert panel.facts.text() == "What it needs can be said when the run has ended."
    desk.engine.finish()
    assert panel.facts.text() == "Looking at the model…"


# --- downloading ---


def test_a_download_from_its_start_to_the_load(desk: Desk, qtbot: QtBot) -> None:
    page = opened(desk, qtbot, BASE)
    panel = page.download_panel
    assert (
        panel.state == "Not on this machine; 13.8 GB to fetch, and about as much memory to load it."
    )
    qtbot.mouseClick(panel.start_button, Qt.MouseButton.LeftButton)
    assert offered(page) == ["Pause"]
    desk.hub.last.plan()
    desk.hub.last.progress(4_730_000_000, 43_600_000, 209.0)
    assert panel.progress.words == "4.7 of 13.8 GB  ·  43.6 MB/s  ·  3 min left"
    assert panel.progress.steps == (342, 1000)
    assert page.list.lines[1].startswith("OLMoE-1B-7B-0924, 34 %, ")
    desk.hub.last.report(DownloadStalled(23.0, 60.0))
    assert panel.trouble.is_alarm
    assert panel.trouble.text.startswith("No data for 23 s.")
    qtbot.mouseClick(panel.pause_button, Qt.MouseButton.LeftButton)
    assert offered(page) == []
    desk.hub.last.end_by_stop()
    qtbot.waitUntil(lambda: offered(page) == ["Resume", "Discard…"])
    assert panel.state == "4.7 of 13.8 GB are here; a download goes on from there."
    panel.start_button.click()
    desk.hub.last.finish()
    qtbot.waitUntil(lambda: offered(page) == ["Load"])
    assert panel.state == "Complete and verified, commit 3c67ecb."


def test_a_failed_download_says_why_and_is_tried_again(desk: Desk, qtbot: QtBot) -> None:
    page = opened(desk, qtbot, BASE)
    panel = page.download_panel
    panel.start()
    desk.hub.last.progress(1_000_000_000)
    desk.hub.last.fail("The disk is full.", "Make room.")
    qtbot.waitUntil(lambda: offered(page) == ["Retry", "Discard…"])
    assert panel.trouble.text == "The disk is full. Make room."
    panel.start_button.click()
    assert len(desk.hub.downloads) == 2
    assert panel.trouble.text == ""


def test_a_download_goes_on_without_the_page(desk: Desk, qtbot: QtBot) -> None:
    page = opened(desk, qtbot, BASE)
    page.download_panel.start()
    desk.window.actions_.compare.trigger()
    desk.start("Once")
    desk.hub.last.progress(TOTAL // 2)
    status = desk.window.status
    assert status.download_button.isVisible()
    assert status.download_button.text() == "OLMoE-1B-7B-0924: 50 %"
    assert "keeps what is here" in status.download_button.toolTip()
    notice = "Saved to /sessions/The old fisherman rowed out to the island.bhsession"
    status.notify(notice)
    qtbot.waitUntil(
        lambda: status.download_button.x() > status.fontMetrics().horizontalAdvance(notice)
    )
    status.download_button.click()
    assert page.isVisible()
    desk.window.actions_.compare.trigger()
    desk.hub.last.fail("The disk is full.", "Make room.")
    failure = desk.window.errors.failure
    assert failure is not None
    assert failure.message == f"The download of {BASE} failed. The disk is full."
    assert not status.download_button.isVisible()
    page.download_panel.start()
    desk.hub.last.finish()
    assert status.notice == f"{BASE} is complete; View > Models loads it."


def test_closing_the_window_pauses_a_download_and_asks_nothing(desk: Desk, qtbot: QtBot) -> None:
    page = opened(desk, qtbot, BASE)
    page.download_panel.start()
    desk.hub.last.progress(1_000_000_000)
    desk.window.close()
    assert not desk.window.isVisible()
    desk.window.models.shutdown()
    assert desk.hub.last.is_over


def test_discarding_asks_first(desk: Desk, qtbot: QtBot) -> None:
    desk.hub.statuses[BASE] = HubStatus(HubState.PARTIAL, 3_140_000_000, TOTAL)
    page = opened(desk, qtbot, BASE)
    panel = page.download_panel
    for press, discarded in (("Keep", []), ("Discard", [BASE])):
        panel.discard_button.click()
        box = panel.question
        assert box is not None
        assert "3.1 GB" in box.informativeText()
        assert box.defaultButton().text() == "Keep"
        next(button for button in box.buttons() if button.text() == press).click()
        desk.window.models.shelf.statuses.shutdown()
        assert panel.question is None
        assert desk.hub.discarded == discarded
    qtbot.waitUntil(lambda: offered(page) == ["Download"])


# --- other models ---


def test_another_model_of_the_hub_is_added_by_name(desk: Desk, qtbot: QtBot) -> None:
    page = opened(desk, qtbot)
    qtbot.keyClicks(page.name, "not a name")
    qtbot.keyClick(page.name, Qt.Key.Key_Return)
    assert page.name_problem.text.startswith("“not a name” is not a name such as allenai/")
    assert page.isVisible()
    page.name.clear()
    qtbot.keyClicks(page.name, " somebody/other@v2 ")
    assert page.name_problem.text == ""
    qtbot.keyClick(page.name, Qt.Key.Key_Return)
    assert page.list.source == "somebody/other@v2"
    assert page.name.text() == ""
    qtbot.waitUntil(lambda: offered(page) == ["Download"])
    page.remove_button.click()
    assert page.list.source == "embedded"
    assert len(page.list.lines) == 5
    page.name.setText(BASE)
    page.add_button.click()
    assert page.list.source == BASE
    assert len(page.list.lines) == 5


def test_a_folder_is_chosen(desk: Desk, qtbot: QtBot, tmp_path: Path) -> None:
    page = opened(desk, qtbot)
    page.folder_button.click()
    chooser = page.findChild(QFileDialog)
    assert isinstance(chooser, QFileDialog)
    chooser.fileSelected.emit(str(tmp_path))
    assert page.list.source == str(tmp_path)
    assert offered(page) == ["Load"]
    chooser.close()


def test_names_from_outside_are_shown_as_they_are(desk: Desk, qtbot: QtBot) -> None:
    page = opened(desk, qtbot)
    page.choose("/models/<b>bold\n\u202eevil")
    assert page.heading == "<b>bold\n\ufffdevil"
    assert page.list.lines[-1] == "<b>bold↵\ufffdevil, /models/<b>bold↵\ufffdevil"
    tooltip = page.list.item(page.list.count() - 1).toolTip()
    assert "&lt;b&gt;bold" in tooltip
    labels = [label for label in page.findChildren(QLabel) if "<b>" in label.text()]
    assert labels
    assert {label.textFormat() for label in labels} == {Qt.TextFormat.PlainText}


# --- what stays ---


def test_choices_are_remembered(make_desk: Callable[..., Desk], qtbot: QtBot) -> None:
    first = make_desk(show=True)
    first.load()
    page = opened(first, qtbot)
    page.load_panel.device.set_value("cpu")
    page.load_panel.dtype.set_value("float32")
    page.choose("somebody/other")
    page.choose(FOLDER)
    settings = remember(first.window)
    assert (settings.model_device, settings.model_dtype) == ("cpu", "float32")
    assert settings.recent_models == (FOLDER, "somebody/other")
    # A window in which nobody opens the page forgets none of it.
    second = make_desk(settings, show=True)
    assert remember(second.window).recent_models == settings.recent_models
    assert remember(second.window).model_device == "cpu"
    again = opened(second, qtbot).load_panel
    assert (again.device.value, again.dtype.value) == ("cpu", "float32")


def test_a_model_from_the_command_line_is_offered_again(
    make_desk: Callable[..., Desk], qtbot: QtBot
) -> None:
    desk = make_desk(show=True)
    desk.engine.model = dataclasses.replace(desk.engine.model, id="/abs/recipes")
    desk.model.load("recipes")
    desk.engine.finish_load()
    assert remember(desk.window).recent_models == ("/abs/recipes",)
    page = opened(desk, qtbot)
    assert page.list.lines[5] == "recipes, Loaded, /abs/recipes"


# --- the window around it ---


def test_a_refused_load_can_be_insisted_on_in_the_window(desk: Desk, qtbot: QtBot) -> None:
    errors = desk.window.errors
    desk.model.load(FOLDER)
    refused = desk.engine.refuse()
    assert errors.failure is not None
    assert errors.failure.message == refused.message
    assert errors.remedy_button.isVisible()
    assert desk.window.status.model_text.startswith("olmoe-nano")
    qtbot.mouseClick(errors.remedy_button, Qt.MouseButton.LeftButton)
    assert same(last_load(desk), source=FOLDER, load_anyway=True)
    assert not errors.isVisible()
    desk.engine.refuse()
    desk.model.save_calibration(Path("null.npz"))
    desk.engine.fail("Something else.")
    assert not errors.remedy_button.isVisible()
    desk.model.load(FOLDER)
    desk.engine.refuse()
    desk.window.actions_.load_embedded.trigger()
    assert not errors.isVisible()


def test_the_menu_unloads_and_saves_a_calibration(desk: Desk, tmp_path: Path) -> None:
    actions, models = desk.window.actions_, desk.window.models
    actions.save_calibration.trigger()
    assert models.file_dialog is not None
    models.file_dialog.fileSelected.emit(str(tmp_path / "null.npz"))
    request = desk.engine.requests[-1]
    assert isinstance(request, SaveCalibration)
    assert request.path == tmp_path / "null.npz"
    desk.engine.save_calibration()
    assert desk.window.status.notice == f"Calibration saved to {tmp_path / 'null.npz'}"
    actions.unload.trigger()
    desk.engine.unload()
    assert not actions.unload.isEnabled()
    assert not actions.save_calibration.isEnabled()
    assert actions.models.isEnabled()


def test_the_page_is_shown_by_its_key(desk: Desk, qtbot: QtBot) -> None:
    desk.window.activateWindow()
    desk.page.prompt.editor.setFocus()
    qtbot.waitUntil(desk.page.prompt.editor.hasFocus)
    editor = desk.page.prompt.editor
    qtbot.keyClick(editor, Qt.Key.Key_M, Qt.KeyboardModifier.ControlModifier)
    page = desk.window.models.page
    assert page.isVisible()


@pytest.mark.parametrize("percent", [100, 160])
def test_every_control_has_a_name_a_tooltip_and_room(
    desk: Desk, qtbot: QtBot, percent: int
) -> None:
    desk.theme.set_text_percent(percent)
    desk.hub.statuses[BASE] = HubStatus(HubState.PARTIAL, 3_140_000_000, TOTAL)
    page = opened(desk, qtbot, BASE)
    page.choose("somebody/other")
    for source in (BASE, "somebody/other", "embedded"):
        page.list.select(source)
        qtbot.wait(1)
        controls = [control for control in interactive(page) if control.isVisible()]
        assert len(controls) >= 7
        assert [c for c in controls if not c.accessibleName() or not c.toolTip()] == []
        buttons = [c for c in controls if isinstance(c, QAbstractButton)]
        assert [b.text() for b in buttons if b.width() < b.minimumSizeHint().width()] == []
        content = page.load_panel.parentWidget()
        assert content is not None
        area = content.parentWidget()
        assert area is not None
        assert content.width() <= area.width()
