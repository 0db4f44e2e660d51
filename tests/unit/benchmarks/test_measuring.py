"""What the benchmarks measure is what the suites measure."""

import importlib.util

import pytest

from aizheimer.evaluation.judges import Judges
from aizheimer.evaluation.suites.families import Families
from tests.architecture.source import REPOSITORY
from tests.tiny import LABELS
from tests.unit.edits.test_edit import edit_of
from tests.unit.evaluation.builders import MemoryJudge
from tests.unit.evaluation.suites.scenes import SETTINGS, scene_of


@pytest.fixture
def bench(tiny_backbone, monkeypatch, tmp_path):
    """The benchmarks' own class around the tiny model."""
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path))
    spec = importlib.util.spec_from_file_location("measuring", REPOSITORY / "benchmarks" / "measuring.py")
    measuring = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measuring)
    monkeypatch.setattr(measuring, "load_model", lambda name: tiny_backbone)
    monkeypatch.setattr(measuring, "SYNONYMS", Families(families=("synonyms",), images=4))
    monkeypatch.setattr(measuring, "load_judges", lambda world: Judges(object=MemoryJudge(LABELS)))
    return measuring.Bench(compiled=False, settings=SETTINGS), measuring


def test_synonyms_are_those_of_the_suite(bench, tiny_backbone):
    made, measuring = bench
    edit = edit_of(tiny_backbone.pipe)
    found = made._synonyms(edit, "santa claus")
    scene = scene_of(tiny_backbone, edit=edit, settings=SETTINGS)
    suite = measuring.SYNONYMS.run(scene).figures["ua.synonyms"]
    assert (found["n"], found["protocol"]) == (4, suite.protocol)
    assert (found["value"], found["original"]) == (suite.value, suite.original)


def test_a_style_has_none(bench, tiny_backbone):
    made, _ = bench
    assert made._synonyms(edit_of(tiny_backbone.pipe), "noto") is None


def test_figures_hold_the_share_of_retained_pictures_that_are_blank(bench, tiny_backbone, monkeypatch):
    made, _ = bench
    monkeypatch.setattr(made, "_features", lambda edit, result: None)
    edit = edit_of(tiny_backbone.pipe)
    row, _ = made.figures(edit, "santa claus")
    assert row["broken_retain"] == made.judged(edit, "santa claus").broken_retain.model_dump(mode="json")
    assert row["broken_retain"].keys() == {"edited", "original"}
