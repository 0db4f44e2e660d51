"""What a gate and a certificate say of an edit, for its report."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from aizheimer.proof.certificate import FILE_NAME, Certificate, certify
from aizheimer.proof.check import check
from aizheimer.proof.findings import Findings
from aizheimer.proof.gate import load_gate
from aizheimer.proof.verdict import Verdict

PAGE = "certificate.html"
"""The certificate's page, beside its file."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """Whether an edit may be released, and by what.

    Attributes:
        verdict: Of the gate on what the run holds now; None if no gate was asked.
        certificate: As it was written; None if there is none.
        page: Where its page is, as a link from the report; "" if there is none.
        outdated: Whether the run holds other results, or another edit, than the certificate states.
    """

    verdict: Verdict | None = None
    certificate: Certificate | None = None
    page: str = ""
    outdated: bool = False


def release_of(found: Findings, *, gate: str | None = None, report: Path) -> Release:
    """Read the run's certificate, if there is one, and hold the run against a gate.

    What the certificate states of the gate may be of results that have been measured again since, so that its gate is
    asked anew.

    Args:
        found: What the run folder holds.
        gate: A gate file or name; None takes the certificate's, if it has one.
        report: The file that the page is linked from.

    Raises:
        InputError: If there is no such gate.
        DataError: If the certificate is damaged, or a gate is asked and a result does not say which edit it is of.
        EditError: If the edit's files are damaged.
    """
    file = found.folder / FILE_NAME
    certificate = Certificate.load(file) if file.is_file() else None
    verdict = None
    if gate is not None:
        verdict = check(found, load_gate(gate), gate_name=gate)
    elif certificate is not None and (stated := certificate.verdict) is not None:
        verdict = check(found, stated.gate, gate_name=stated.gate_name)
    return Release(
        verdict=verdict,
        certificate=certificate,
        page=_link(found.folder / PAGE, report) if certificate is not None else "",
        outdated=certificate is not None and _stated(certify(found)) != _stated(certificate),
    )


def _stated(certificate: Certificate) -> object:
    """Return what a certificate says of this edit's results, as JSON values: tuples are lists once they were read."""
    return certificate.model_dump(mode="json", include={"target", "edit_sha256", "base_fingerprint", "tried"})


def _link(page: Path, report: Path) -> str:
    if not page.is_file():
        return ""
    return quote(Path(os.path.relpath(page.resolve(), report.resolve().parent)).as_posix())
