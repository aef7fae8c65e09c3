"""An engine without a model: the same interface, every event on demand, in the GUI thread."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PySide6.QtCore import QObject, QTimer, Signal, Slot

from bh_studio.engine.errors import CancelToken, EngineError
from bh_studio.engine.execution.clerk import Clerk
from bh_studio.engine.execution.run_keeping import RunKeeper
from bh_studio.engine.protocol.events import (
    CalibrationSaved,
    Event,
    Failed,
    Finished,
    JobCancelled,
    KlMeasured,
    LoadProgress,
    LoadRefused,
    ModelInspected,
    ModelLoaded,
    ModelUnloaded,
    Progress,
    PromptRead,
    Report,
    RunBegan,
    SideFinished,
    TokenGenerated,
    Waiting,
    failure,
)
from bh_studio.engine.protocol.experiments import Comparison, SameText, conversation_of
from bh_studio.engine.protocol.requests import (
    Body,
    InspectModel,
    LoadModel,
    MeasureKl,
    ModelFree,
    ReadSession,
    Request,
    RunKept,
    SaveCalibration,
    UnloadModel,
)
from bh_studio.engine.records.decisions.decision import Decision
from bh_studio.engine.records.decisions.drift import Drift
from bh_studio.engine.records.decisions.routed_experts import NO_EXPERT
from bh_studio.engine.records.decisions.router_rows import HeldRows
from bh_studio.engine.records.decisions.token_choices import (
    ALTERNATIVES,
    TokenChoice,
    TokenChoices,
)
from bh_studio.engine.records.runs.lines import RunEnd, RunHeader
from bh_studio.engine.records.same_text.result import SameTextResult
from bh_studio.engine.records.session import Session, SideRecord
from bh_studio.engine.records.terms import FinishReason, MemoryNeed, ModelInfo
from bh_studio.engine.rules.parameters import RuleParameters
from tests.text_results import begin_journal, text_result

MODEL = ModelInfo(
    id="embedded",
    name="olmoe-nano",
    architecture="OlmoeForCausalLM",
    fingerprint="f" * 64,
    layers=16,
    experts=64,
    top_k=8,
    context_length=1024,
    parameter_count=11_150_000,
    dtype="float32",
    device="cpu",
    expert_path="grouped",
    null_sha256="0" * 64,
    null_samples=112_000,
)
CHAT_MODEL = dataclasses.replace(MODEL, name="olmoe-instruct", has_chat_template=True)


def chosen(probability: float, rank: int) -> TokenChoice:
    """A choice with that probability and rank, from halves, quarters and so on."""
    falling = np.log(0.5 ** np.arange(1, ALTERNATIVES + 1)).astype(np.float32)
    alternatives = np.arange(ALTERNATIVES, dtype=np.int32)
    return TokenChoice(float(np.log(probability)), rank, alternatives, falling)


class FakeSide:
    """What one side has said so far."""

    def __init__(self, layers: int) -> None:
        self.layers = layers
        self.token_ids: list[int] = []
        self.texts: list[str] = []
        self.counts: list[np.ndarray] = []
        self.raw_counts: list[np.ndarray] = []
        self.seconds: list[float] = []
        self.decisions: list[Decision] = []
        self.choices: list[TokenChoice] = []
        self.finish_reason: FinishReason | None = None
        self.drift: Drift | None = None

    def record(self) -> SideRecord:
        """The record a real engine would make of it."""
        empty = np.zeros((0, self.layers), dtype=np.uint8)
        prompt = np.full((2 if self.token_ids else 0, self.layers), 5, dtype=np.uint8)
        return SideRecord(
            prompt_token_ids=(1, 2, 3),
            text="".join(self.texts),
            token_ids=tuple(self.token_ids),
            token_texts=tuple(self.texts),
            expert_counts=np.array(self.counts, dtype=np.uint8) if self.counts else empty,
            raw_counts=np.array(self.raw_counts, dtype=np.uint8) if self.counts else empty,
            prompt_expert_counts=prompt,
            prompt_raw_counts=prompt,
            token_seconds=np.array(self.seconds, dtype=np.float64),
            finish_reason=self.finish_reason or FinishReason.MAX_NEW_TOKENS,
            routed_experts=self._joined("experts"),
            choices=TokenChoices.of(self.choices) if self.choices else None,
            router_logits=HeldRows(logits)
            if (logits := self._joined("router_logits")) is not None
            else None,
            drift=self.drift,
        )

    def _joined(self, name: str) -> np.ndarray | None:
        parts = [getattr(decision, name) for decision in self.decisions]
        return np.concatenate(parts) if parts else None


class FakeEngine(QObject):
    """Records what it is asked for. Tests call the methods below to make it report.

    requests, jobs: what was asked for, and its numbers. cancelled: jobs that were asked to end.
    files: what was asked for that needs no model. It is really done, in order, as soon as the event
    loop gets to it; what is to be written at the latest when the engine is shut down.

    history: folder that keeps every run, as the real engine keeps it; None for none.
    keeps_logits: whether runs say which experts ran, by which logits, and how probable tokens were.

    With `script` set, a run plays the scripted tokens by itself, one pair every `interval_ms`, and
    a text is read at once.
    """

    reported = Signal(object)

    def __init__(self, model: ModelInfo = MODEL) -> None:
        super().__init__()
        self.model = model
        self.requests: list[Body] = []
        self.jobs: list[int] = []
        self.cancelled: set[int] = set()
        self.files: list[ModelFree] = []
        self.is_started = False
        self.is_shut_down = False
        self.loads_at_once = False
        self.history: Path | None = None
        self.keeps_logits = False
        self.load_failure: Failed | LoadRefused | None = None
        self.run_failure: Failed | None = None
        self.script: dict[int, list[str]] | None = None
        self.interval_ms = 0
        self.sides: dict[int, FakeSide] = {}
        self._answered = 0
        self._begun: set[int] = set()
        self._keeper: RunKeeper | None = None
        self._clerk = Clerk()
        self._files_left: list[tuple[int, ModelFree]] = []
        self._random = np.random.default_rng(5)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._play)

    # --- the engine's interface ---

    def start(self) -> None:
        self.is_started = True

    def submit(self, request: Request) -> None:
        if isinstance(request.body, ModelFree):
            self.files.append(request.body)
            self._files_left.append((request.job, request.body))
            QTimer.singleShot(0, self._do_file)
            return
        self.jobs.append(request.job)
        self.requests.append(request.body)
        if isinstance(request.body, LoadModel) and self.loads_at_once:
            QTimer.singleShot(0, self.finish_load)
        elif isinstance(request.body, RunKept):
            self._keeper = None
            if self.script is not None:
                QTimer.singleShot(0, self.finish_text)
        elif isinstance(request.body, Comparison):
            sides = range(len(request.body.sides))
            self.sides = {side: FakeSide(self.model.layers) for side in sides}
            self._keeper = RunKeeper(self.history) if self.history is not None else None
            if self.script is not None:
                self.begin()
                self._timer.start(self.interval_ms)

    @property
    def has_files_left(self) -> bool:
        """Whether something that needs no model is not done yet."""
        return bool(self._files_left)

    def cancel(self, job: int) -> None:
        self.cancelled.add(job)

    def shutdown(self) -> None:
        self._timer.stop()
        while self._files_left:
            if isinstance(self._files_left[0][1], ReadSession):
                self.cancel(self._files_left[0][0])
            self._do_file()
        self.is_shut_down = True

    # --- what a test makes it say ---

    def report(self, event: Event, job: int | None = None) -> None:
        """Say `event` about `job`, or about what was asked for last."""
        number = self.jobs[-1] if job is None else job
        if self._keeper is not None and number == self.jobs[-1]:
            if isinstance(event, Failed):
                self._keeper.end(RunEnd.FAILED, event.message)
            for before in self._keeper.take(event):
                self.reported.emit(Report(number, before))
        self.reported.emit(Report(number, event))

    def job_of(self, kind: type[Body]) -> int:
        """The last job of that kind."""
        pairs = zip(reversed(self.jobs), reversed(self.requests), strict=True)
        return next(job for job, body in pairs if isinstance(body, kind))

    @property
    def run(self) -> Comparison:
        """The run asked for last."""
        request = self.requests[-1]
        assert isinstance(request, Comparison)
        return request

    @property
    def rule(self) -> RuleParameters:
        """The rule of that run."""
        rule = next((side for side in self.run.sides if side is not None), None)
        assert rule is not None
        return rule

    @property
    def is_run_cancelled(self) -> bool:
        """Whether that run was asked to end."""
        assert isinstance(self.run, Comparison)
        return self.jobs[-1] in self.cancelled

    def wait(self, behind: int) -> None:
        """Say that what was asked for last waits for the job `behind`."""
        self.report(Waiting(behind))

    def end_cancelled(self, kind: type[Body]) -> None:
        """Say that the last job of that kind has ended because it was asked to."""
        self.report(JobCancelled(), self.job_of(kind))

    def progress(self, stage: str, fraction: float | None = None) -> None:
        self.report(LoadProgress(stage, fraction), self.job_of(LoadModel))

    @Slot()
    def finish_load(self) -> None:
        self.report(self.load_failure or ModelLoaded(self.model), self.job_of(LoadModel))

    def cancel_load(self) -> None:
        self.report(JobCancelled(), self.job_of(LoadModel))

    def unload(self) -> None:
        """Say that the model is gone, for an unload or for the load that was asked for last."""
        kinds = (LoadModel, UnloadModel)
        pairs = zip(reversed(self.jobs), reversed(self.requests), strict=True)
        self.report(ModelUnloaded(), next(job for job, body in pairs if isinstance(body, kinds)))

    def refuse(self) -> LoadRefused:
        """Refuse the load that was asked for last."""
        request = next(r for r in reversed(self.requests) if isinstance(r, LoadModel))
        refused = LoadRefused(request, "Needs 14.7 GB; 8.1 GB are free.", "Close programs.", ())
        self.report(refused, self.job_of(LoadModel))
        return refused

    @property
    def inspections(self) -> list[InspectModel]:
        """What was asked about models, the oldest question first."""
        return [request for request in self.requests if isinstance(request, InspectModel)]

    def answer_inspection(self, *, free: int = 21_000_000_000, problem: str = "") -> ModelInspected:
        """Answer the next question: a full-size OLMoE in bfloat16 on the CPU."""
        question = self.inspections[self._answered]
        asked = [
            job
            for job, body in zip(self.jobs, self.requests, strict=True)
            if isinstance(body, InspectModel)
        ]
        job = asked[self._answered]
        self._answered += 1
        need = MemoryNeed("cpu", 13_840_000_000, 268_000_000, 1024, 500_000_000, free)
        answer = ModelInspected(question, "cpu", "bfloat16", (need,), 6_919_000_000, 4096, problem)
        self.report(answer, job)
        return answer

    def answer_inspections(self, *, free: int = 21_000_000_000, problem: str = "") -> None:
        """Answer every question, and those that are asked in answer to it."""
        while self._answered < len(self.inspections):
            self.answer_inspection(free=free, problem=problem)

    def save_calibration(self) -> None:
        """Say that the file is written that was asked for last."""
        request = next(r for r in reversed(self.requests) if isinstance(r, SaveCalibration))
        self.report(CalibrationSaved(request.path), self.job_of(SaveCalibration))

    def measure_kl(self, *others: Sequence[float]) -> None:
        """Answer the MeasureKl that was asked for last, with what is said of each side but A."""
        kl = np.array([[0.0] * len(others[0]), *others])
        self.report(KlMeasured(kl), self.job_of(MeasureKl))

    def begin(self) -> None:
        """Say that the prompt is accepted, once."""
        assert isinstance(self.run, Comparison)
        if self.jobs[-1] not in self._begun:
            self._begun.add(self.jobs[-1])
            self.report(Progress("answers", 0, 1))
            self.report(RunBegan(self._header()))

    def token(
        self,
        side: int,
        text: str,
        counts: np.ndarray | int = 5,
        raw_counts: np.ndarray | int | None = None,
        token_id: int | None = None,
        choice: TokenChoice | None = None,
    ) -> TokenGenerated:
        """Say one token of the run that was asked for last, and keep it for the record."""
        self.begin()
        layers = self.model.layers
        used = np.broadcast_to(np.asarray(counts, dtype=np.uint8), (layers,)).copy()
        raw = used if raw_counts is None else np.asarray(raw_counts, dtype=np.uint8)
        said = self.sides[side]
        index = len(said.texts)
        seconds = 0.05 + 0.01 * index * (0.9 if side else 1.0)
        if index == 0:
            of_prompt = np.full((2, layers), 5, dtype=np.uint8)
            self.report(PromptRead(side, of_prompt, of_prompt, self._decided(side, of_prompt)))
        event = TokenGenerated(
            side=side,
            index=index,
            token_id=sum(text.encode("utf-8", "replace")) if token_id is None else token_id,
            text=text,
            expert_counts=used,
            raw_counts=np.broadcast_to(raw, (layers,)).copy(),
            seconds=seconds,
            decision=self._decided(side, used[None]),
            choice=self._chosen(side, choice),
        )
        said.texts.append(text)
        said.token_ids.append(event.token_id)
        said.counts.append(event.expert_counts)
        said.raw_counts.append(event.raw_counts)
        said.seconds.append(seconds)
        self.report(event)
        return event

    def _decided(self, side: int, counts: np.ndarray) -> Decision | None:
        """Logits by which the most probable experts are used, as many as `counts` says."""
        if not self.keeps_logits:
            return None
        logits = self._random.normal(0, 2, (*counts.shape, self.model.experts)).astype(np.float32)
        experts = np.argsort(-logits, axis=-1)[..., : self.model.top_k].astype(np.uint8)
        experts[np.arange(self.model.top_k) >= counts[..., None]] = NO_EXPERT
        decision = Decision(experts, logits)
        self.sides[side].decisions.append(decision)
        return decision

    def _chosen(self, side: int, choice: TokenChoice | None) -> TokenChoice | None:
        if choice is None and self.keeps_logits:
            choice = chosen(0.5, 1)
        if choice is not None:
            self.sides[side].choices.append(choice)
        return choice

    def finish_side(self, side: int, reason: FinishReason, tail: str = "") -> None:
        self.begin()
        said = self.sides[side]
        said.finish_reason = reason
        if tail:
            said.texts[-1] += tail
        self.report(SideFinished(side, tail, said.record()))

    def finish(self, reason: FinishReason = FinishReason.MAX_NEW_TOKENS) -> Session:
        """End both sides that have not ended, and the run."""
        for side, said in self.sides.items():
            if said.finish_reason is None:
                self.finish_side(side, reason)
        header = self._header()
        session = Session(
            model=header.model,
            sides=header.sides,
            generation=header.generation,
            prompt=header.prompt,
            conversation=header.conversation,
            records=tuple(said.record() for said in self.sides.values()),
            environment=header.environment,
            started_at=header.started_at,
            finished_at="2025-01-02T03:04:06+00:00",
        )
        self.report(Finished(session, reason is not FinishReason.STOPPED))
        return session

    @property
    def text(self) -> SameText:
        """The text that was asked to be read last."""
        request = self.requests[-1]
        assert isinstance(request, RunKept)
        assert isinstance(request.experiment, SameText)
        return request.experiment

    def begin_text(self) -> None:
        """Say that the text is accepted."""
        self.report(Progress("sides", 0, len(self.text.sides)))

    def finish_text(self, read: int | None = None) -> SameTextResult:
        """Have all sides read the text, or the first few until they were stopped."""
        self.begin_text()
        request = self.requests[-1]
        assert isinstance(request, RunKept)
        result = text_result(self.model, self.text, read=read)
        begin_journal(request.journal, self.model, self.text, result)
        self.report(Finished(result, result.is_complete))
        return result

    def fail(self, message: str = "Out of memory.", job: int | None = None) -> Failed:
        """Say that `job` has failed, or what was asked for last."""
        failure = Failed(message, "Close other programs.", "Traceback: …")
        self.report(failure, job)
        return failure

    def _header(self) -> RunHeader:
        return RunHeader(
            model=self.model,
            sides=self.run.sides,
            generation=self.run.generation,
            prompt=self.run.prompt,
            conversation=conversation_of(self.run, self.model),
            prompt_token_ids=((1, 2, 3),) * len(self.run.sides),
            environment={"python": "3.11"},
            started_at="2025-01-02T03:04:05+00:00",
        )

    def random_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts as BH makes them on a model: (used, before the limits)."""
        rule = self.rule
        depth = np.linspace(6.9, 4.6, self.model.layers)
        raw = np.round(self._random.normal(depth + self._random.normal(0, 0.9), 1.6))
        raw = np.clip(raw, 0, self.model.experts).astype(np.uint8)
        return np.clip(raw, rule.min_k, rule.max_k).astype(np.uint8), raw

    @Slot()
    def _do_file(self) -> None:
        if not self._files_left:
            return
        job, body = self._files_left.pop(0)
        if job in self.cancelled:
            self.report(JobCancelled(), job)
            return
        try:
            for event in self._clerk.answer(body, CancelToken()):
                self.report(event, job)
        except EngineError as error:
            self.report(failure(error), job)

    @Slot()
    def _play(self) -> None:
        assert self.script is not None
        if self.is_run_cancelled:
            self._timer.stop()
            self.finish(FinishReason.STOPPED)
            return
        if self.run_failure is not None and len(self.sides[0].texts) >= 3:
            self._timer.stop()
            self.report(self.run_failure)
            return
        limit = self.run.generation.max_new_tokens
        for side, said in self.sides.items():
            words = self.script[side][:limit]
            if len(said.texts) < len(words):
                counts, raw = self.random_counts()
                if side == 0:
                    counts = raw = np.full(self.model.layers, self.model.top_k, dtype=np.uint8)
                self.token(side, words[len(said.texts)], counts, raw)
            elif said.finish_reason is None:
                reached = len(words) == limit
                self.finish_side(
                    side, FinishReason.MAX_NEW_TOKENS if reached else FinishReason.END_OF_TEXT
                )
        if all(said.finish_reason for said in self.sides.values()):
            self._timer.stop()
            self.finish()
