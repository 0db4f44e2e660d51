"""Method and attack pages have one form, and what is generated of them is what the code says."""

import importlib.util
import re
import sys

import pytest

from aizheimer._registry import ATTACKS, METHODS
from aizheimer.cli.method_page import parameters
from tests.docs.snippets import REPOSITORY

DOCS = REPOSITORY / "docs"
METHOD_FORM = (
    *("What it does", "How it works", "When to use it", "When not", "Parameters", "Cost", "Measured here"),
    *("Known problems", "References", "Difference from the authors' code"),
)
ATTACK_FORM = (
    *("What it does", "How it works", "What the attacker must have", "Parameters", "Cost", "Measured here"),
    *("Known problems", "References", "Differences from the authors' code"),
)
OPTIONAL = {"References", "Difference from the authors' code", "Differences from the authors' code"}


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("docs_reference", DOCS / "reference.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


PAGES = [("methods", name, METHOD_FORM) for name in METHODS.names()]
PAGES += [("attacks", name, ATTACK_FORM) for name in ATTACKS.names()]


@pytest.mark.parametrize(("folder", "name", "form"), PAGES, ids=[name for _, name, _ in PAGES])
def test_pages_have_one_form(folder, name, form):
    text = (DOCS / folder / f"{name}.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert headings == [heading for heading in form if heading in headings], "in this order, each once"
    assert set(form) - set(headings) <= OPTIONAL
    section = text.split("## Measured here")[1].split("\n## ")[0]
    assert "<!-- measured -->" in section or re.search(
        "<!-- measured: begin -->.*<!-- measured: end -->", section, re.DOTALL
    )
    for section in re.split(r"^## .*$", text, flags=re.MULTILINE)[1:]:
        assert section.strip(), "a heading without content"
    assert "<!-- glance: end -->" in text
    assert "<!-- parameters: end -->" in text


def test_what_is_generated_is_current(reference):
    stale = [str(path.relative_to(DOCS)) for path in reference.outdated()]
    assert stale == [], "run: make reference"


def test_a_change_of_the_code_would_be_found(reference):
    blocks = reference.method_blocks("uce")
    page = (DOCS / "methods" / "uce.md").read_text(encoding="utf-8")
    assert reference.with_blocks(page, blocks) == page
    assert reference.with_blocks(page, {"parameters": "other"}) != page
    assert "`ridge`" in blocks["parameters"]


@pytest.mark.parametrize("name", METHODS.names())
def test_every_parameter_stands_in_a_table_with_its_default(reference, name):
    """Those of groups that are off by default too: a table of the defaults alone would leave them out."""
    kind = METHODS.get(name)
    wanted = {f["name"]: f["default"] for f in parameters(kind())}
    for group, its in reference.optional_groups(kind).items():
        wanted |= {f["name"]: f["default"] for f in parameters(its(), f"{group}.")}
    block = (DOCS / "methods" / f"{name}.md").read_text(encoding="utf-8").split("<!-- parameters: begin -->")[1]
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", block.split("<!-- parameters: end -->")[0], flags=re.MULTILINE)
    assert [row for row, _ in rows if [r for r, _ in rows].count(row) > 1] == []
    assert dict(rows) == {key: reference.code(value).strip("`").replace("|", "\\|") for key, value in wanted.items()}


def test_a_group_that_is_off_is_told_from_one_that_a_recipe_switches_on(reference):
    block = reference.method_blocks("aizheimer")["parameters"]
    assert '| `start` | `null` | `{"residual": 0.1, "metric": "identity"}` |' in block
    assert "Where `start` is on (`start={}`, or any of these): The recipe switches it on." in block
    assert "Where `bank` is on (`bank={}`, or any of these):\n" in block
    assert "| `bank` | `null` |  |" in block


def test_the_reference_names_every_command_and_option(reference):
    page = reference.cli_page()
    for word in ("## forget", "## tune", "`--require`", "`--minimise`", "`--resume`", "`CONCEPT`"):
        assert word in page


@pytest.mark.parametrize("path", sorted((DOCS).rglob("*.md")), ids=lambda path: path.name)
def test_tables_have_equal_rows(path):
    """A bar that is not escaped shifts a whole table, and nothing else notices."""
    for block in re.findall(r"(?:^\|.*\|$\n?)+", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
        bare = block.replace("\\|", "")
        rows = [re.sub(r"`[^`]*`|\$[^$]*\$", "", row) for row in bare.splitlines()]
        assert len({row.count("|") for row in rows}) == 1, rows[0]
