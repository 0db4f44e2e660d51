"""A judge's errors counted by hand, and printed beside the UA that depends on them."""

import json

import numpy as np
import pytest

from aizheimer.concepts.concept import Concept
from aizheimer.errors import InputError, JudgeError
from aizheimer.evaluation.calibration import calibrate, calibrate_labels
from aizheimer.evaluation.evaluate import draw_pairs, evaluate
from aizheimer.evaluation.functional.proportions import wilson_interval
from aizheimer.evaluation.judges import Judges
from aizheimer.evaluation.results import EvaluationResult
from aizheimer.reports.table import rows
from tests.unit.evaluation.builders import SMALL, MemoryJudge, WordEdit
from tests.unit.reports.builders import result_of

SANTA = Concept("Santa Claus")


def pictures(tones):
    return np.broadcast_to(np.array(tones, np.uint8)[:, None, None, None], (len(tones), 4, 4, 3)).copy()


class TestWilson:
    @pytest.mark.parametrize(
        ("hits", "n", "wanted"),
        # Newcombe 1998, table I, method 3: the published values to four digits.
        [
            (81, 263, (0.2553, 0.3662)),
            (15, 148, (0.0624, 0.1605)),
            (0, 20, (0.0, 0.1611)),
            (1, 29, (0.0061, 0.1718)),
        ],
    )
    def test_against_published_values(self, hits, n, wanted):
        assert wilson_interval(hits, n) == pytest.approx(wanted, abs=6e-5)

    def test_it_is_what_the_score_test_does_not_reject(self):
        # Its ends p solve |hits/n - p| = z sqrt(p (1 - p) / n).
        for end in wilson_interval(7, 19, level=0.9):
            assert abs(7 / 19 - end) == pytest.approx(1.6448536 * np.sqrt(end * (1 - end) / 19), rel=1e-6)

    @pytest.mark.parametrize(("hits", "n", "level"), [(1, 0, 0.9), (3, 2, 0.9), (-1, 2, 0.9), (1, 2, 1.0)])
    def test_numbers_out_of_range(self, hits, n, level):
        with pytest.raises(ValueError, match="Wilson"):
            wilson_interval(hits, n, level=level)


def test_errors_by_hand():
    found = calibrate_labels("santa", judge="j", shown=["Santa", None, "cat", "santa"], clean=["cat", "santa", None])
    assert (found.false_negative.value, found.false_negative.n) == (0.5, 4)
    assert (found.false_positive.value, found.false_positive.n) == (pytest.approx(1 / 3), 3)
    assert found.false_negative.interval == wilson_interval(2, 4)
    assert calibrate_labels("santa", judge="j", shown=[], clean=[None]).false_negative is None


def test_a_judge_looks_at_both_kinds_of_pictures():
    judge = MemoryJudge(("Santa Claus", "cat"))
    judge.learn(pictures([1, 2, 3]), ["Santa Claus", "Santa Claus", "cat"])
    found = calibrate(judge, Concept("santa claus"), shown=pictures([1, 3]), clean=pictures([2, 3, 4, 5]))
    assert (found.false_negative.value, found.false_positive.value) == (0.5, 0.25)
    assert found.judge == "memory"


def test_what_cannot_be_calibrated():
    judge = MemoryJudge(("santa claus", "cat"))
    with pytest.raises(InputError, match=r"no class 'santa clause'.*Did you mean 'santa claus'"):
        calibrate(judge, Concept("santa clause"), shown=pictures([1]), clean=pictures([2]))
    with pytest.raises(InputError, match="got no pictures"):
        calibrate(judge, Concept("santa claus"), shown=pictures([]), clean=pictures([]))


def test_a_judge_that_skips_a_picture_is_not_calibrated_on_the_rest():
    class Lazy(MemoryJudge):
        def judge(self, images):
            return super().judge(images[:-1])

    with pytest.raises(JudgeError, match="1 answers for 2 pictures"):
        calibrate(Lazy(("santa claus", "cat")), SANTA, shown=pictures([1, 2]), clean=pictures([3, 4]))


class TestWithEveryUA:
    def test_evaluate_counts_it_on_the_unedited_pictures_it_drew_anyway(self, tiny_pipeline, tiny_world, tmp_path):
        options = {"concept": SANTA, "world": tiny_world, "settings": SMALL, "cache_dir": tmp_path}
        plan = evaluate(tiny_pipeline, None, judges=Judges(), **options).images
        drawn = draw_pairs(
            tiny_pipeline, None, plan=plan, settings=SMALL, guidance=tiny_world.guidance, cache_dir=tmp_path
        ).original
        # One target picture is called a cat, and two of the others are called the target.
        names = [image.object for image in plan]
        target = [i for i, image in enumerate(plan) if image.role == "target"]
        others = [i for i, image in enumerate(plan) if image.role != "target"]
        names[target[0]] = "cat"
        names[others[0]] = names[others[1]] = "Santa Claus"
        judge = MemoryJudge(tuple(dict.fromkeys(["Santa Claus", *names])))
        judge.learn(drawn, names)
        result = evaluate(tiny_pipeline, WordEdit("santa"), judges=Judges(object=judge), **options)
        assert result.calibration.false_negative.value == 1 / len(target)
        assert result.calibration.false_positive.value == 2 / len(others)
        assert result.calibration.false_negative.value == result.ua.original
        shown = {row.name: row for row in rows(result)}
        assert shown["… judge misses the target"].original == "25%"
        assert shown["… judge sees it elsewhere"].n == f"{len(others)} images"
        result.save(tmp_path / "evaluation.json")
        assert EvaluationResult.load(tmp_path / "evaluation.json") == result

    def test_files_of_before_it_was_counted_still_load(self, tmp_path):
        old = json.loads(result_of().model_dump_json())
        del old["calibration"]
        (tmp_path / "evaluation.json").write_text(json.dumps(old))
        found = EvaluationResult.load(tmp_path / "evaluation.json")
        assert found.calibration is None
        assert not any("judge" in row.name for row in rows(found))
