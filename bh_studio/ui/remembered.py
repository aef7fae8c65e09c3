"""Puts remembered settings into the parts of the window and reads them out again."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import logging

from PySide6.QtCore import QByteArray

from bh_studio.engine.records.terms import GenerationParameters
from bh_studio.engine.rules import RuleParameters, format_rule, parse_rule
from bh_studio.engine.rules.sides import Sides, check_sides
from bh_studio.settings import Settings
from bh_studio.ui.compare.page import ComparePage
from bh_studio.ui.main_window import MainWindow

_log = logging.getLogger(__name__)

_OWN = "own"
_DEFAULT_SIDES = (None, RuleParameters())


def restore(window: MainWindow, settings: Settings) -> None:
    """Set `window` up as `settings` remember it; what does not fit falls back to defaults."""
    _restore_comparison(window.compare, settings)
    window.actions_.settings.setChecked(settings.settings_visible)
    window.actions_.scroll_together.setChecked(settings.scrolls_together)
    window.compare.charts.show_titles(settings.charts)
    window.compare.show_charts(settings.charts_visible)
    if settings.geometry:
        window.restoreGeometry(QByteArray.fromBase64(settings.geometry.encode()))
    window.compare.show_sizes(settings.splitters)


def remember(window: MainWindow) -> Settings:
    """What to keep of `window` until the next start."""
    settings = window.models.remember(window.files.settings)
    return dataclasses.replace(
        _remember_comparison(window.compare, settings),
        text_percent=window.theme.text_percent,
        charts=window.compare.charts.titles,
        charts_visible=window.compare.wants_charts,
        scrolls_together=window.compare.answers.scrolls_together,
        settings_visible=window.compare.wants_settings,
        geometry=base64.b64encode(window.saveGeometry().data()).decode(),
        splitters={**settings.splitters, **window.compare.sizes()},
    )


def _restore_comparison(page: ComparePage, settings: Settings) -> None:
    page.prompt.set_prompt(settings.prompt)
    page.prompt.mode.choose(settings.same_text)
    page.tinting.choose(settings.tint)
    panel = page.settings_panel
    try:
        sides = _sides(settings)
        generation = GenerationParameters(**settings.generation)
        panel.show_sides(sides)
        panel.show_generation(generation)
        if difference := panel.difference(sides, generation):
            _log.warning("Remembered parameters: %s", difference)
    except (TypeError, ValueError, OverflowError) as error:
        _log.warning("Remembered parameters do not fit (%s); using defaults.", error)
        panel.show_sides(_DEFAULT_SIDES)
        panel.show_generation(GenerationParameters())
    panel.conversation.show_choice(settings.chat)
    panel.conversation.show_system(settings.system_prompt)


def _remember_comparison(page: ComparePage, settings: Settings) -> Settings:
    panel = page.settings_panel
    sides, generation = settings.sides, settings.generation
    if not panel.problem:
        sides = tuple(_OWN if rule is None else format_rule(rule) for rule in panel.sides())
        # A text that all sides read needs none, so that it may be impossible then.
        with contextlib.suppress(ValueError):
            generation = dataclasses.asdict(panel.generation())
    return dataclasses.replace(
        settings,
        prompt=page.prompt.prompt,
        tint=page.tinting.of_written.name,
        sides=sides,
        generation=generation,
        same_text=page.prompt.mode.is_same_text,
        chat=panel.conversation.is_chat,
        system_prompt=panel.conversation.system,
    )


def _sides(settings: Settings) -> Sides:
    """The sides that were remembered. Raises TypeError or ValueError for what cannot be."""
    if not settings.sides:
        return (None, RuleParameters(**settings.rule))
    sides = [None if text == _OWN else parse_rule(text) for text in settings.sides]
    check_sides(sides)
    return sides
