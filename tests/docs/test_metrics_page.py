"""Every metric that the code can output has a section of one form, and its papers are in the index."""

import ast
import re
import typing

import pytest

from aizheimer.attacks.results import AttackResult, Rate
from aizheimer.evaluation.calibration import Calibration
from aizheimer.evaluation.results import EvaluationResult, Metric, Pair
from aizheimer.evaluation.suites.quality import Quality
from tests.docs.snippets import REPOSITORY

PAGE = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
FORM = ["written as", "what it is", "definition", "unit and range", "needs", "interval", "does not tell", "reference"]
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]}


def rows(section):
    """Return the rows of a section's table, by their label."""
    return re.findall(r"^\| (\w[\w ]*) \| (.+) \|$", section.split("\n## ")[0], flags=re.MULTILINE)


def written():
    """Return every name that the page says a metric is written as, up to what a suite fills in."""
    cells = " ".join(dict(rows(section))["written as"] for section in SECTIONS.values())
    return {name.partition("<")[0].rstrip(".") for name in re.findall(r"`([^`]+)`", cells)}


def of_suites():
    """Return the names of figures that suites give, from their source: the first part where the rest is filled in."""
    found = set()
    for path in sorted((REPOSITORY / "src/aizheimer/evaluation/suites").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.returns and "dict[str, Metric]" in ast.unparse(node.returns):
                for inner in ast.walk(node):
                    found |= {name for key in getattr(inner, "keys", []) or [] if (name := text_of(key))}
            is_figure = isinstance(node, ast.Subscript) and ast.unparse(node.value) == "figures"
            if is_figure and (name := text_of(node.slice)):
                found.add(name)
            if is_figure and isinstance(node.slice, ast.IfExp):
                found |= {text_of(node.slice.body), text_of(node.slice.orelse)}
    return found - {"judge", "protocol", "unit"}  # what a figure is measured with


def text_of(node):
    """Return a string, or what an f-string begins with."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        return node.values[0].value.rstrip(".")
    return None


def of_results():
    """Return the fields of results that hold a measured value."""
    kinds = {Metric: EvaluationResult, Pair: EvaluationResult, Calibration: EvaluationResult, Rate: AttackResult}
    found = {"unchanged_share", "unchanged_retain_share"}
    for kind, result in kinds.items():
        for name, info in result.model_fields.items():
            if kind in (info.annotation, *typing.get_args(info.annotation)):
                found.add(name)
    return found


def of_quality():
    (names,) = [a for a in typing.get_args(Quality.model_fields["metrics"].annotation) if typing.get_args(a)]
    return set(typing.get_args(names))


@pytest.mark.parametrize("name", SECTIONS)
def test_sections_have_one_form(name):
    assert [label for label, _ in rows(SECTIONS[name])] == FORM
    assert all(len(cell) >= 4 for _, cell in rows(SECTIONS[name]))


def test_every_metric_of_the_code_has_a_section():
    suites, results, quality = of_suites(), of_results(), of_quality()
    assert {"ua", "ira", "gap", "likeness", "nudity"} <= suites, "the scan finds what is known to be there"
    assert {"ua", "near", "broken", "asr", "before"} <= results
    assert {"fid", "perceptual"} <= quality
    names = written() | {name.partition(".")[0] for name in written()}
    assert {name for name in suites | results | quality if name not in names} == set()


def test_every_name_on_the_page_is_one_of_the_code():
    """A metric that was renamed would otherwise be explained under a name that nobody finds."""
    source = "\n".join(p.read_text(encoding="utf-8") for p in (REPOSITORY / "src" / "aizheimer").rglob("*.py"))
    parts = {part for name in written() for part in name.split(".")}
    assert {part for part in parts if part not in source} == set()


def test_papers_of_metrics_are_in_the_index():
    index = (REPOSITORY / "docs" / "papers.md").read_text(encoding="utf-8")
    papers = {p for s in SECTIONS.values() for p in re.findall(r"arxiv.org/abs/([\d.]+)", dict(rows(s))["reference"])}
    assert len(papers) >= 8
    assert {paper for paper in papers if f"abs/{paper}" not in index} == set()
    assert "| metric |" in index
