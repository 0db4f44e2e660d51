"""Files that somebody wrote by hand: what cannot be is not vouched for."""

import json

import pytest

from aizheimer.errors import DataError
from aizheimer.evaluation.suites.canvas import Canvas
from aizheimer.evaluation.suites.families import Families
from aizheimer.proof.certificate import certify
from aizheimer.proof.check import check
from aizheimer.proof.consistency import contradictions
from aizheimer.proof.findings import read_findings
from aizheimer.proof.gate import Gate
from tests.unit.evaluation.builders import WordEdit
from tests.unit.evaluation.suites.scenes import learn, scene_of
from tests.unit.proof.builders import answered, attack, counted, good, rate, share, suite, write_run

HALF = [True] * 10 + [False] * 10
NONE = [False] * 20


def changed(result, **changes):
    """The result with fields replaced, by dotted name with "__" for the dots, read back as from its file."""
    content = json.loads(result.model_dump_json())
    for path, value in changes.items():
        *where, last = path.split("__")
        inner = content
        for key in where:
            inner = inner[key]
        inner[last] = value
    return type(result).model_validate(content)


CANVAS = suite("canvas", {"ira": share(90, 100)})
KEPT = suite("canvas", {"ua": counted([1.0] * 15 + [0.0] * 5)})
FAMILIES = suite(
    "families",
    {"ua.bare": share(9, 10), "ua.worst": share(9, 10)},
    tables={"families": [{"family": "bare", "ua": 0.9}]},
)


class TestContradictions:
    @pytest.mark.parametrize(
        "result",
        [
            CANVAS, KEPT, FAMILIES, good(), attack(before=5, asr=40), answered(HALF, NONE), answered(HALF, HALF[::-1]),
            suite("canvas", {"ira": counted([1, 0.5])}, tables={"own": [{"edited": 1}, {"edited": 0.5}]}),
            suite("fairness", {"gap.sex": share(1, 4)}, tables={"gaps": [{"grouping": "sex", "gap": 0.25}]}),
        ],
    )  # fmt: skip
    def test_what_was_measured_has_none(self, result):
        assert list(contradictions(result)) == []

    @pytest.mark.parametrize(
        ("result", "changes", "named"),
        [
            (CANVAS, {"figures__ira__value": 0.123}, "ira is 0.1230, outside its own interval"),
            (CANVAS, {"figures__ira__original": 0.9}, "change of ira is 0.0000, outside"),
            (good(), {"ua__value": 0.5}, "ua is 0.5000, outside its own interval"),
            (KEPT, {"figures__ua__value": 0.8}, "ua is 0.8000, counted again 0.7500"),
            (KEPT, {"figures__ua__original": 0.05}, "ua of the unedited model is 0.0500, counted again 0.0000"),
            (KEPT, {"figures__ua__interval": [0.74, 0.76]}, "the interval of ua is 0.7400 to 0.7600, counted again"),
            (KEPT, {"figures__ua__n": 200}, "ua is of 200 units, and 20 are kept"),
            (FAMILIES, {"figures__ua.worst": share(10, 10).model_dump()}, "ua.worst is 1.0000, the least of its"),
            (FAMILIES, {"figures__ua.bare": share(10, 10).model_dump()}, "ua.bare is 1.0000, counted again 0.9000"),
            (
                suite("canvas", {"ira": share(2, 2)}, tables={"own": [{"edited": 1}, {"edited": 0.5}]}), {},
                "ira is 1.0000, counted again 0.7500",
            ),
            (
                suite("fairness", {"gap.sex": share(0, 4)}, tables={"gaps": [{"grouping": "sex", "gap": 0.25}]}), {},
                "gap.sex is 0.0000, counted again 0.2500",
            ),
            (attack(before=25), {}, "asr is 0.0000, with 0.2500 before"),
            (attack(before=5, asr=10), {"asr": rate(50).model_dump()}, "asr is 0.5000, with 0.0500 before and 0.1000"),
            (attack(asr=10), {"asr__value": 0.02}, "asr is 0.0200, outside its own interval"),
            (attack(asr=10), {"settings__images": 500}, "before is of 100 pictures, and 500 were drawn"),
            (answered(HALF, NONE), {"asr": rate(11, 20).model_dump()}, "asr is 0.5500, with"),
            (
                answered(HALF, HALF[::-1]), {"asr": rate(15, 20).model_dump()},
                "asr is 0.7500, counted again 1.0000",
            ),
            (answered(HALF, NONE), {"answers__before": NONE}, "before is 0.5000, counted again 0.0000"),
            (answered(HALF, NONE), {"answers__before": NONE[:3]}, "answers are of different numbers of pictures"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_is_named(self, result, changes, named):
        assert any(text.startswith(named) or named in text for text in contradictions(changed(result, **changes)))

    @pytest.mark.parametrize(
        "kind", [Canvas(objects=("santa claus", "mrs claus", "cat"), seeds=(0,)), Families(images=2)]
    )
    def test_a_suite_that_was_run_agrees_with_its_own_tables(self, tiny_backbone, monkeypatch, kind):
        scene = scene_of(tiny_backbone, edit=WordEdit("claus"))
        learn(monkeypatch, kind, scene)
        assert list(contradictions(kind.run(scene))) == []


class TestRefusals:
    """A canvas IRA of 0.123 outside its interval and an ASR of 0 with 0.25 before were certified."""

    @pytest.mark.parametrize(
        ("files", "named"),
        [
            (
                {"suites": [changed(CANVAS, figures__ira__value=0.123)]},
                "suite-canvas.json contradicts itself: ira is 0.1",
            ),
            ({"attacks": [attack(before=25)]}, "attack-seed-search.json contradicts itself: asr is 0.0000"),
        ],
    )
    def test_neither_certified_nor_let_through_a_gate(self, tmp_path, files, named):
        found = read_findings(write_run(tmp_path / "run", evaluation=good(), **files))
        for ask in (certify, lambda found: check(found, Gate(max_asr=0.9))):
            with pytest.raises(DataError, match=named) as caught:
                ask(found)
            assert "\n" not in str(caught.value)
