"""Whether this machine can open the window, answered before Qt is asked, for Qt would abort.

Knows the system libraries that Qt needs and Debian's names for them, and nothing of BH Studio.
Qt itself is imported only inside functions.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import socket
import sys
from pathlib import Path

# Library -> Debian package. First what every window needs, offscreen too; then what X needs.
_QT_LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libX11.so.6": "libx11-6",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libfreetype.so.6": "libfreetype6",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libz.so.1": "zlib1g",
    "libzstd.so.1": "libzstd1",
}
_X_LIBRARIES = {
    "libX11-xcb.so.1": "libx11-xcb1",
    "libxcb.so.1": "libxcb1",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-glx.so.0": "libxcb-glx0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render.so.0": "libxcb-render0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-shm.so.0": "libxcb-shm0",
    "libxcb-sync.so.1": "libxcb-sync1",
    "libxcb-util.so.1": "libxcb-util1",
    "libxcb-xfixes.so.0": "libxcb-xfixes0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
}
_QT_FILES = ("QtCore.abi3.so", "QtGui.abi3.so", "QtWidgets.abi3.so")
_OFFSCREEN_PLUGIN = "Qt/plugins/platforms/libqoffscreen.so"
_X_PLUGIN = "Qt/plugins/platforms/libqxcb.so"

_USE_COMPARE = 'Without a window: bh-studio compare "PROMPT"'


def window_problem() -> str | None:
    """Why no window can be opened here, in one line that says what to do; None if it can."""
    return _screen_problem() or _qt_problem()


def missing_libraries(on_screen: bool) -> list[str]:
    """System libraries that Qt needs and that cannot be loaded, found by loading them.

    on_screen: also those of a window on an X display, not only of an offscreen one.
    """
    if not sys.platform.startswith("linux"):
        return []
    needed = _QT_LIBRARIES | _X_LIBRARIES if on_screen else _QT_LIBRARIES
    missing = [name for name in needed if _load_error(name)]
    spec = importlib.util.find_spec("PySide6")
    if missing or spec is None or not spec.submodule_search_locations:
        return missing
    # The table above may be older than the Qt that is installed: let Qt's own files have the word.
    folder = Path(next(iter(spec.submodule_search_locations)))
    plugins = (_OFFSCREEN_PLUGIN, _X_PLUGIN) if on_screen else (_OFFSCREEN_PLUGIN,)
    for name in _QT_FILES + plugins:
        error = _load_error(str(folder / name)) if (folder / name).exists() else None
        if error:
            missing.append(error.split(":")[0])
    return list(dict.fromkeys(missing))


def debian_packages(libraries: list[str]) -> list[str]:
    """The Debian packages that hold `libraries`; those without a known package are left out."""
    packages = _QT_LIBRARIES | _X_LIBRARIES
    return sorted({packages[name] for name in libraries if name in packages})


def missing_libraries_line(libraries: list[str]) -> str:
    """One line that names `libraries` and how to get them."""
    line = f"Qt needs system libraries that are missing: {', '.join(libraries)}."
    packages = debian_packages(libraries)
    if packages:
        line += f" On Debian or Ubuntu: apt-get install {' '.join(packages)}"
    return line


def _screen_problem() -> str | None:
    """Why no screen can be reached; None where there is one, or none is needed."""
    if not sys.platform.startswith("linux"):
        return None
    wanted = [name.split(":")[0] for name in os.environ.get("QT_QPA_PLATFORM", "").split(";")]
    if wanted != [""] and not all(name == "xcb" or name.startswith("wayland") for name in wanted):
        return None
    display = os.environ.get("DISPLAY", "")
    wayland = os.environ.get("WAYLAND_DISPLAY", "")
    if not display and not wayland:
        return f"No display: neither DISPLAY nor WAYLAND_DISPLAY is set. {_USE_COMPARE}"
    if (wayland and _wayland_answers(wayland)) or (display and _x_answers()):
        return None
    named = " and ".join(
        f"{variable}={value}"
        for variable, value in (("DISPLAY", display), ("WAYLAND_DISPLAY", wayland))
        if value
    )
    return f"No display: {named} cannot be opened. {_USE_COMPARE}"


def _qt_problem() -> str | None:
    """Why Qt cannot be loaded; None if it can."""
    if importlib.util.find_spec("PySide6") is None:
        return f"The window needs PySide6: pip install PySide6-Essentials. {_USE_COMPARE}"
    on_screen = sys.platform.startswith("linux") and _x_is_used()
    try:
        importlib.import_module("PySide6.QtWidgets")
    except ImportError as error:
        missing = missing_libraries(on_screen)
        if missing:
            return missing_libraries_line(missing)
        return f"Qt cannot be loaded: {error}. {_USE_COMPARE}"
    missing = missing_libraries(on_screen=True) if on_screen else []
    return missing_libraries_line(missing) if missing else None


def _x_is_used() -> bool:
    """Whether Qt will open its window on an X display rather than on Wayland or nowhere."""
    wanted = os.environ.get("QT_QPA_PLATFORM", "")
    if wanted:
        return wanted.split(";")[0].split(":")[0] == "xcb"
    return bool(os.environ.get("DISPLAY")) and not os.environ.get("WAYLAND_DISPLAY")


def _wayland_answers(name: str) -> bool:
    path = Path(os.environ.get("XDG_RUNTIME_DIR", "/run/user"), name)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5.0)
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


def _x_answers() -> bool:
    try:
        xcb = ctypes.CDLL("libxcb.so.1")
    except OSError:
        return True  # Nothing to ask with: _qt_problem names the missing library.
    xcb.xcb_connect.restype = ctypes.c_void_p
    xcb.xcb_connection_has_error.argtypes = [ctypes.c_void_p]
    xcb.xcb_disconnect.argtypes = [ctypes.c_void_p]
    connection = xcb.xcb_connect(None, None)
    failed = bool(xcb.xcb_connection_has_error(connection))
    xcb.xcb_disconnect(connection)
    return not failed


def _load_error(library: str) -> str | None:
    """What the dynamic loader says against `library`; None if it loads."""
    try:
        ctypes.CDLL(library)
    except OSError as error:
        return str(error)
    return None
