"""The leaderboard page is made of a bench's files: what it averages, and how it says it."""

import json
import sys

import pytest

from aizheimer.bench.plan import load_plan
from aizheimer.bench.rows import read_row
from aizheimer.errors import InputError
from tests.architecture.source import REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.fixture
def leaderboard(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("leaderboard", "measuring", "methods_table"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import leaderboard

    return leaderboard


def row(method, concept, seed, **changes):
    figures = {"ua": 1.0, "ira": 0.9, "cra": 0.8, "neighbours.ira.nearest": 0.5, "families.ua.worst": 0.6}
    found = {
        "method": method,
        "concept": concept,
        "seed": seed,
        "status": "done",
        "run": f"runs/{method}-{concept}-{seed}",
    }
    for name, value in figures.items():
        found |= {name: value, f"{name}.low": value, f"{name}.high": value, f"{name}.original": 1.0, f"{name}.n": 10}
    found |= {"quality.kid": -0.1, "quality.kid.original": -0.16, "quality.kid.extractor": "clip"}
    for attack, asr in (("concept-inversion", 0.4), ("soft-prompt", 1.0), ("relearn", 0.5)):
        found |= {f"asr.{attack}": asr, f"asr.{attack}.low": asr, f"asr.{attack}.before": 0.1}
        found |= {f"asr.{attack}.unedited": 0.9 if concept == "cat" else 0.7}
    found |= {"asr.relearn.steps_survived": 10 * (1 + seed)}
    return found | {"seconds_forget": 2.0, "megabytes": 1.77} | changes


@pytest.fixture
def folder(tmp_path):
    """A bench of one method on two concepts, one seed of which the neighbours' table is there."""
    rows = [row("esd", concept, seed) for concept in ("cat", "dog") for seed in (0, 1)]
    rows.append({"method": "uce", "concept": "cat", "seed": 0, "status": "failed", "error": "E", "run": "runs/x"})
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    run = tmp_path / "runs" / "esd-cat-0"
    run.mkdir(parents=True)
    near = [{"distance": 0.05, "unedited": 1.0, "edited": 0.0}, {"distance": 0.06, "unedited": 1.0, "edited": 1.0}]
    far = [{"distance": 1.0, "unedited": 1.0, "edited": 1.0}]
    (run / "suite-neighbours.json").write_text(json.dumps({"tables": {"concepts": near + far}}))
    (run / "suite-families.json").write_text(json.dumps({"tables": {"worst": [{"family": "scenes"}]}}))
    return tmp_path


def test_damage_is_pooled_by_distance_and_the_worst_family_named(leaderboard, folder):
    found = leaderboard.collect([folder], leaderboard.EMPTY)
    assert leaderboard.damage(found, "esd") == [
        {"distance": 0.055, "unedited": 1.0, "edited": 0.5, "pictures": 2},
        {"distance": 1.0, "unedited": 1.0, "edited": 1.0, "pictures": 1},
    ]
    assert leaderboard.worst(found, "esd") == [("scenes", 1)]
    assert leaderboard.damage(found, "uce") == leaderboard.worst(found, "uce") == []
    assert all("ua.n" not in one for one in found["rows"])


def test_what_was_found_before_is_kept_and_nothing_counts_twice(leaderboard, folder):
    first = leaderboard.collect([folder], leaderboard.EMPTY)
    more = {"damage": [[2, 0.1, 2.0, 2.0], *[[0, 0.0, 0.0, 0.0]] * 8], "worst": [["name", 1], ["scenes", 1]]}
    first["unassigned"] = {"esd": more}
    again = leaderboard.collect([folder, folder], json.loads(json.dumps(first)))
    assert again == first
    pooled = {"distance": pytest.approx(0.0525), "unedited": 1.0, "edited": 0.75, "pictures": 4}
    assert leaderboard.damage(again, "esd")[0] == pooled
    assert leaderboard.worst(again, "esd") == [("scenes", 2), ("name", 1)]


def test_a_bench_goes_on_from_restored_rows_which_say_nothing_new(leaderboard, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    content = leaderboard.collect([folder], leaderboard.EMPTY)
    there = tmp_path / "restored"
    assert leaderboard.restore(content, there) == 3  # no target of the plan is a dog
    plan = load_plan(leaderboard.PLAN, {})
    done = {cell.key: row for cell in plan.cells() if (row := read_row(cell, folder=there)) is not None}
    assert sorted(done) == ["esd--cat--seed0", "esd--cat--seed1", "uce--cat--seed0"]
    rows = [{**one, "run": f"runs/{key}", "ua": 0.0} for key, one in done.items()]
    (there / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    assert leaderboard.collect([there], content) == content
    assert leaderboard.restore(content, there) == 0


def test_what_rows_say_of_how_they_were_measured_is_kept_once(leaderboard, folder):
    file = folder / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    said = {"ua.judge": "j", "ua.protocol": "p", "quality.kid.weights": "w", "ua.false_negative": 0.1}
    file.write_text("".join(json.dumps({**row, **said}) + "\n" for row in rows))
    content = json.loads(json.dumps(leaderboard.collect([folder], leaderboard.EMPTY)))
    assert content["stated"]["ua.judge"] == ["j"]
    assert content["stated"]["ua.n"] == [10]
    assert (content["stated"]["ua.protocol"], content["stated"]["quality.kid.weights"]) == (["p"], ["w"])
    assert content["rows"][0]["ua.false_negative"] == 0.1
    assert not {"ua.judge", "ua.protocol", "quality.kid.weights"} & content["rows"][0].keys()
    old = {name: own for name, own in content.items() if name != "stated"}
    assert leaderboard.collect([], old)["rows"] == content["rows"], "kept before how they were measured was"
    assert leaderboard.collect([], content) == content


def test_rows_that_were_measured_otherwise_are_refused(leaderboard, folder):
    file = folder / "results.jsonl"
    lines = file.read_text().splitlines()
    other = {**json.loads(lines[1]), "quality.kid.extractor": "inception"}
    file.write_text("\n".join([lines[0], json.dumps(other), *lines[2:]]) + "\n")
    with pytest.raises(InputError, match=r"quality\.kid: another feature extractor \(clip and inception\)"):
        leaderboard.collect([folder], leaderboard.EMPTY)


def test_the_table_by_hand(leaderboard, folder):
    text = leaderboard.table(leaderboard.collect([folder], leaderboard.EMPTY)).splitlines()
    heads = [cell.strip() for cell in text[0].strip("|").split("|")]
    cells = dict(zip(heads, [cell.strip() for cell in text[2].strip("|").split("|")], strict=True))
    assert cells["method"] == "[esd](methods/esd.md)"
    assert cells["UA"] == "100 % (100-100)"
    assert cells["IRA kept"] == "90 % (90-90)"
    assert cells["nearest kept"] == "50 % (50-50)"
    assert cells["worst family"] == "scenes, 60 % (60-60)"
    assert (cells["KID more"], cells["before"]) == ("0.060", "10 %")
    assert (cells["after concept-inversion"], cells["after soft-prompt"]) == ("40 %", "100 %")
    assert (cells["steps to relearn"], cells["seconds"], cells["MB"]) == ("15", "2", "1.77")
    assert text[3].startswith("| [uce](methods/uce.md) | 0, 1 failed |  |")


def test_a_target_with_more_seeds_weighs_no_more_and_one_alone_has_no_interval(leaderboard):
    rows = [row("esd", "cat", seed, **{"ua.original": 1.0, "asr.concept-inversion.before": 1.0}) for seed in range(3)]
    assert leaderboard._line(leaderboard.standings(rows)[0], {**leaderboard.EMPTY, "rows": rows})[3] == "100 %"
    rows.append(row("esd", "dog", 0, **{"ua.original": 0.5, "asr.concept-inversion.before": 0.0}))
    line = leaderboard._line(leaderboard.standings(rows)[0], {**leaderboard.EMPTY, "rows": rows})
    assert line[9] == "50 %"
    assert leaderboard.originals(rows, "esd", "ua") == 0.75


def test_controls_are_averaged_over_targets_and_the_least_is_named(leaderboard, folder):
    content = leaderboard.collect([folder], leaderboard.EMPTY)
    assert "| 80 % (least: dog, 70 %) |  |" in leaderboard.controls(content)
    near = {"cat": 0.2, "dog": 0.6}
    rows = [{**one, "asr.soft-prompt.neighbour": near[one["concept"]]} for one in content["rows"]]
    lines = leaderboard.controls({**content, "rows": rows}).splitlines()
    assert lines[3].endswith("| 80 % (least: dog, 70 %) | 40 % (most: dog, 60 %) |")
    assert lines[2].endswith("|  |")


def test_a_page_that_is_not_finished_says_so(leaderboard, folder, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    content = leaderboard.collect([folder], leaderboard.EMPTY)
    cells = load_plan(leaderboard.PLAN, {}).cells()
    assert f"**Not finished: 3 of {len(cells):,} jobs are measured; targets so far: cat.**" in leaderboard.state(
        content
    )
    whole = [{"method": cell.method.name, "concept": cell.concept, "seed": cell.seed} for cell in cells]
    assert leaderboard.state({"rows": whole}) == ""


def test_a_row_is_a_line_of_the_file(leaderboard, folder, tmp_path):
    content = leaderboard.collect([folder], leaderboard.EMPTY)
    leaderboard.write_content(tmp_path / "kept.json", content)
    text = (tmp_path / "kept.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(content))
    assert text.count("\n") < 2 * (len(content["rows"]) + len(content["found"]) + len(content["stated"])) + 20
    leaderboard.write_content(tmp_path / "none.json", leaderboard.EMPTY)
    assert json.loads((tmp_path / "none.json").read_text()) == leaderboard.EMPTY


def test_its_pictures_are_drawn(leaderboard, folder, tmp_path):
    content = json.loads(json.dumps(leaderboard.collect([folder], leaderboard.EMPTY)))
    for draw in (leaderboard.attack_picture, leaderboard.damage_picture):
        draw(content, tmp_path / "picture.png")
        assert (tmp_path / "picture.png").stat().st_size > 5000


def test_its_plan_is_what_it_says(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    plan = load_plan(BENCHMARKS / "leaderboard" / "plan.yaml", {})
    from aizheimer._registry import METHODS

    assert {entry.recipe for entry in plan.methods} == {*METHODS.names(), "aizheimer-robust"}
    assert (len(plan.concepts), len(plan.seeds)) == (17, 3)
    assert len([entry for entry in plan.attacks if entry.loaded()]) >= 4
