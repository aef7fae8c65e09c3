"""Tokens per second in the window against the same run in the terminal.

    QT_QPA_PLATFORM=offscreen python -m benchmarks.window_speed --out FILE

The same comparison on the embedded model, `bh-studio compare` and the window in turns, each in a
process of its own; a side's speed is over its own computing time, as the saved sessions have it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.summary import publish, spread
from bh_studio.engine.records.session_file import load_session
from bh_studio.engine.rules.sides import side_letter

_PROMPT = "Once upon a time there was a little girl who"


def main() -> None:
    """Measure, print, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    speeds: dict[str, list[tuple[float, ...]]] = {"terminal": [], "window": []}
    environment = {}
    with tempfile.TemporaryDirectory() as folder:
        homes = {f"XDG_{name}_HOME": folder for name in ("CONFIG", "DATA", "STATE")}
        path = Path(folder, "run.bhsession")
        common = ["--max-new-tokens", str(arguments.tokens)]
        commands = {
            "terminal": ["compare", _PROMPT, "--rule", "bh:0.05", "--out", str(path), *common],
            "window": ["--prompt", _PROMPT, "--rule", "bh:0.05", "--run", "--quit",
                       "--save", str(path), *common],
        }  # fmt: skip
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                path.unlink(missing_ok=True)
                subprocess.run(
                    [sys.executable, "-m", "bh_studio", *command],
                    env={**os.environ, **homes},
                    check=True,
                    capture_output=True,
                )
                session = load_session(path)
                environment = session.environment
                speeds[name].append(tuple(r.tokens_per_second or 0.0 for r in session.records))
    sides = range(len(speeds["window"][0]))
    result = {
        "what": "tokens per second of each side, in the window and in the terminal, in turns",
        "tokens_a_side": arguments.tokens,
        "rounds": arguments.rounds,
        **{
            name: {side_letter(side): spread([one[side] for one in of]) for side in sides}
            for name, of in speeds.items()
        },
        "window over terminal": {
            side_letter(side): spread(
                [
                    here[side] / there[side]
                    for here, there in zip(speeds["window"], speeds["terminal"], strict=True)
                ]
            )
            for side in sides
        },
        "environment": environment,
    }
    publish(result, arguments.out)


if __name__ == "__main__":
    main()
