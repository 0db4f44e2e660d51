"""The site is built without a warning: links, anchors, navigation and the Python reference hold."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.docs.snippets import REPOSITORY

NEEDED = ("mkdocs", "material", "mkdocstrings", "l2m4m")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (make docs installs them)"),
]


def build(site, *options):
    """Build; without --quiet, which would take warnings away before --strict counts them."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site), *options]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def test_the_site_is_built_strictly(tmp_path):
    done = build(tmp_path / "site")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "site" / "architecture" / "index.html").is_file()
    page = (tmp_path / "site" / "methods" / "uce" / "index.html").read_text(encoding="utf-8")
    assert "<math" in page, "equations are MathML, which needs no script"


def test_a_broken_link_would_be_found(tmp_path):
    """The same options over one page that links to nowhere."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[nowhere](missing.md)\n", encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text("site_name: broken\n", encoding="utf-8")
    done = build(tmp_path / "site", "--config-file", str(tmp_path / "mkdocs.yml"))
    assert done.returncode != 0
    assert "missing.md" in done.stderr
