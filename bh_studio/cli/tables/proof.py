"""What a terminal says of the proof of a comparison."""

from __future__ import annotations

import textwrap

from bh_studio.cli.tables.table import aligned
from bh_studio.engine.records.proofs.proof import Check, Proof
from bh_studio.engine.units import counted

_WIDTH = 88
_OUTCOMES = {True: "passed", False: "FAILED", None: "not finished"}


def proof_lines(proof: Proof) -> list[str]:
    """Each check and what came of it, what was compared, and what it means if one failed."""
    heads = aligned([(_OUTCOMES[check.passed], check.name) for check in proof.checks], left=2)
    lines = ["Proof:"]
    for head, check in zip(heads, proof.checks, strict=True):
        lines.append(f"  {head}")
        lines += textwrap.wrap(
            _found(check), _WIDTH, initial_indent="    ", subsequent_indent="    "
        )
    return [*lines, *textwrap.wrap(verdict(proof), _WIDTH)]


def verdict(proof: Proof) -> str:
    """What came of all checks, in a sentence or two."""
    checks, failed, unfinished = len(proof.checks), len(proof.failed), len(proof.unfinished)
    if not failed and not unfinished:
        return f"The proof passed: {counted(checks, 'check')}."
    said = []
    if failed:
        said.append(
            f"The proof FAILED in {failed} of {counted(checks, 'check')}: do not take a difference "
            "between the sides for the rule's doing before this is explained."
        )
    if unfinished:
        said.append(f"The proof is not finished: {', '.join(c.name for c in proof.unfinished)}.")
    return " ".join(said)


def _found(check: Check) -> str:
    if check.passed is None:
        return check.problem
    said = (
        f"{check.compared} ({counted(check.positions, 'position')}, "
        f"{counted(check.layers, 'layer')}, {check.numbers:,} numbers)."
    )
    return f"{said} {check.problem}".rstrip()
