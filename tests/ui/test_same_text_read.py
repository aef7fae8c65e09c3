"""What the embedded model reads in the window: a text, kept as by a terminal, and answers again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pytestqt.qtbot import QtBot

from bh_studio.cli.tables.same_text import table
from bh_studio.engine.protocol.texts import shipped_text
from bh_studio.engine.reading import Result, read
from bh_studio.engine.records.journal import Journal
from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules import parse_rule
from bh_studio.settings import Settings
from bh_studio.ui.charts.utilisation_map import UtilisationMap
from bh_studio.ui.engine_thread import Engine
from bh_studio.ui.main_window import MainWindow
from bh_studio.ui.remembered import restore
from bh_studio.ui.state.engine_model import EngineModel
from bh_studio.ui.state.jobs_model import JobsModel
from bh_studio.ui.state.session_model import SessionModel
from bh_studio.ui.widgets.theme import Theme

pytestmark = pytest.mark.usefixtures("collected")

SIDES = (None, parse_rule("bh:0.05"), parse_rule("top-k:8"))


@pytest.fixture
def window(qtbot: QtBot, theme: Theme) -> Iterator[MainWindow]:
    model = EngineModel(JobsModel())
    with theme.put_on_at_end():
        window = MainWindow(model, SessionModel(model), theme, Settings())
    restore(window, Settings())
    window.resize(1280, 800)
    window.show()
    engine = Engine(None)
    engine.reported.connect(model.jobs.apply)
    engine.start()
    model.jobs.attach(engine)
    model.load("embedded")
    qtbot.waitUntil(lambda: model.is_ready, timeout=120_000)
    yield window
    model.jobs.attach(None)
    engine.shutdown()
    window.models.shutdown()
    window.hide()
    window.deleteLater()


def test_a_text_is_read_saved_as_the_terminal_does_and_too_long_a_one_refused(
    window: MainWindow, qtbot: QtBot, tmp_path: Path
) -> None:
    page, session = window.compare, window.session
    source = tmp_path / "tale.txt"
    source.write_text(shipped_text().content[:400])
    page.settings_panel.show_sides(SIDES)
    page.texts.open_path(source)
    qtbot.waitUntil(lambda: page.prompt.text.name == "tale.txt", timeout=10_000)
    with qtbot.waitSignal(session.text_read, timeout=60_000):
        window.actions_.run.trigger()
    page.clock.flush()
    result = session.sides.same_text
    assert result is not None
    assert result.text_name == "tale.txt"
    first, second, third = session.sides.runs
    assert first.token_count == second.token_count == len(result.token_ids) - 1 > 60
    assert page.answers.panels[1].text.toPlainText() == source.read_text()
    assert first.kl is not None
    assert third.kl is not None
    assert not first.kl.any()
    # The model's own number as a rule is the model's own routing.
    assert np.abs(third.kl).max() < 1e-5
    assert second.reading is not None
    perplexity = f"{second.reading.perplexity:.3f}"
    assert perplexity in table(result)
    assert f"perplexity {perplexity} " in page.answers.panels[1].numbers.text()

    # The inspector finds the counts of the pass again, and what another level would do.
    window.actions_.inspector.setChecked(True)
    session.selection.select(1, 40)
    qtbot.waitUntil(lambda: page.inspection.token is not None, timeout=30_000)
    token = page.inspection.token
    assert token is not None
    assert [layer.count for layer in token.layers] == second.counts[40].tolist()
    assert page.inspector.message.text() == ""
    page.inspection.try_level(0.5)
    qtbot.waitUntil(lambda: page.inspection.run_mean is not None, timeout=30_000)
    assert page.inspection.run_mean is not None
    assert second.statistics.mean is not None
    assert page.inspection.run_mean > second.statistics.mean
    page.charts.slots[0].pick(UtilisationMap)
    assert not page.charts.slots[0].is_empty

    path = tmp_path / "tale.json"
    window.files.save_to(path)
    qtbot.waitUntil(lambda: window.files.is_saved, timeout=10_000)
    saved = read(path)
    assert isinstance(saved, Result)
    assert isinstance(saved.record, SameTextResult)
    assert table(saved.record) == table(result)
    # The terminal takes its rows over.
    journal = Journal(path)
    document = json.loads(path.read_text())
    journal.check("same-text", document["settings"])
    assert journal.is_finished
    assert {"computation", "environment", "started_at", "finished_at"} <= document.keys()

    page.prompt.set_prompt(shipped_text().content)
    window.actions_.run.trigger()
    qtbot.waitUntil(lambda: window.errors.failure is not None, timeout=60_000)
    assert window.errors.failure is not None
    message = window.errors.failure.message
    assert "too many: this model reads at most 1,024 at once." in message
    assert session.sides.same_text is result
    assert not session.is_busy
    with qtbot.waitSignal(session.text_read, timeout=60_000):
        window.errors.remedy_button.click()
    assert session.sides.same_text is not None
    assert len(session.sides.same_text.token_ids) in range(1015, 1025)
    assert shipped_text().content.startswith("".join(session.sides.same_text.token_texts))


def test_the_shared_beginning_of_answers_is_read_again_also_in_an_opened_session(
    window: MainWindow, qtbot: QtBot, tmp_path: Path
) -> None:
    page, session = window.compare, window.session
    page.settings_panel.show_sides(SIDES)
    page.settings_panel.show_generation(GenerationParameters(48, sampling=False))
    page.prompt.set_prompt("Once upon a time there was a little girl who")
    with qtbot.waitSignal(session.run_finished, timeout=60_000):
        window.actions_.run.trigger()
    sides = session.sides
    first, second, third = sides.runs
    assert [run.kl for run in sides.runs] == [None] * 3
    page.tinting.choose("kl")
    qtbot.waitUntil(lambda: second.kl is not None, timeout=60_000)
    parted = sides.partings[1].token
    assert parted is not None
    kl = second.kl
    assert kl is not None
    assert len(kl) == parted + 1 < second.token_count
    assert kl[parted] > 0
    # The model's own number as a rule has answered alike, and is alike to the bit.
    assert third.kl is not None
    assert len(third.kl) == third.token_count
    assert not third.kl.any()
    page.clock.flush()
    view, surface = page.answers.panels[1].text, window.theme.colors.surface
    assert view.tint_of(parted) != surface
    assert view.tint_of(parted + 1) == surface
    assert f"KL to side A: {kl[parted]:.4f} nats" in view.describe(parted)

    # A reading of the same text that the sides are given says the same of it.
    words, answered = "".join(first.token_texts[:parted]), list(first.token_ids)
    window.files.save_to(path := tmp_path / "tale.bhsession")
    qtbot.waitUntil(lambda: window.files.is_saved, timeout=10_000)
    page.prompt.mode.choose(True)
    page.prompt.set_prompt(f"Once upon a time there was a little girl who{words}")
    with qtbot.waitSignal(session.text_read, timeout=60_000):
        window.actions_.run.trigger()
    assert second.reading is not None
    assert first.token_ids[-parted:] == answered[:parted]
    np.testing.assert_allclose(second.reading.kl[-parted:], kl[:parted], rtol=1e-3, atol=1e-6)

    with qtbot.waitSignal(window.files.opened, timeout=10_000):
        window.files.open_path(path)
    assert [run.kl for run in sides.runs] == [None] * 3
    qtbot.waitUntil(lambda: second.kl is not None, timeout=60_000)
    np.testing.assert_array_equal(second.kl, kl)
