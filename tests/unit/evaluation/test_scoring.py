"""The wiring from names to metrics, on a table small enough to count by hand."""

import numpy as np
import pytest

from aizheimer.concepts.concept import Concept
from aizheimer.evaluation.flags import collapse_reasons, no_op_reasons, weak_target_reasons
from aizheimer.evaluation.judges import Judges
from aizheimer.evaluation.plan import PlannedImage
from aizheimer.evaluation.results import Pair
from aizheimer.evaluation.scoring import Sight, accuracies, ineffective_prompts, neighbour_results
from aizheimer.evaluation.settings import EvaluationSettings
from tests.unit.evaluation.builders import MemoryJudge

OBJECTS = MemoryJudge(("santa", "cat", "dog", "tree"), name="objects")
STYLES = MemoryJudge(("noto", "flat"), name="styles")
# role, object, style; object and style seen before; after
ROWS = [
    ("target", "santa", "noto", "santa", "noto", "cat", "noto"),
    ("target", "santa", "flat", "cat", "flat", "santa", "flat"),
    ("target", "santa", "flat", "santa", "flat", None, None),
    ("neighbour", "cat", "noto", "cat", "noto", "cat", "flat"),
    ("neighbour", "cat", "flat", "cat", "flat", "dog", "flat"),
    ("neighbour", "dog", "noto", "dog", "noto", "dog", "noto"),
    ("other", "tree", "flat", "tree", "noto", "tree", None),
]
PLAN = [PlannedImage(row[0], f"{row[1]} in {row[2]} style", 0, row[1], row[2]) for row in ROWS]
SIGHT = Sight(
    original_object=[row[3] for row in ROWS],
    original_style=[row[4] for row in ROWS],
    edited_object=[row[5] for row in ROWS],
    edited_style=[row[6] for row in ROWS],
)
SETTINGS = EvaluationSettings(bootstrap=50)


def measure(concept, judges, plan=PLAN, sight=SIGHT, settings=SETTINGS):
    return accuracies(concept, plan=plan, sight=sight, judges=judges, settings=settings)


def test_an_object_as_target():
    metrics, missing = measure(Concept("Santa"), Judges(OBJECTS, STYLES))
    found = {name: (metric.original, metric.value, metric.n) for name, metric in metrics.items()}
    assert found == {
        "ua": (pytest.approx(1 / 3), pytest.approx(2 / 3), 3),
        "ira": (1.0, pytest.approx((0.5 + 1 + 1) / 3), 3),
        "near": (1.0, pytest.approx((0.5 + 1) / 2), 2),
        "far": (1.0, 1.0, 1),
        "cra": (pytest.approx(3 / 4), pytest.approx(2 / 4), 4),
    }
    assert metrics["ua"].judge == "objects"
    assert metrics["cra"].judge == "styles"
    assert missing == []


def test_a_style_as_target_swaps_the_domains():
    plan = [
        PlannedImage("target", "cat in noto style", 0, "cat", "noto"),
        PlannedImage("target", "dog in noto style", 0, "dog", "noto"),
        PlannedImage("neighbour", "cat in flat style", 0, "cat", "flat"),
        PlannedImage("neighbour", "dog in flat style", 0, "dog", "flat"),
    ]
    sight = Sight(
        original_object=["cat", "dog", "cat", "dog"],
        original_style=["noto", "noto", "flat", "flat"],
        edited_object=["dog", "dog", "cat", "cat"],
        edited_style=["flat", "noto", "flat", "noto"],
    )
    metrics, _ = measure(Concept("noto", kind="style"), Judges(OBJECTS, STYLES), plan, sight)
    assert {name: metric.value for name, metric in metrics.items()} == {"ua": 0.5, "ira": 0.5, "near": 0.5, "cra": 0.5}
    assert metrics["ua"].judge == "styles"
    assert "other styles" in metrics["ira"].protocol


def test_ratio_change_and_interval():
    ua = measure(Concept("santa"), Judges(OBJECTS, STYLES))[0]["ua"]
    assert ua.ratio == pytest.approx(2)
    assert ua.change == pytest.approx(1 / 3)
    assert ua.interval[0] <= ua.value <= ua.interval[1]
    assert ua.change_interval[0] <= ua.change <= ua.change_interval[1]


def test_without_judges_nothing_is_made_up():
    metrics, missing = measure(Concept("santa"), Judges(), sight=Sight())
    assert metrics == {}
    assert len(missing) == 2
    assert all("judge" in line for line in missing)


def test_a_target_the_judge_does_not_know_is_said_and_the_rest_is_measured():
    metrics, missing = measure(Concept("snta"), Judges(OBJECTS, STYLES))
    assert set(metrics) == {"ira", "near", "far", "cra"}
    assert missing == ["not measured: UA, for the object judge has no class 'snta'. Did you mean 'santa'?"]


def test_concepts_the_judge_does_not_know_count_for_nothing():
    judge = MemoryJudge(("santa", "cat", "dog"), name="objects")
    metrics, missing = measure(Concept("santa"), Judges(judge, STYLES))
    assert metrics["ira"].n == 2
    assert "far" not in metrics
    assert missing == ["left out, for the object judge has no such class: tree"]
    assert neighbour_results(judge, "object", "other", plan=PLAN, sight=SIGHT, similarity={}) == []


class TestPromptsThatDoNotWork:
    """Three prompts ask for Santa; the unedited model never shows it for "b", and for "c" once in two pictures."""

    plan = tuple(PlannedImage("target", prompt, seed, "santa") for seed, prompt in enumerate("abcbc"))
    sight = Sight(
        original_object=["santa", "cat", "santa", None, "cat"], edited_object=["santa", "cat", "dog", "dog", "dog"]
    )

    def ua(self, *, effective_only, sight=sight):
        settings = SETTINGS.model_copy(update={"effective_only": effective_only})
        return measure(Concept("Santa"), Judges(OBJECTS, None), self.plan, sight, settings)

    def test_they_are_named(self):
        found = ineffective_prompts("santa", "object", plan=self.plan, sight=self.sight)
        assert found == {"b": 0.0}, "half is often enough"

    def test_they_count(self):
        metric = self.ua(effective_only=False)[0]["ua"]
        assert (metric.n, metric.original, metric.value) == (5, 3 / 5, 4 / 5)
        assert "only" not in metric.protocol

    def test_they_are_left_out_on_request_and_the_protocol_says_so(self):
        metric = self.ua(effective_only=True)[0]["ua"]
        assert (metric.n, metric.original, metric.value) == (3, pytest.approx(1 / 3), pytest.approx(2 / 3))
        assert metric.protocol.endswith("prompts that the unedited model shows it on only")

    def test_with_none_left_nothing_is_measured(self):
        blind = Sight(original_object=[None] * 5, edited_object=self.sight.edited_object)
        metrics, missing = self.ua(effective_only=True, sight=blind)
        assert "ua" not in metrics
        assert "not measured: UA, for the unedited model shows 'Santa' on none of its prompts" in missing


def test_neighbours_one_by_one():
    results = neighbour_results(OBJECTS, "object", "neighbour", plan=PLAN, sight=SIGHT, similarity={"cat": 0.9})
    rows = [(r.label, r.original, r.edited, r.similarity, r.n) for r in results]
    assert rows == [("cat", 1.0, 0.5, 0.9, 2), ("dog", 1.0, 1.0, None, 1)]


class TestFlags:
    def metric(self, original, edited):
        from aizheimer.evaluation.results import Metric

        values = np.array([1.0] * edited + [0.0] * (10 - edited))
        before = np.array([1.0] * original + [0.0] * (10 - original))
        return Metric.measure(before, values, unit="images", judge="", protocol="", settings=SETTINGS)

    @pytest.mark.parametrize(
        ("share", "noop", "count"), [(0.99, False, 0), (1.0, False, 1), (0.5, True, 1), (1, True, 2)]
    )
    def test_no_op(self, share, noop, count):
        assert len(no_op_reasons(unchanged_share=share, edit_is_noop=noop)) == count

    @pytest.mark.parametrize(("missed", "count"), [(0, 0), (4, 0), (5, 1), (10, 1)])
    def test_a_target_the_model_never_drew(self, missed, count):
        assert len(weak_target_reasons(self.metric(missed, 10))) == count
        assert weak_target_reasons(None) == []

    @pytest.mark.parametrize(("edited", "count"), [(5, 0), (4, 0), (3, 1)])
    def test_collapse_below_half_of_the_original(self, edited, count):
        fine = Pair(original=0, edited=0)
        assert len(collapse_reasons(ira=self.metric(8, edited), cra=None, broken=fine)) == count
        assert len(collapse_reasons(ira=None, cra=self.metric(8, edited), broken=fine)) == count

    def test_a_model_that_never_could_is_not_called_collapsed(self):
        fine = Pair(original=0, edited=0)
        assert collapse_reasons(ira=self.metric(0, 0), cra=None, broken=fine) == []

    @pytest.mark.parametrize(("original", "edited", "count"), [(0, 0.5, 1), (0, 0.49, 0), (0.8, 0.8, 0), (0.2, 0.9, 1)])
    def test_broken_pictures_only_count_if_they_are_new(self, original, edited, count):
        pair = Pair(original=original, edited=edited)
        assert len(collapse_reasons(ira=None, cra=None, broken=pair)) == count
