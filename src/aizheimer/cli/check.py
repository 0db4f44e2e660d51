"""``aizheimer check``: may this edit be released."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aizheimer.cli import streams
from aizheimer.cli.options import Debug, Json, Run
from aizheimer.errors import GateError

if TYPE_CHECKING:
    from aizheimer.proof.verdict import Verdict


def check(
    run: Run,
    *,
    gate: Annotated[
        str, typer.Option("--gate", metavar="FILE|NAME", help="A gate file, or one that ships: release, quick.")
    ] = "release",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Hold what was found about an edit against a gate; exit with 0, or with 3 and the failing lines named.

    Draws nothing: it reads evaluation.json, suite-*.json and attack-*.json of the run. A file that the gate needs and
    that is not there is a failing line that says which command makes it.
    """
    del debug
    from aizheimer.proof.check import check as hold
    from aizheimer.proof.findings import read_findings
    from aizheimer.proof.gate import load_gate

    limits = load_gate(gate)
    verdict = hold(read_findings(run), limits, gate_name=gate)
    if as_json:
        content = {"passed": verdict.passed, "faults": verdict.faults, **verdict.model_dump(mode="json")}
        streams.print_json({"run": str(run), **content})
    else:
        print_verdict(verdict)
    if not verdict.passed:
        raise GateError(f"{run}: {verdict.brief}.")


def print_verdict(verdict: Verdict) -> None:
    """Print a line for everything that the gate asked."""
    for line in verdict.lines:
        mark = "holds" if line.passed else "FAILS"
        found = f"found {line.shown}, " if line.found else ""
        streams.print_result(f"{mark}  {line.rule}: {found}wanted {line.wanted}")
        if line.reason:
            streams.print_result(f"       {line.reason}")
    for fault in verdict.faults:
        from aizheimer.proof.verdict import FAULTS

        streams.print_result(f"fault  {fault}: {FAULTS[fault]}")
