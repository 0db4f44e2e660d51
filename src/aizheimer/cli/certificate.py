"""``aizheimer certificate``: what can be vouched for."""

from __future__ import annotations

from typing import Annotated

import typer

from aizheimer.cli import streams
from aizheimer.cli.options import Debug, Json, Run


def certificate(
    run: Run,
    *,
    gate: Annotated[
        str,
        typer.Option("--gate", metavar="FILE|NAME", help="The gate whose verdict is stated: release, quick, a file."),
    ] = "release",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """State which edit of which model this is, what was tried on it, what was not, and the gate's verdict.

    Writes certificate.json and certificate.html into the run. A gate that is not met is stated, not an error: `check`
    is what stops a release.
    """
    del debug
    from aizheimer.proof.certificate import FILE_NAME, certify
    from aizheimer.proof.check import check
    from aizheimer.proof.findings import read_findings
    from aizheimer.proof.gate import load_gate
    from aizheimer.reports.certificate_page import write_certificate_page

    limits = load_gate(gate)
    found = read_findings(run)
    stated = certify(found, verdict=check(found, limits, gate_name=gate))
    stated.save(run / FILE_NAME)
    page = write_certificate_page(run / "certificate.html", stated)
    if as_json:
        streams.print_json(stated.model_dump(mode="json"))
        return
    met = "met" if stated.verdict is not None and stated.verdict.passed else "not met"
    streams.print_result(f"certificate  {run / FILE_NAME}")
    streams.print_result(f"page         {page}")
    streams.print_result(f"gate         {gate} is {met}")
    streams.print_result(f"tried        {', '.join(tried.name for tried in stated.tried) or 'nothing'}")
    streams.print_result(f"not tried    {', '.join(missing.name for missing in stated.not_tried) or 'nothing'}")
