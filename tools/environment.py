"""Makes or brings up to date the virtual environment that `make run` and `make test` use.

Runs on any python3 with nothing installed, so that it can say what is missing: on Debian and as
root it installs that itself, elsewhere it names it. Knows BH Studio only as something to install.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 11), (3, 13)
VERSIONS = "Python 3.11, 3.12 or 3.13"


def main() -> None:
    """Install what the command line asks for; exit 1 with one message where that fails."""
    parser = argparse.ArgumentParser(description="Make or bring up to date the environment.")
    parser.add_argument("--venv", default=".venv", help="folder of the environment")
    parser.add_argument("--test", action="store_true", help="with what the checks need")
    parser.add_argument("--screen", action="store_true", help="with what a window on X needs")
    arguments = parser.parse_args()
    use_supported_python()
    folder = Path(os.path.abspath(arguments.venv))
    python = folder / "bin" / "python"
    if not is_usable(python):
        make_environment(folder)
    install_package(folder, python, arguments.test)
    install_qt_libraries(python, arguments.screen)


def use_supported_python() -> None:
    """Go on under a Python that BH Studio supports, or end with what is needed."""
    if OLDEST <= python_version() <= NEWEST:
        return
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        other = shutil.which(f"python3.{minor}")
        if other:
            os.execv(other, [other, *sys.argv])
    fail(
        "BH Studio needs {}; python3 is {}.{} and no other was found. Install one, or name it: "
        "make PYTHON=/path/to/python3.12 ...".format(VERSIONS, *python_version())
    )


def python_version() -> tuple[int, int]:
    """Version of the Python that runs this."""
    return sys.version_info[:2]


def is_usable(python: Path) -> bool:
    """Whether the environment's Python starts, is of a supported version and has pip."""
    check = f"import sys, pip; sys.exit(not ({OLDEST} <= sys.version_info[:2] <= {NEWEST}))"
    return python.exists() and run_quietly([str(python), "-c", check]) == 0


def make_environment(folder: Path) -> None:
    """Make `folder` a fresh virtual environment."""
    if run_quietly([sys.executable, "-c", "import venv, ensurepip"]) != 0:
        package = "python{}.{}-venv".format(*python_version())
        if not apt_install([package]):
            fail(
                "This python3 cannot make virtual environments (venv or ensurepip is missing). "
                f"On Debian or Ubuntu: apt-get install {package}"
            )
    say(f"making {folder.name} with Python {sys.version.split()[0]}")
    run([sys.executable, "-m", "venv", "--clear", str(folder)], "The environment was not made.")


def install_package(folder: Path, python: Path, with_tests: bool) -> None:
    """Install BH Studio and what it needs, unless exactly that was done before."""
    extras = ("test",) if with_tests else ()
    stamps = [stamp(folder, ("test",)), stamp(folder, extras)]
    if any(path.exists() for path in stamps):
        return
    say("installing (the first time takes minutes)")
    target = ".[test]" if with_tests else "."
    run(
        [
            *(str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"),
            *("--editable", target, "--constraint", "constraints.txt"),
        ],
        "The installation failed; the lines above say why.",
        # The build backend's reminder of what an editable installation is would fill the screen.
        PYTHONWARNINGS="ignore",
    )
    for old in folder.glob("bh-studio-*.stamp"):
        old.unlink()
    stamps[-1].touch()


def stamp(folder: Path, extras: tuple[str, ...]) -> Path:
    """The file whose presence says: installed, from these files, into this folder."""
    content = hashlib.sha256(str(folder).encode())
    content.update(os.path.realpath(folder / "bin" / "python").encode())
    for name in ("pyproject.toml", "constraints.txt"):
        content.update((ROOT / name).read_bytes())
    return folder / "bh-studio-{}.stamp".format("-".join((*extras, content.hexdigest()[:16])))


def install_qt_libraries(python: Path, on_screen: bool) -> None:
    """Install the system libraries that Qt cannot load, or end with their names."""
    missing = missing_qt_libraries(python, on_screen)
    if missing and apt_install(ask_display(python, f"debian_packages({missing!r})")):
        missing = missing_qt_libraries(python, on_screen)
    if missing:
        fail(ask_display(python, f"[missing_libraries_line({missing!r})]")[0])


def missing_qt_libraries(python: Path, on_screen: bool) -> list[str]:
    """Names of the libraries, found by the environment's Python by loading them."""
    return ask_display(python, f"missing_libraries(on_screen={on_screen})")


def ask_display(python: Path, expression: str) -> list[str]:
    """Lines that `expression` gives in bh_studio.display."""
    code = f"from bh_studio.display import *; print(*{expression}, sep='\\n')"
    answer = subprocess.run(
        [str(python), "-c", code], cwd=str(ROOT), stdout=subprocess.PIPE, text=True
    )
    if answer.returncode != 0:
        fail("The installation is broken. Remove the environment and try again.")
    return answer.stdout.split("\n")[:-1] if answer.stdout.strip() else []


def apt_install(packages: list[str]) -> bool:
    """Install Debian `packages`; False where this is not Debian, not root, or apt-get fails."""
    if not packages or os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    say("installing {}".format(" ".join(packages)))
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    # A list that could not be brought up to date often serves all the same: no matter.
    for command in (["apt-get", "update", "-qq"], install):
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
    return done.returncode == 0


def run(command: list[str], failure: str, **variables: str) -> None:
    """Run `command` in the checkout; end with `failure` if it fails."""
    environment = dict(os.environ, **variables)
    done = subprocess.run(command, cwd=str(ROOT), env=environment, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        fail(failure)


def run_quietly(command: list[str]) -> int:
    """Exit status of `command`, its output thrown away."""
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


def say(message: str) -> None:
    print(f"environment: {message}", flush=True)


def fail(message: str) -> NoReturn:
    sys.exit(f"environment: {message}")


if __name__ == "__main__":
    main()
