"""A run of several sides that tests write by hand, without an engine or a window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import pytest
from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QApplication, QWidget

from bh_studio.engine.protocol.events import PromptRead, TokenGenerated
from bh_studio.engine.protocol.experiments import SameText
from bh_studio.engine.protocol.texts import Text
from bh_studio.engine.records.decisions.decision import Decision
from bh_studio.engine.records.decisions.routed_experts import NO_EXPERT
from bh_studio.engine.records.decisions.token_choices import TokenChoice
from bh_studio.engine.records.terms import Conversation, GenerationParameters
from bh_studio.engine.rules.parameters import RuleParameters
from bh_studio.ui.charts.chart import Chart
from bh_studio.ui.charts.shown import Shown
from bh_studio.ui.charts.slot.chart_slot import ChartSlot
from bh_studio.ui.state.engine_model import EngineModel
from bh_studio.ui.state.jobs_model import JobsModel
from bh_studio.ui.state.reading.written_kl import WrittenKl
from bh_studio.ui.state.selection import Selection
from bh_studio.ui.state.session_model import SessionModel
from bh_studio.ui.widgets.theme import Theme
from tests.fake_engine import MODEL
from tests.text_results import text_result
from tests.ui.charts.null_fits import KnownNulls

BH = RuleParameters(level=0.05, min_k=1, max_k=8)
Drawn = TypeVar("Drawn", bound=Chart)


class Run:
    """sides, nulls, written_kl, selection: what charts and slots are made with, without a model."""

    def __init__(self) -> None:
        self._session = SessionModel(EngineModel(JobsModel()))
        self.sides = self._session.sides
        self.nulls = KnownNulls()
        self.written_kl = WrittenKl(self._session)
        self.selection = Selection()

    def begin(
        self,
        *rules: RuleParameters | None,
        prompt: str = "Once",
        tokens: int = 32,
        conversation: Conversation | None = None,
    ) -> None:
        """Begin a run with these rules: the model's own and BH if none are given."""
        generation = GenerationParameters(max_new_tokens=tokens)
        self.sides.begin(prompt, rules or (None, BH), generation, MODEL, conversation)

    def read(self, side: int, experts: Sequence[Sequence[int]]) -> None:
        """A side has read its prompt; at each position the same experts ran in all layers."""
        counts = np.full((len(experts), MODEL.layers), 2, np.uint8)
        self.sides.read_prompt(PromptRead(side, counts, counts, self.decision(experts)))

    def say(
        self,
        side: int,
        text: str,
        counts: object = 8,
        raw_counts: object = None,
        *,
        experts: Sequence[int] | None = None,
        log_probability: float | None = None,
        rank: int = 1,
    ) -> None:
        """A side says a token. counts: of each layer, or of all."""
        used = np.broadcast_to(np.asarray(counts, np.uint8), (MODEL.layers,)).copy()
        raw = used if raw_counts is None else np.asarray(raw_counts, np.uint8)
        run = self.sides.runs[side]
        choice = None
        if log_probability is not None:
            tops = np.arange(5, dtype=np.int32), np.full(5, -1, np.float32)
            choice = TokenChoice(log_probability, rank, *tops)
        self.sides.append(
            TokenGenerated(
                side=side,
                index=run.token_count,
                token_id=sum(text.encode("utf-8", "replace")),
                text=text,
                expert_counts=used,
                raw_counts=np.broadcast_to(raw, (MODEL.layers,)).copy(),
                seconds=0.1 * (run.token_count + 1),
                decision=None if experts is None else self.decision([experts]),
                choice=choice,
            )
        )

    def read_text(self, *rules: RuleParameters | None, until: int | None = None) -> None:
        """Sides with these rules have read a text, or the first few of them have."""
        definition = SameText(text=Text("tale", "Once upon a time"), sides=rules)
        self.sides.begin_text(definition, MODEL)
        self.sides.show_text(text_result(MODEL, definition, read=until))

    def decision(self, experts: Sequence[Sequence[int]]) -> Decision:
        """At each position the same experts in all layers."""
        ran = np.full((len(experts), MODEL.layers, 8), NO_EXPERT, np.uint8)
        for position, of in enumerate(experts):
            ran[position, :, : len(of)] = of
        return Decision(ran, None)

    def write(self, tokens: int = 6) -> None:
        """All sides say something that is worth a picture."""
        random = np.random.default_rng(7)
        for number, _ in enumerate(self.sides.runs):
            self.read(number, [[0, 1, 2]])
        for token in range(tokens):
            for number, run in enumerate(self.sides.runs):
                assert run.about is not None
                raw = random.integers(0, 12, MODEL.layers)
                least, most = (8, 8) if run.about.rule is None else (1, 8)
                if run.about.rule is None:
                    raw = np.full(MODEL.layers, 8)
                self.say(
                    number,
                    f" w{token}" if token < 3 else f" {run.name}{token}",
                    raw.clip(least, most),
                    raw,
                    experts=random.permutation(64)[:4].tolist(),
                    log_probability=-random.random() * 4,
                    rank=int(random.integers(1, 9)),
                )


@pytest.fixture
def run() -> Run:
    return Run()


@pytest.fixture
def show(theme: Theme) -> Iterator[Callable[[QWidget, int, int], None]]:
    """Brings a widget on screen, which is gone after the test."""
    shown: list[QWidget] = []

    def show(widget: QWidget, width: int, height: int) -> None:
        shown.append(widget)
        widget.resize(width, height)
        widget.show()
        QApplication.processEvents()

    yield show
    for widget in shown:
        widget.hide()
        widget.deleteLater()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


@pytest.fixture
def draw(
    run: Run, theme: Theme, show: Callable[[QWidget, int, int], None]
) -> Callable[[type[Drawn]], Drawn]:
    """Makes a chart of the run as it is, on screen."""

    def make(kind: type[Drawn]) -> Drawn:
        chart = kind(run.selection, theme)
        show(chart, 600, 300)
        chart.show_run(Shown.of(run.sides, written_kl=run.written_kl))
        QApplication.processEvents()
        return chart

    return make


@pytest.fixture
def new_slot(
    run: Run, theme: Theme, show: Callable[[QWidget, int, int], None]
) -> Callable[[type[Chart]], ChartSlot]:
    """Makes a slot on screen."""

    def make(first: type[Chart]) -> ChartSlot:
        slot = ChartSlot(run.sides, run.nulls, run.written_kl, run.selection, theme, first)
        show(slot, 700, 360)
        return slot

    return make
