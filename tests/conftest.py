"""What holds for every test: no screen, no network, and none of the user's folders.

Knows nothing of the engine or the window; their fixtures live beside their tests.
"""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.network_guard import sitecustomize

# Modules and tests stay: to look through them for garbage while they are collected, and each time
# after, costs a sixth of all.
gc.disable()

# All of this is read when Qt and huggingface_hub are imported, hence before any test module is.
_GUARD = Path(__file__).parent / "network_guard"
os.environ["QT_QPA_PLATFORM"] = "offscreen"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(_GUARD), os.environ.get("PYTHONPATH")])
)
for _name in (
    "HF_HOME",
    "HF_HUB_CACHE",
    "TRANSFORMERS_CACHE",
    "QT_STYLE_OVERRIDE",
    "QT_SCALE_FACTOR",
    # How wide the terminal is in which the tests run must not matter.
    "COLUMNS",
    "LINES",
):
    os.environ.pop(_name, None)
# Two threads that wait for each other crawl where another test holds a core. torch reads this, here
# and in child processes.
os.environ["OMP_NUM_THREADS"] = "1"
# Where a test asks for two all the same, they sleep while they wait.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
# A shell that starts tests in the background, or nohup, has them ignore these, and all that they
# start; a test that waits for what comes of one would wait for ever.
for _name, _usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    _number = getattr(signal, _name, None)
    if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)
# One cache for the whole run, whose processes take it over from the first: what is in it (nulls) is
# named by its content and slow to make.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _home = tempfile.TemporaryDirectory(prefix="bh-studio-tests-")
    os.environ["XDG_CACHE_HOME"] = str(Path(_home.name, "cache"))

# The same examples in every run, however busy the machine is.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None, print_blob=True
)
hypothesis.settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # At the end a long one would keep a single process busy while the others have nothing to do.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings, sessions and logs of every test start empty and are the test's own."""
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(home))
    for name in ("CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    """Fail a test during which anything reached for the network, even if the error was caught."""
    sitecustomize.attempts.clear()
    yield
    assert not sitecustomize.attempts
