"""What the command line wants done in the window: run, save, take a picture, quit."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, QTimer, Slot
from PySide6.QtWidgets import QApplication

from bh_studio.engine.protocol.events import Failed, LoadRefused
from bh_studio.engine.rules import RuleName, RuleParameters, completed_rule
from bh_studio.engine.rules.sides import Sides, check_sides
from bh_studio.ui.main_window import MainWindow
from bh_studio.ui.state.engine_model import EngineState

# Long enough for the last frame and the layout it causes.
_SETTLE_MS = 120


class Errand(QObject):
    """Does its steps in order and ends the program with 0, or with 1 if one of them failed.

    needs_template: the prompt is to be a message, so the model has to have a chat template.
    """

    def __init__(
        self,
        window: MainWindow,
        *,
        run: bool,
        save: Path | None,
        screenshot: Path | None,
        quit_after: bool,
        needs_template: bool = False,
    ) -> None:
        super().__init__(window)
        self._needs_template = needs_template
        self._window = window
        self._run = run
        self._save = save
        self._screenshot = screenshot
        self._quit_after = quit_after
        self._code = 0
        # What prepares the window, until it has.
        self._set_up: partial[None] | None = None
        self._started = False
        self._is_winding_up = False
        window.engine.state_changed.connect(self._follow)
        window.engine.failed.connect(self.fail)
        window.engine.load_refused.connect(self._fail_for_memory)
        window.session.run_finished.connect(self._finish)
        window.session.text_read.connect(self._finish)
        window.session.failed.connect(self.fail)
        window.files.failed.connect(self.fail)
        window.files.write_failed.connect(self.fail)
        window.files.settled.connect(self._go_on)

    def prepare(
        self,
        prompt: str | None,
        rules: Sequence[Mapping[str, Any]],
        own: bool,
        generation: Mapping[str, Any],
        session: Path | None,
        chat: bool | None = None,
        system: str | None = None,
    ) -> None:
        """Set the window up before the first run; None leaves what it remembers.

        A session comes first: what else is asked for goes before what it says.
        """
        self._set_up = partial(self._show_choices, prompt, rules, own, generation, chat, system)
        if session is not None:
            self._window.files.open_path(session)
        else:
            self._go_on()

    def _show_choices(
        self,
        prompt: str | None,
        rules: Sequence[Mapping[str, Any]],
        own: bool,
        generation: Mapping[str, Any],
        chat: bool | None,
        system: str | None,
    ) -> None:
        page = self._window.compare
        panel = page.settings_panel
        if prompt is not None:
            # A prompt is to be answered, whatever was done with the last one.
            page.prompt.mode.choose(False)
            page.prompt.set_prompt(prompt)
        if chat is not None or system is not None:
            panel.conversation.show_choice(chat is not False)
        if system is not None:
            panel.conversation.show_system(system)
        try:
            wanted: Sides = panel.sides()
            if rules:
                wanted = _sides(wanted, rules, own)
                panel.show_sides(wanted)
            wanted_generation = dataclasses.replace(panel.generation(), **generation)
            panel.show_generation(wanted_generation)
        except ValueError as error:
            self._window.report(Failed(str(error), "The other settings are unchanged.", ""))
            self._complain(str(error))
            return
        difference = panel.difference(wanted, wanted_generation)
        if difference:
            self._window.report(Failed(difference, "", ""))
            self._complain(difference)

    @Slot()
    def _go_on(self) -> None:
        """No file is being read or written any more, nor was one asked for."""
        if self._set_up is not None:
            set_up, self._set_up = self._set_up, None
            set_up()
            self._follow()
        if self._is_winding_up:
            self._wind_up()

    @Slot()
    def _follow(self) -> None:
        is_ready = self._window.engine.state is EngineState.READY
        if is_ready and self._set_up is None and not self._started:
            self._started = True
            # After every other receiver of this change has taken it in.
            QTimer.singleShot(0, self._begin)

    @Slot()
    def _begin(self) -> None:
        model = self._window.engine.model
        if self._needs_template and model is not None and not model.has_chat_template:
            failure = Failed(
                f"{model.name} continues texts; it has no chat template.",
                "Load an instruct model to chat.",
                "",
            )
            self._window.report(failure)
            self.fail(failure)
            return
        if not self._run:
            QTimer.singleShot(_SETTLE_MS, self._wind_up)
            return
        if self._window.compare.is_busy:
            # Whoever sits at the window did not wait for the model: their run is the run.
            return
        obstacle = self._window.compare.obstacle()
        if obstacle:
            self._complain(obstacle)
            QTimer.singleShot(_SETTLE_MS, self._wind_up)
            return
        self._window.compare.start()

    @Slot()
    def _finish(self) -> None:
        if self._save is not None:
            self._window.files.save_to(self._save)
            self._save = None
        QTimer.singleShot(_SETTLE_MS, self._wind_up)

    @Slot(object)
    def fail(self, failure: Failed) -> None:
        """Something went wrong: say so, and end if the program was to end by itself."""
        self._complain(" ".join(part for part in (failure.message, failure.advice) if part))
        if not self._window.compare.is_busy:
            QTimer.singleShot(_SETTLE_MS, self._wind_up)

    @Slot(object)
    def _fail_for_memory(self, refused: LoadRefused) -> None:
        self.fail(Failed(refused.message, refused.advice, ""))

    @Slot()
    def _wind_up(self) -> None:
        # Whether a file could be written decides how the program ends.
        self._is_winding_up = self._window.files.is_under_way
        if self._is_winding_up:
            return
        if self._screenshot is not None:
            self._take_picture(self._screenshot)
            self._screenshot = None
        if self._quit_after:
            QApplication.exit(self._code)

    def _take_picture(self, path: Path) -> None:
        self._window.compare.refresh()
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self._window.grab().save(str(path), "PNG"):
            self._complain(f"{path} could not be written.")

    def _complain(self, text: str) -> None:
        self._code = 1
        if self._run or self._screenshot or self._quit_after:
            print(text, file=sys.stderr)  # noqa: T201 - an answer to the command line


def _sides(remembered: Sides, rules: Sequence[Mapping[str, Any]], own: bool) -> Sides:
    """The sides that the command line asks for. Raises ValueError for what cannot be."""
    if len(rules) > 1:
        wanted = [completed_rule(values) for values in rules]
    else:
        (values,) = rules
        last = next((rule for rule in reversed(remembered) if rule is not None), RuleParameters())
        # Short forms alone are of bh.
        is_same = values.get("rule", RuleName.BH) == last.rule
        wanted = [dataclasses.replace(last, **values) if is_same else completed_rule(values)]
    sides = [None, *wanted] if own else wanted
    check_sides(sides)
    return sides
