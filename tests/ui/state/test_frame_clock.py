"""Many changes, few frames."""

from __future__ import annotations

from pytestqt.qtbot import QtBot

from bh_studio.ui.state.frame_clock import FIGURES_MS, FRAME_MS, FrameClock


def test_changes_coalesce_into_one_frame(qtbot: QtBot) -> None:
    clock = FrameClock()
    frames: list[None] = []
    clock.frame.connect(lambda: frames.append(None))
    with qtbot.waitSignal(clock.frame):
        for _ in range(1000):
            clock.mark()
    assert len(frames) == 1


def test_the_timer_rests_when_nothing_changed(qtbot: QtBot) -> None:
    clock = FrameClock()
    idle = [clock.is_idle]
    with qtbot.waitSignal(clock.frame):
        clock.mark()
        idle.append(clock.is_idle)
    idle.append(clock.is_idle)
    assert idle == [True, False, True]
    with qtbot.assertNotEmitted(clock.frame, wait=3 * FRAME_MS):
        pass


def test_frames_keep_their_distance(qtbot: QtBot) -> None:
    clock = FrameClock()
    frames: list[None] = []
    clock.frame.connect(lambda: frames.append(None))
    clock.mark()
    clock.flush()
    clock.mark()
    clock.mark()
    assert len(frames) == 1
    with qtbot.waitSignal(clock.frame):
        pass
    assert len(frames) == 2


def test_flush_owes_nothing_afterwards(qtbot: QtBot) -> None:
    clock = FrameClock()
    clock.flush()
    assert clock.is_idle
    clock.mark()
    clock.flush()
    assert clock.is_idle


def test_figures_follow_more_slowly_and_come_with_the_last_change(qtbot: QtBot) -> None:
    clock = FrameClock(None, FRAME_MS, FIGURES_MS)
    painted: list[str] = []
    clock.frame.connect(lambda: painted.append("frame"))
    clock.figures.connect(lambda: painted.append("figures"))
    with qtbot.waitSignal(clock.figures):
        clock.mark()
    assert painted == ["frame", "figures"]
    with qtbot.waitSignal(clock.frame):
        clock.mark()
    assert painted == ["frame", "figures", "frame"]
    assert not clock.is_idle
    with qtbot.waitSignal(clock.figures):
        pass
    assert painted == ["frame", "figures", "frame", "figures"]
    assert clock.is_idle


def test_a_frame_that_is_owed_does_not_wait_for_figures(qtbot: QtBot) -> None:
    clock = FrameClock(None, FRAME_MS, FIGURES_MS)
    clock.mark()
    clock.flush()
    with qtbot.waitSignal(clock.frame):
        clock.mark()
    # Figures are owed by now, and their timer runs.
    with qtbot.waitSignal(clock.frame, timeout=FIGURES_MS - 2 * FRAME_MS):
        clock.mark()
