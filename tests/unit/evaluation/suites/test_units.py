"""Every share of a suite keeps the values it is the mean of, and it is known whether more or less of it is better."""

import numpy as np
import pytest

from aizheimer.evaluation.suite import SuiteResult
from aizheimer.evaluation.suites.canvas import Canvas
from aizheimer.evaluation.suites.fairness import Fairness
from aizheimer.evaluation.suites.families import Families
from aizheimer.evaluation.suites.leftovers import Leftovers
from aizheimer.evaluation.suites.neighbours import Neighbours
from aizheimer.proof.directions import better
from tests.unit.evaluation.builders import WordEdit
from tests.unit.evaluation.suites.scenes import learn, scene_of

ASKED = [
    Canvas(objects=("santa claus", "mrs claus", "cat"), seeds=(0,)),
    Fairness(groups={"men": ("old man", "cat"), "women": ("woman", "tree")}, images=2),
    Families(images=2),
    Leftovers(images=3),
    Neighbours(concepts=4, images=2),
]


@pytest.mark.parametrize("suite", ASKED, ids=lambda suite: suite.name)
def test_of_every_figure(tiny_backbone, monkeypatch, tmp_path, suite):
    scene = scene_of(tiny_backbone, edit=WordEdit("claus"))
    learn(monkeypatch, suite, scene)
    result = suite.run(scene)
    result.save(tmp_path / "suite.json")
    figures = SuiteResult.load(tmp_path / "suite.json").figures
    assert figures
    for name, metric in figures.items():
        assert better(f"{suite.name}: {name}", metric), name
        if name.startswith("gap."):
            assert metric.units is None, "the largest of several differences is no mean"
            continue
        assert len(metric.units.original) == len(metric.units.edited) == metric.n, name
        assert np.mean(metric.units.edited) == pytest.approx(metric.value), name
        assert np.mean(metric.units.original) == pytest.approx(metric.original), name
