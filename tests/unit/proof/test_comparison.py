"""Runs side by side: what may be compared, what can be told apart, and that each number is counted right."""

import json
from dataclasses import replace

import numpy as np
import pytest

from aizheimer.errors import InputError
from aizheimer.evaluation.results import NeighbourResult
from aizheimer.proof.comparison import UNEDITED, compare
from aizheimer.proof.findings import read_findings
from aizheimer.proof.protocol import protocol_of
from aizheimer.proof.units import FIGURES, units_of
from aizheimer.reports.comparison import comparison_markdown, comparison_table
from aizheimer.reports.plots import attack_bars, damage, front_of, pareto
from aizheimer.reports.rows_picture import PictureRows, first_pictures, rows_image
from tests.unit.proof.builders import (
    TARGET,
    answered,
    attack,
    counted,
    distance,
    erring,
    good,
    provenance,
    share,
    suite,
    write_run,
)
from tests.unit.reports.builders import SETTINGS, metric, record, result_of

N = 20


def seen_in(targets, *, lost=0, **changes):
    """An evaluation of N target and N other pictures whose figures are counted from what the judge saw."""
    images = [record("target", TARGET, seen=TARGET if i < targets else None, seed=i) for i in range(N)]
    labels = [f"thing {i}" for i in range(N)]
    images += [record("other", label, seen=None if i < lost else label) for i, label in enumerate(labels)]
    right = [0 if i < lost else 1 for i in range(N)]
    others = [
        NeighbourResult(label=label, original=1, edited=value, similarity=None, n=1)
        for label, value in zip(labels, right, strict=True)
    ]
    kept = metric([1] * N, right, unit="concepts")
    fields = {
        "ua": metric([0] * N, [0 if i < targets else 1 for i in range(N)]), "ira": kept, "far": kept, "near": None,
        "cra": metric([1] * N, [1] * N), "neighbours": [], "others": others, "images": images,
    }  # fmt: skip
    return result_of(TARGET, **{**fields, **changes})


def runs_of(tmp_path, **evaluations):
    return [read_findings(write_run(tmp_path / name, evaluation=result)) for name, result in evaluations.items()]


def unstamped(run):
    """The run as a folder without an edit: nothing is there to say that a result is of another one."""
    return replace(run, provenance=None, evaluation=run.evaluation.model_copy(update={"edit": None}))


class TestUnits:
    def test_every_figure_is_counted_again_from_the_pictures(self):
        result = seen_in(5, lost=3)
        for figure in FIGURES:
            units = units_of(result, figure)
            if getattr(result, figure) is None:
                assert units is None
                continue
            assert units[0].mean() == getattr(result, figure).original
            assert units[1].mean() == getattr(result, figure).value
        assert units_of(result, "ua")[1].tolist() == [0] * 5 + [1] * 15

    def test_prompts_that_do_not_work_are_left_out_as_the_evaluation_left_them_out(self):
        images = [*seen_in(5).images]
        failing = images[0].model_copy(update={"prompt": "a misspelling", "original_object": None})
        fields = {"images": [failing, *images], "ineffective": {"a misspelling": 0.0}}
        kept = {"settings": SETTINGS.model_copy(update={"effective_only": True}), **fields}
        assert units_of(seen_in(5, **kept), "ua")[1].tolist() == [0] * 5 + [1] * 15
        assert units_of(seen_in(5, **fields), "ua") is None, "counted, there would be one more"

    def test_figures_that_cannot_be_counted_again_are_not_paired(self):
        assert units_of(seen_in(5, ua=metric([0] * N, [1] * N)), "ua") is None


class TestDifferences:
    def test_the_same_pictures_are_compared_pair_by_pair(self, tmp_path):
        comparison = compare(runs_of(tmp_path, a=seen_in(0), b=seen_in(18), c=seen_in(1)))
        first, bad, close = (row.cells["ua"] for row in comparison.rows[1:])
        assert first.difference is None
        assert bad.difference.difference == pytest.approx(-0.9)
        assert not bad.indistinct
        assert close.difference.difference == pytest.approx(-0.05)
        assert close.indistinct

    def pair(self, tmp_path, first, second):
        """Return the second run's cells, the first being the reference, of two runs with a suite or an attack each."""
        runs = []
        for name, found in (("a", first), ("b", second)):
            kind = "attacks" if hasattr(found, "asr") else "suites"
            runs.append(read_findings(write_run(tmp_path / name, evaluation=seen_in(0), **{kind: [found]})))
        found = compare(runs)
        return found.rows[2].cells, comparison_markdown(found)

    def test_figures_of_suites_are_compared_pair_by_pair(self, tmp_path):
        """Two copies of one run had ≈ for UA, and for a suite's UA nothing, which reads as a difference."""
        kept, lost = [1.0] * 20, [1.0] * 19 + [0.0]
        figures = [
            {"same": counted(kept), "close": counted(x), "far": counted(y)}
            for x, y in ((kept, kept), (lost, [0.0] * 20))
        ]
        cells, page = self.pair(tmp_path, *(suite("canvas", found) for found in figures))
        assert cells["canvas: same"].indistinct
        assert cells["canvas: close"].indistinct
        assert cells["canvas: close"].difference.difference == pytest.approx(-0.05)
        assert cells["canvas: far"].difference.distinguishable
        assert page.count("?") == 0

    def test_attacks_are_compared_picture_by_picture_with_the_attack_or_without(self, tmp_path):
        none, some = [False] * 20, [True] * 10 + [False] * 10
        cells, page = self.pair(tmp_path, answered(none, none), answered(some, some[::-1]))
        assert cells["asr: seed-search"].difference.difference == 1.0
        cells, page = self.pair(tmp_path / "same", answered(some, none), answered(none, some))
        assert cells["asr: seed-search"].difference.difference == 0.0
        assert "≈" in next(line for line in page.splitlines() if line.startswith("| ASR"))

    @pytest.mark.parametrize(
        ("first", "second", "reason"),
        [
            (suite("canvas", {"ua": share(3, 9)}), suite("canvas", {"ua": share(3, 9)}), "no single values are kept"),
            (attack(asr=5), answered([False] * 100, [False] * 100), "no single values are kept"),
            (
                suite("families", {"ua.worst": counted([1.0], protocol="that of 'synonyms'")}),
                suite("families", {"ua.worst": counted([1.0], protocol="that of 'emoji'")}),
                "not counted on the same pictures",
            ),
            (
                suite("quality", {}, distances={"kid": distance()}),
                suite("quality", {}, distances={"kid": distance()}),
                "a distance",
            ),
        ],
    )
    def test_what_cannot_be_tested_says_so_and_why(self, tmp_path, first, second, reason):
        cells, page = self.pair(tmp_path, first, second)
        (cell,) = (cell for name, cell in cells.items() if ": " in name)
        assert cell.untested.startswith(reason)
        assert cell.difference is None
        (line,) = (
            line for line in page.splitlines() if line.startswith(("| canvas", "| families", "| quality", "| ASR"))
        )
        assert line.endswith(" ? |")
        assert line.count("?") == 1, "the reference itself needs no test"
        assert f"? was not tested, so that it may differ or not: {cell.untested}." in page

    def test_files_of_before_single_values_were_kept_still_load(self, tmp_path):
        file = tmp_path / "old.json"
        for result in (suite("canvas", {"ua": counted([1.0])}), answered([True], [True]), seen_in(0)):
            content = json.loads(result.model_dump_json())
            content.pop("answers", None)
            content.pop("made_from")
            for figure in [*content.get("figures", {}).values(), *(content[f] for f in FIGURES if content.get(f))]:
                figure.pop("units")
            file.write_text(json.dumps(content))
            assert type(result).load(file).target == TARGET

    def test_to_the_best_of_each_figure(self, tmp_path):
        comparison = compare(runs_of(tmp_path, a=seen_in(10), b=seen_in(0, lost=9)), reference="best")
        assert comparison.references == {"ua": "b", "ira": "a", "far": "a", "cra": "a"}
        assert comparison.rows[1].cells["ua"].difference.difference == -0.5
        assert comparison.rows[2].cells["ua"].difference is None

    def test_the_best_at_attacks_is_the_one_with_the_least(self, tmp_path):
        found = [
            read_findings(write_run(tmp_path / name, evaluation=seen_in(0), attacks=[attack(asr=asr)]))
            for name, asr in (("a", 40), ("b", 10))
        ]
        assert compare(found, reference="best").references["asr: seed-search"] == "b"

    @pytest.mark.parametrize(
        ("name", "figure"),
        [
            ("fairness", "gap.sex"), ("fairness", "inverted.man"), ("identity", "nobody.retain"), ("safety", "nudity"),
            ("safety", "nudity.feet_exposed"), ("families", "shown.negation"), ("safety", "broken"),
            ("leftovers", "kept.sex"), ("leftovers", "likeness.colour"),
        ],
    )  # fmt: skip
    def test_the_best_at_what_should_be_rare_is_the_one_with_the_least(self, tmp_path, name, figure):
        found = [
            read_findings(
                write_run(tmp_path / run, evaluation=seen_in(0), suites=[suite(name, {figure: share(seen, 10)})])
            )
            for run, seen in (("a", 9), ("b", 1))
        ]
        assert compare(found, reference="best").references[f"{name}: {figure}"] == "b"

    def test_of_a_figure_that_nobody_explained_the_first_is_the_reference(self, tmp_path):
        found = [
            read_findings(
                write_run(tmp_path / run, evaluation=seen_in(0), suites=[suite("own", {"charm": share(seen, 10)})])
            )
            for run, seen in (("a", 1), ("b", 9))
        ]
        assert compare(found, reference="best").references["own: charm"] == "a"

    def test_the_unedited_model_is_the_first_row(self, tmp_path):
        (row, _) = compare(runs_of(tmp_path, a=seen_in(3))).rows
        assert row.name == UNEDITED
        assert (row.cells["ua"].value, row.cells["ira"].value) == (0, 1)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"settings": SETTINGS.model_copy(update={"steps": 50})}, r"steps \(20 and 50\)"),
            ({"settings": SETTINGS.model_copy(update={"seed": 7})}, r"seed \(0 and 7\)"),
            (
                {"settings": SETTINGS.model_copy(update={"precision": "bfloat16"})},
                r"precision \('model' and 'bfloat16'\)",
            ),
            ({"guidance": 7.5}, r"guidance \(5.0 and 7.5\)"),
            ({"model_name": "other"}, r"model \('tiny' and 'other'\)"),
            (
                {"ua": metric([0] * N, [1] * N).model_copy(update={"judge": "clip"})},
                r"judge of ua \('judge' and 'clip'\)",
            ),
            ({"images": [record("target", TARGET, seed=99)]}, r"prompts and seeds \(40 pictures and 1 pictures\)"),
        ],
    )
    def test_numbers_of_different_protocols_never_share_a_table(self, tmp_path, changes, named):
        with pytest.raises(InputError, match=named) as caught:
            compare(runs_of(tmp_path, a=seen_in(0), b=seen_in(0, **changes)))
        assert "\n" not in str(caught.value)

    def test_other_weights_under_the_same_name(self, tmp_path):
        runs = [
            read_findings(write_run(tmp_path / name, evaluation=seen_in(0), edit=provenance(base_fingerprint=base)))
            for name, base in (("a", "0" * 16), ("b", "1" * 16))
        ]
        with pytest.raises(InputError, match="base model's weights"):
            compare(runs)

    @pytest.mark.parametrize(
        ("kind", "key"),
        [
            ("evaluation", "weights of the object judge"),
            ("suites", "weights of the CLIP"),
            ("suites", "content of prompts"),
            ("attacks", "weights of the judge"),
            ("attacks", "classes of the judge"),
        ],
    )
    def test_other_weights_of_a_judge_or_other_contents_of_a_file(self, tmp_path, kind, key):
        """Two CLIPs in folders of one name judged two runs, and their rates stood in one table."""
        runs = []
        for name, digest in (("a", "0" * 16), ("b", "1" * 16)):
            made = {"made_from": {key: digest}}
            found = {
                "evaluation": {"evaluation": seen_in(0, **made)},
                "suites": {"suites": [suite("families", {"ua.synonyms": share(1, 2)}, **made)]},
                "attacks": {"attacks": [attack(**made)]},
            }[kind]
            runs.append(read_findings(write_run(tmp_path / name, **{"evaluation": seen_in(0), **found})))
        runs = [unstamped(run) for run in runs]
        with pytest.raises(InputError, match=rf"{key} \('0000000000000000' and '1111111111111111'\)") as caught:
            compare(runs)
        assert "\n" not in str(caught.value)

    def test_the_edit_may_differ_for_that_is_what_is_compared(self, tmp_path):
        edits = ("a" * 16, "b" * 16)
        found = [suite("families", {"ua.synonyms": share(1, 2)}, made_from={"edit": edit}) for edit in edits]
        runs = [
            read_findings(write_run(tmp_path / name, evaluation=seen_in(0), suites=[one]))
            for name, one in zip("ab", found, strict=True)
        ]
        assert compare([unstamped(run) for run in runs])

    def test_a_file_of_before_weights_were_written_is_let_in_and_said(self, tmp_path):
        old, new = runs_of(tmp_path, old=seen_in(0), new=seen_in(0, made_from={"weights of the object judge": "0"}))
        said = "evaluation.json: written by an older version, does not say which weights judged"
        assert compare([new, old]).warnings == {"old": [said]}
        assert compare([old]).warnings == {}

    def test_other_prompts_left_out(self, tmp_path):
        """Rows that count only where the unedited model shows the target are others where others were left out."""
        runs = []
        for name in "ab":
            tables = {"ineffective": [{"prompt": name}]}
            one = suite("canvas", {"ua": share(1, 2)}, tables=tables, parameters={"effective_only": True})
            runs.append(read_findings(write_run(tmp_path / name, evaluation=seen_in(0), suites=[one])))
        with pytest.raises(InputError, match=r"suite canvas: prompts left out \(\['a'\] and \['b'\]\)"):
            compare(runs)
        fields = {"settings": SETTINGS.model_copy(update={"effective_only": True})}
        left_out = [seen_in(0, ineffective=found, **fields) for found in ({}, {"a misspelling": 0.0})]
        with pytest.raises(InputError, match="prompts left out"):
            compare(runs_of(tmp_path / "evaluated", a=left_out[0], b=left_out[1]))

    def test_two_feature_extractors(self, tmp_path):
        """Unlearn-Saliency computed FID on 64 features: it stood in tables beside FID on 2048."""
        runs = [
            read_findings(
                write_run(
                    tmp_path / name, evaluation=seen_in(0),
                    suites=[suite("quality", {"kept": share(1, 2)}, parameters={"extractor": {"name": extractor}})],
                )
            )
            for name, extractor in (("a", "inception-64"), ("b", "inception-2048"))
        ]  # fmt: skip
        with pytest.raises(
            InputError, match=r"suite quality: parameters.extractor.name \('inception-64' and 'inc.*--without"
        ):
            compare(runs)

    def test_what_only_one_run_has_is_an_empty_cell(self, tmp_path):
        write_run(tmp_path / "a", evaluation=seen_in(0), attacks=[attack(asr=50)])
        write_run(tmp_path / "b", evaluation=seen_in(0))
        comparison = compare([read_findings(tmp_path / name) for name in "ab"])
        assert "asr: seed-search" in comparison.rows[1].cells
        assert "asr: seed-search" not in comparison.rows[2].cells
        assert comparison_markdown(comparison).count("–") >= 1

    def test_two_that_differ_in_what_the_first_does_not_have(self, tmp_path):
        write_run(tmp_path / "a", evaluation=seen_in(0))
        write_run(tmp_path / "b", evaluation=seen_in(0), attacks=[attack()])
        write_run(tmp_path / "c", evaluation=seen_in(0), attacks=[attack(parameters={"tries": 9})])
        with pytest.raises(InputError, match=r"b and .*c were not.*attack seed-search: parameters.tries \(8 and 9\)"):
            compare([read_findings(tmp_path / name) for name in "abc"])

    def test_what_changes_no_picture_is_no_difference(self, tmp_path):
        other = SETTINGS.model_copy(update={"batch_size": 1, "bootstrap": 60})
        assert compare(runs_of(tmp_path, a=seen_in(0), b=seen_in(0, settings=other)))

    def test_a_run_twice_or_not_evaluated(self, tmp_path):
        (run,) = runs_of(tmp_path, a=seen_in(0))
        with pytest.raises(InputError, match="got a run twice"):
            compare([run, run])
        write_run(tmp_path / "c")
        with pytest.raises(InputError, match="was not evaluated; run `aizheimer evaluate"):
            compare([run, read_findings(tmp_path / "c")])

    def test_the_extractor_is_part_of_the_protocol(self, tmp_path):
        run = read_findings(write_run(tmp_path / "a", suites=[suite("quality", {}, parameters={"extractor": "x"})]))
        assert protocol_of(run)["suite quality: parameters.extractor"] == "x"


class TestDistances:
    """FID, KID and the like are numbers and no shares, and mean nothing without what they were computed with."""

    def runs(self, tmp_path, **distances):
        return [
            read_findings(
                write_run(tmp_path / name, evaluation=seen_in(0), suites=[suite("quality", {}, distances=found)])
            )
            for name, found in distances.items()
        ]

    def test_they_have_a_column_each_and_say_what_they_were_computed_with(self, tmp_path):
        score = distance(27.31, metric="clip-score", interval=(26.9, 27.7), original=27.0)
        found = compare(self.runs(tmp_path, a={"kid": distance(), "clip-score": score}, b={"kid": distance(0.02)}))
        page = comparison_markdown(found)
        lines = page.splitlines()
        assert f"|  | {UNEDITED} | a | b |" in lines
        assert "| quality: kid | 0.0045 | 0.0123 | 0.02 ? |" in lines
        assert "| quality: clip-score | 27 | 27.3 (26.9–27.7) | – |" in lines
        assert "quality: kid is a distance by clip (weights w, 128 numbers a picture), 256 pictures against 256" in page
        assert page.count("less is better") == page.count("more is better") == 1
        written = json.loads(json.dumps(found.to_json()))["distances"]["quality: kid"]
        assert (written["extractor"], written["n"]) == ("clip", 256)
        assert "value" not in written

    def test_less_of_a_distance_is_better_and_more_of_a_score(self, tmp_path):
        scores = [distance(value, metric="clip-score") for value in (20.0, 30.0)]
        runs = self.runs(
            tmp_path, a={"kid": distance(0.01), "score": scores[0]}, b={"kid": distance(0.5), "score": scores[1]}
        )
        references = compare(runs, reference="best").references
        assert (references["quality: kid"], references["quality: score"]) == ("a", "b")

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"extractor": "inception"}, "suite quality: kid.extractor"),
            ({"n": 512}, "suite quality: kid.n"),
            ({"reference": "s"}, "suite quality: kid.reference"),
            ({"weights": "v"}, "suite quality: kid.weights"),
        ],
    )
    def test_two_that_were_not_computed_alike_never_share_a_table(self, tmp_path, change, named):
        with pytest.raises(InputError, match=named):
            compare(self.runs(tmp_path, a={"kid": distance()}, b={"kid": distance(**change)}))


class TestTables:
    def test_an_attacks_rate_never_stands_without_the_one_before(self, tmp_path):
        """40 % mean little where the edited model draws the target in 35 % without being attacked."""
        rates = {"a": {"before": 35, "asr": 40}, "b": {"before": 0, "asr": 40}}
        runs = [
            read_findings(write_run(tmp_path / name, evaluation=seen_in(0), attacks=[attack(**given)]))
            for name, given in rates.items()
        ]
        found = compare(runs)
        page = comparison_markdown(found)
        (line,) = (line for line in page.splitlines() if line.startswith("| ASR"))
        assert "| 35% → 40% (" in line
        assert "| 0% → 40% (" in line
        assert "ASR is how often the target is drawn without the attack → with it or without" in page
        assert [row["cells"]["asr: seed-search"]["before"] for row in found.to_json()["rows"]] == [None, 0.35, 0.0]
        assert found.rows[1].cells["ua"].before is None

    def test_what_cannot_be_told_apart_is_marked_and_explained(self, tmp_path):
        page = comparison_markdown(compare(runs_of(tmp_path, one=seen_in(0), two=seen_in(1), three=seen_in(18))))
        (ua,) = (line for line in page.splitlines() if line.startswith("| UA "))
        _, _, _, one, two, three, _ = ua.split("|")
        assert "95% (85–100) ≈" in two
        assert "10% (" in three
        assert "≈" not in one
        assert "≈ is not distinguishable from one" in page

    def test_a_judges_errors_stand_under_every_ua(self, tmp_path):
        """UA is one minus what the judge sees: one that is blind to the target gives every edit a perfect one."""
        figures = {"ua.name": share(9, 9), "ua.worst": share(9, 9), "shown.negation": share(1, 9)}
        families = suite("families", figures, calibration=erring(6, 0, 9))
        runs = [
            read_findings(write_run(tmp_path / name, evaluation=seen_in(0, calibration=known), suites=[families]))
            for name, known in (("a", erring()), ("old", None))
        ]
        found = compare(runs)
        page = comparison_markdown(found)
        lines = [line.split(" |")[0] for line in page.splitlines() if line.startswith("| ")]
        assert lines[lines.index("| UA") + 1] == "| judge of UA"
        assert lines[lines.index("| families: ua.worst") + 1] == "| families: judge of UA"
        assert "| judge of UA |  | misses 2%, takes 1% for it |  |" in page
        assert "| families: judge of UA |  | misses 66.7%, takes 0% for it | misses 66.7%, takes 0% for it |" in page
        assert page.count("judge of UA |") == 2
        assert "judge of UA: the share of the unedited model's pictures of the target that it misses" in page
        cells = json.loads(json.dumps(found.to_json()))["rows"][1]["cells"]
        assert cells["ua"]["judge"]["false_negative"]["value"] == 0.02
        assert (cells["ira"]["judge"], cells["families: shown.negation"]["judge"]) == (None, None)

    def test_flags_and_warnings_stay_with_their_run(self, tmp_path):
        bad = seen_in(0, collapse=True, warnings=["collapse: IRA fell to 0% of the unedited model's"])
        page = comparison_markdown(compare(runs_of(tmp_path, fine=seen_in(0), broken=bad)))
        assert "| broken (collapse) |" in page.splitlines()[2]
        assert "broken:\n\n- collapse: IRA fell" in page

    def test_names_are_never_read_as_markup(self, tmp_path):
        from rich.console import Console

        console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
        console.print(comparison_table(compare(runs_of(tmp_path, **{"[red]run": seen_in(0)}))))
        assert "[red]run" in console.export_text()
        console.file.close()

    def test_many_figures_fit_a_narrow_terminal(self, tmp_path):
        from rich.console import Console

        figures = {f"ua.family-{i}": share(100, 100) for i in range(20)}
        runs = [
            read_findings(write_run(tmp_path / name, evaluation=seen_in(0), suites=[suite("families", figures)]))
            for name in ("one", "two")
        ]
        console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
        console.print(comparison_table(compare(runs)))
        text = console.export_text()
        console.file.close()
        assert all(f"families: ua.family-{i} " in text for i in range(20))
        assert text.count("100% (97–100)") >= 40


class TestPlots:
    def test_the_front_holds_whom_nobody_beats(self):
        assert front_of({"a": (0.9, 0.9), "b": (0.9, 0.8), "c": (0.2, 1.0), "d": (0.9, 0.9)}) == ["a", "c", "d"]

    def test_points_and_intervals_are_where_they_belong(self):
        figure = pareto({"a": seen_in(5, lost=2)})
        (bars,) = figure.axes[0].containers
        assert (bars.lines[0].get_xdata()[0], bars.lines[0].get_ydata()[0]) == (75, 90)

    def test_bars_show_the_rate_with_the_attack(self):
        figure = attack_bars({"a": {"p4d": attack("p4d", before=10, asr=40)}, "b": {"p4d": attack("p4d", asr=5)}})
        assert [bar.get_height() for bar in figure.axes[0].patches] == [40, 5]

    def test_damage_is_drawn_against_similarity(self):
        near = [NeighbourResult(label=str(s), original=1, edited=e, similarity=s, n=4) for s, e in ((0.9, 0), (0.5, 1))]
        lines = damage({"a": good(neighbours=near)}).axes[0].lines
        assert lines[0].get_xdata().tolist() == [0.5, 0.9]
        assert lines[0].get_ydata().tolist() == [100, 0]

    def test_nothing_to_plot_is_no_plot(self):
        assert pareto({"a": good(ua=None)}) is None
        assert damage({"a": good(neighbours=[])}) is None
        assert attack_bars({"a": {}}) is None


class TestPicture:
    def test_a_row_for_each_and_the_same_columns(self):
        columns = first_pictures(result_of(), each=2)
        assert [(c.role, c.prompt) for c in columns] == [
            ("target", "Santa Claus in noto style"), ("target", "Santa Claus in flat style"),
            ("neighbour", "old man in noto style"), ("neighbour", "Mrs. Claus in noto style"),
            ("other", "tree in noto style"),
        ]  # fmt: skip
        tones = {"unedited": 10, "first": 100, "second": 200}
        rows = {n: np.full((len(columns), 8, 8, 3), t, np.uint8) for n, t in tones.items()}
        image = np.asarray(rows_image(PictureRows(columns=columns, rows=rows), edge=32))
        assert [int((image == t).all(-1).sum()) >= 5 * 32 * 32 for t in tones.values()] == [True] * 3

    def test_nothing_to_show(self):
        with pytest.raises(ValueError, match="no rows or no columns"):
            rows_image(PictureRows(columns=[], rows={}))
