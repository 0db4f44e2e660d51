"""A certificate as a page for people."""

from __future__ import annotations

from pathlib import Path

from aizheimer._files import write_text
from aizheimer._records import flat
from aizheimer.proof.bounds import widened
from aizheimer.proof.certificate import Certificate
from aizheimer.reports.page import render_page


def render_certificate(certificate: Certificate) -> str:
    """Return the certificate as HTML that needs no second file.

    Where all pictures agree the interval is that of the rule of three, as in a gate.
    """
    return render_page("certificate.html", certificate=certificate, widened=widened, flat=flat)


def write_certificate_page(path: Path, certificate: Certificate) -> Path:
    """Write the page, all of it or nothing."""
    write_text(path, render_certificate(certificate))
    return path
