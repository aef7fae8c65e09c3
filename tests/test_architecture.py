"""The laws of the house: who may import whom, what loads when, and what no source may contain."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "bh_studio"
SOURCES = {path: path.relative_to(PACKAGE).as_posix() for path in sorted(PACKAGE.rglob("*.py"))}
QT = ("PySide6", "shiboken6", "pyqtgraph")
HEAVY = ("torch", "transformers", "tokenizers", "safetensors")


def run_python(code: str, *arguments: str) -> str:
    """Standard output of `code` in a Python of its own; the test fails if that fails."""
    answer = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def loaded_after(code: str, *arguments: str) -> set[str]:
    """Top-level modules that a Python has loaded when `code` has run."""
    report = "import sys; print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    answer = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr
    return set(answer.stderr.split())


def imports_of(path: Path) -> set[str]:
    """Every name that a source imports at any place: "a.b" for `from a import b`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_import_contracts_hold() -> None:
    answer = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stdout


def test_only_the_window_knows_qt() -> None:
    strays = {}
    for path, name in SOURCES.items():
        qt = {imported for imported in imports_of(path) if imported.startswith(QT)}
        if qt and name != "app.py" and not name.startswith("ui/"):
            strays[name] = qt
    assert strays == {}


def test_state_knows_no_widget() -> None:
    allowed = ("PySide6.QtCore.", "PySide6.QtGui.")
    strays = {}
    for path, name in SOURCES.items():
        if name.startswith("ui/state/"):
            qt = {imported for imported in imports_of(path) if imported.startswith(QT)}
            if not all(imported.startswith(allowed) for imported in qt):
                strays[name] = qt
    assert strays == {}


def test_the_engine_thread_knows_no_widget() -> None:
    found = imports_of(PACKAGE / "ui" / "engine_thread.py")
    assert {name.rpartition(".")[0] for name in found if name.startswith(QT)} == {"PySide6.QtCore"}
    assert [name for name in found if name.startswith("bh_studio.ui")] == []


def test_rooms_stay_small_enough_to_be_seen_at_once() -> None:
    folders = {path.parent for path in SOURCES}
    crowded = {str(f): len(list(f.glob("*.py"))) for f in folders if len(list(f.glob("*.py"))) > 20}
    assert crowded == {}
    ground = {path.stem for path in (PACKAGE / "engine").glob("*.py")} - {"__init__"}
    assert len(ground) <= 7


def test_engine_imports_without_pyside_and_triton() -> None:
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in sorted((PACKAGE / "engine").rglob("*.py"))
        if path.stem != "__init__" and not needs_triton(path)
    ]
    run_python(
        "import importlib, sys\n"
        # None: importing it raises.
        f"sys.modules.update(dict.fromkeys({(*QT, 'triton')!r}))\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "from bh_studio.engine import BHRoutingIntegration\n",
        *modules,
    )


def needs_triton(path: Path) -> bool:
    """Kernels, and what starts them: imported only once it is known that they can run."""
    return path.stem.endswith("_kernels") or path.stem in ("gpu_graph", "selection_cuda")


def test_engine_compares_without_pyside() -> None:
    output = run_python(
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({QT!r}))\n"
        "from bh_studio.__main__ import main\n"
        "sys.exit(main(['compare', 'Once upon a time', '--max-new-tokens', '4']))\n"
    )
    assert "mean experts" in output


@pytest.mark.parametrize("module", ["bh_studio.app", "bh_studio.ui.engine_thread"])
def test_window_loads_without_torch(module: str) -> None:
    assert loaded_after(f"import {module}").isdisjoint(HEAVY)


def test_every_widget_loads_without_torch() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in PACKAGE.glob("ui/**/*.py")
    ]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    assert loaded_after(code, *modules).isdisjoint(HEAVY)


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_load_nothing_heavy(argument: str) -> None:
    code = (
        "import contextlib, sys\n"
        "from bh_studio.__main__ import main\n"
        "with contextlib.suppress(SystemExit): main(sys.argv[1:])"
    )
    assert loaded_after(code, argument).isdisjoint(HEAVY + QT)


def test_the_program_starts_without_its_commands() -> None:
    loaded = run_python(
        "import sys\n"
        "from bh_studio.__main__ import build_parser\n"
        "build_parser().parse_args([])\n"
        "print(*sys.modules, sep='\\n')\n"
    ).split()
    assert "bh_studio.cli" in loaded
    assert [name for name in loaded if name.startswith("bh_studio.cli.commands")] == []


def test_a_replay_loads_no_transformers() -> None:
    code = "import sys\nfrom bh_studio.__main__ import main\nmain(sys.argv[1:])"
    logits = ROOT / "tests/data/olmoe_router_logits_160.npz"
    loaded = loaded_after(code, "replay", str(logits), "--rule", "cut:0.04")
    assert "torch" in loaded
    assert loaded.isdisjoint({"transformers", "tokenizers", *QT})


def test_sources_stay_clear_of_what_runs_foreign_code() -> None:
    unsafe_modules = {"pickle", "marshal", "shelve", "dill", "joblib"}
    # setHtml: a model's text is shown as it is; as HTML it could draw links and pictures.
    unsafe_calls = re.compile(
        r"(?:allow_pickle|trust_remote_code)\s*=\s*True|\.setHtml\(|\.terminate\(\)|torch\.load\("
    )
    strays = {}
    for path, name in SOURCES.items():
        modules = {imported.partition(".")[0] for imported in imports_of(path)}
        found = unsafe_calls.findall(path.read_text(encoding="utf-8"))
        if found or modules & unsafe_modules:
            strays[name] = [*found, *modules & unsafe_modules]
    assert strays == {}


def test_every_package_is_installed() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        named = tomllib.load(file)["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in SOURCES}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []
    found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(named) == found | {"bh_studio.resources"}


def test_every_module_says_what_it_owns() -> None:
    parsed = {name: ast.parse(path.read_text(encoding="utf-8")) for path, name in SOURCES.items()}
    assert [name for name, module in parsed.items() if not ast.get_docstring(module)] == []
