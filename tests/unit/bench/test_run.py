"""A bench that is interrupted, that has failing jobs, that is started twice, and that runs on Ray."""

import importlib.util
import json
import signal
import sys
from pathlib import Path

import pytest

from aizheimer import api
from aizheimer._files import write_json, write_yaml
from aizheimer.bench import cell as cells
from aizheimer.bench.backends import run_on_ray
from aizheimer.bench.cell import MADE, run_cell
from aizheimer.bench.lock import FILE_NAME
from aizheimer.bench.plan import BenchPlan, load_plan
from aizheimer.bench.rows import ROW, read_row
from aizheimer.bench.run import _describe, run_bench
from aizheimer.bench.table import tidy, write_parquet
from aizheimer.concepts.world import World
from aizheimer.edits.io import load_edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.errors import InputError, MissingDependencyError, RunFolderError
from aizheimer.evaluation.results import EvaluationResult
from aizheimer.evaluation.suite import SuiteResult
from tests.cli.conftest import QUICK
from tests.ray_runs import printed
from tests.trained import same_edit

PLAN = Path(__file__).parents[3] / "benchmarks" / "leaderboard" / "plan.yaml"
TOO_LONG = "cat " * 60
TRAINED = {"name": "trained", "recipe": "aizheimer", "parameters": dict(word.split("=", 1) for word in QUICK[:-1])}
TRAINED["parameters"] = {
    **{key: None if value == "null" else int(value) for key, value in TRAINED["parameters"].items()},
    "rollouts": {"forget": 2, "retain": 4, "holdout": 1, "steps": 2},
}


@pytest.fixture
def plan(saved_tiny_pipeline):
    def make(**changes):
        fields = {"model": str(saved_tiny_pipeline), "methods": ["negative-prompt"], "concepts": ["cat"], "samples": 3}
        return BenchPlan.model_validate({**fields, **changes})

    return make


def quiet(_):
    """Hear nothing."""


class TestRows:
    def test_a_failed_job_is_a_row_and_not_the_end(self, plan, tmp_path):
        said, steps = [], []
        rows = run_bench(plan(concepts=["cat", TOO_LONG]), tmp_path / "b", on_step=steps.append, say=said.append)
        assert [row["status"] for row in rows] == ["done", "failed"]
        assert rows[1]["error"].startswith("ConceptError: ")
        assert rows[0]["error"] == ""
        assert rows[0]["megabytes"] >= 0
        assert [(step.done, step.total) for step in steps] == [(1, 2), (2, 2)]
        assert steps[0].seconds_left > 0 == steps[1].seconds_left
        written = [json.loads(line) for line in (tmp_path / "b" / "results.jsonl").read_text().splitlines()]
        assert written == tidy(rows)
        assert "ConceptError" in (tmp_path / "b" / "leaderboard.html").read_text()

    @pytest.mark.long
    def test_failed_jobs_are_run_again_on_request_only(self, plan, tmp_path, monkeypatch):
        both = plan(concepts=["cat", "dog"])
        forget = api.forget

        def fail_for_the_dog(backbone, concept, **options):
            if concept == "dog":
                raise RuntimeError("the disk\nwas unplugged")
            return forget(backbone, concept, **options)

        with monkeypatch.context() as patch:
            patch.setattr(api, "forget", fail_for_the_dog)
            rows = run_bench(both, tmp_path, say=quiet)
        assert rows[1]["error"] == "RuntimeError: the disk was unplugged"
        assert run_bench(both, tmp_path, say=quiet) == rows
        again = run_bench(both, tmp_path, retry=True, say=quiet)
        assert again[0] == rows[0]
        assert again[1]["status"] == "done"


class TestResuming:
    @pytest.mark.long
    @pytest.mark.usefixtures("ctrl_c")
    def test_an_interrupted_bench_goes_on_where_it_was(self, plan, tmp_path, monkeypatch):
        three = plan(concepts=["cat", "dog", "tree"])
        made, forget, evaluate = [], api.forget, cells.evaluate
        monkeypatch.setattr(api, "forget", lambda b, c, **o: made.append(c) or forget(b, c, **o))

        def press_ctrl_c(backbone, edit, **options):
            if edit.provenance.concept.target == "dog":
                try:
                    signal.raise_signal(signal.SIGINT)
                finally:
                    raise RuntimeError("a library's complaint in place of the interrupt")
            return evaluate(backbone, edit, **options)

        with monkeypatch.context() as patch:
            patch.setattr(cells, "evaluate", press_ctrl_c)
            with pytest.raises(KeyboardInterrupt):
                run_bench(three, tmp_path, say=quiet)
        assert not (tmp_path / FILE_NAME).exists()
        assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 1
        said = []
        rows = run_bench(three, tmp_path, say=said.append)
        assert said == ["1 of 3 jobs are done already"]
        assert made == ["cat", "dog", "tree"], "an edit that was whole is not made again"
        assert [row["status"] for row in rows] == ["done"] * 3

    @pytest.mark.long
    def test_an_interrupted_training_is_resumed_to_the_same_bits(self, plan, tmp_path):
        trained = plan(methods=[TRAINED], concepts=["santa claus"])
        (cell,) = trained.cells()
        whole = run_cell(cell, plan=trained, folder=tmp_path / "whole")
        assert whole["status"] == "done", whole["error"]

        def stop(row):
            if row["step"] == 3:
                raise KeyboardInterrupt

        run = tmp_path / "b" / "runs" / cell.key
        callbacks = Callbacks(on_step=stop)
        with pytest.raises(KeyboardInterrupt):
            api.forget(trained.model, cell.concept, method=trained.recipe(cell), out=run, callbacks=callbacks)
        (row,) = run_bench(trained, tmp_path / "b", say=quiet)
        assert row["status"] == "done", row["error"]
        assert json.loads((run / MADE).read_text())["resumed"]
        assert same_edit(load_edit(run), load_edit(tmp_path / "whole" / "runs" / cell.key))

    def test_an_evaluation_is_kept_if_it_is_of_this_edit_or_of_before_edits_were_named(self, plan, tmp_path):
        one = plan()
        (cell,) = one.cells()
        run_bench(one, tmp_path, say=quiet)
        file = tmp_path / "runs" / cell.key / "evaluation.json"
        made = EvaluationResult.load(file)
        assert made.edit == load_edit(file.parent).digest
        for edit, kept in ((made.edit, True), (None, True), ("feedfeedfeedfeed", False)):
            made.model_copy(update={"edit": edit, "warnings": ["as it was"]}).save(file)
            (file.parent / ROW).unlink()
            run_bench(one, tmp_path, say=quiet)
            assert (EvaluationResult.load(file).warnings == ["as it was"]) == kept

    def test_a_torn_row_is_no_row(self, plan, tmp_path):
        one = plan()
        (cell,) = one.cells()
        run_bench(one, tmp_path, say=quiet)
        (tmp_path / "runs" / cell.key / ROW).write_text('{"status": "do')
        assert read_row(cell, folder=tmp_path) is None
        assert run_bench(one, tmp_path, say=quiet)[0]["status"] == "done"

    @pytest.mark.long
    def test_methods_and_concepts_may_be_added(self, plan, tmp_path):
        run_bench(plan(), tmp_path, say=quiet)
        assert len(run_bench(plan(concepts=["cat", "dog"]), tmp_path, say=quiet)) == 2


def test_the_plan_of_the_leaderboard_goes_on_in_a_folder_of_its_first_seed(tmp_path):
    """Its rows take days: what is compared must not refuse them."""
    whole = load_plan(PLAN, {})
    _describe(whole.model_copy(update={"seeds": (0,)}), tmp_path)
    _describe(whole, tmp_path)


def test_a_folder_of_before_attacks_had_labels_goes_on(plan, tmp_path):
    asked = plan(attacks=[{"name": "noise_inversion", "parameters": {"strength": 0.5}}, "quantise"])
    before = asked.model_dump(mode="json")
    for entry in before["attacks"]:
        del entry["label"]
    write_yaml(tmp_path / "bench.yaml", before)
    _describe(asked, tmp_path)
    labelled = {"label": "quantise-4", "name": "quantise", "parameters": {"bits": [4]}}
    _describe(plan(attacks=[*asked.attacks, labelled]), tmp_path)
    with pytest.raises(
        RunFolderError, match="rows of the attack quantise-4 with other parameters; give it another label"
    ):
        _describe(plan(attacks=[{**labelled, "parameters": {"bits": [8]}}]), tmp_path)


class TestOneTableOneMeaning:
    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"samples": 4}, "samples"),
            ({"evaluation_seed": 3}, "evaluation_seed"),
            ({"attack_images": 9}, "attack_images"),
        ],
    )
    def test_rows_that_were_measured_otherwise_are_refused(self, plan, tmp_path, changes, named):
        run_bench(plan(), tmp_path, say=quiet)
        with pytest.raises(RunFolderError, match=f"measured otherwise \\({named}\\)"):
            run_bench(plan(**changes), tmp_path, say=quiet)

    def test_one_name_for_two_methods_is_refused(self, plan, tmp_path):
        run_bench(plan(), tmp_path, say=quiet)
        other = {"name": "negative-prompt", "recipe": "sld"}
        with pytest.raises(RunFolderError, match="rows of negative-prompt with another recipe"):
            run_bench(plan(methods=[other]), tmp_path, say=quiet)

    def test_one_attack_with_two_budgets_is_refused(self, plan, tmp_path):
        """A column says "after relearn": rows of 40 steps and of 2 must not stand in it together."""

        def relearn(steps, *more):
            return plan(attacks=[{"name": "relearn", "parameters": {"steps": steps}}, *more])

        run_bench(relearn(40), tmp_path, say=quiet)
        with pytest.raises(RunFolderError, match="rows of the attack relearn with other parameters"):
            run_bench(relearn(2), tmp_path, say=quiet)
        assert len(run_bench(relearn(40, "quantise"), tmp_path, say=quiet)) == 1

    @pytest.mark.long
    def test_a_suite_from_a_file_is_a_column_and_another_one_of_its_name_is_refused(self, plan, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text("suite: leftovers\nparameters: {images: 2}\nsettings: {steps: 1}\n")
        asked = plan(suites=[str(file)])
        (row,) = run_bench(asked, tmp_path / "b", say=quiet)
        assert 0 < row["mine.likeness.colour"] <= row["mine.likeness.colour.original"] == 1
        assert "refused" not in row
        assert SuiteResult.load(tmp_path / "b" / row["run"] / "suite-mine.json").settings.steps == 1
        assert run_bench(asked, tmp_path / "b", say=quiet) == [row]
        file.write_text("suite: leftovers\nparameters: {images: 3}\nsettings: {steps: 1}\n")
        with pytest.raises(RunFolderError, match="holds rows of the suite mine with other parameters"):
            run_bench(asked, tmp_path / "b", say=quiet)

    def test_distances_that_were_not_computed_alike_have_no_leaderboard(self, plan, tmp_path, monkeypatch):
        """The jobs all run and are kept; the mean is refused, and so is a bench that begins with such rows."""
        computed = {"cat": {"quality.kid.extractor": "clip"}, "dog": {"quality.kid.extractor": "inception"}}

        def measured(cell, **_):
            row = {"method": cell.method.name, "concept": cell.concept, "seed": cell.seed, "status": "done"}
            row |= {"quality.kid": 1.0, **computed.get(cell.concept, {})}
            write_json(tmp_path / "runs" / cell.key / ROW, row)
            return row

        monkeypatch.setattr("aizheimer.bench.run.run_cell", measured)
        said, both = [], plan(concepts=["cat", "dog", "tree"])
        wanted = "negative-prompt, cat, seed 0 and negative-prompt, dog, seed 0 cannot stand in one table: quality.kid"
        with pytest.raises(InputError, match=wanted):
            run_bench(both, tmp_path, say=said.append)
        assert [line.split(":")[0] for line in said] == ["no leaderboard"]
        assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 3
        assert not (tmp_path / "leaderboard.html").exists()
        monkeypatch.setattr("aizheimer.bench.run.run_cell", None)
        with pytest.raises(InputError, match=wanted):
            run_bench(plan(concepts=["cat", "dog", "tree", "sun"]), tmp_path, say=said.append)

    def test_two_at_once_are_refused(self, plan, tmp_path):
        from aizheimer.bench.lock import locked

        with locked(tmp_path), pytest.raises(RunFolderError, match="in use by another bench"):
            run_bench(plan(), tmp_path, say=quiet)


@pytest.mark.long
def test_judges_are_loaded_once_in_a_process(plan, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(World, "judge_folder", lambda world, name: loaded.append(name))
    rows = run_bench(plan(concepts=["cat", "dog"], attacks=["seed-search"]), tmp_path, say=quiet)
    assert [row["status"] for row in rows] == ["done"] * 2
    assert sorted(loaded) == ["clip", "object", "style"]


def test_attacks_and_what_cannot_be_asked_are_in_the_row(plan, tmp_path):
    """The tiny model has no judge, so that no attack can be scored: the row says so and is done."""
    (row,) = run_bench(plan(attacks=["seed-search"]), tmp_path, say=quiet)
    assert row["status"] == "done"
    assert row["refused"].startswith("seed-search: this model has no object judge")
    found = EvaluationResult.load(tmp_path / row["run"] / "evaluation.json")
    assert found.target == "cat"


class TestParquet:
    def test_without_pyarrow_the_error_says_what_to_install(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(MissingDependencyError, match=r"pip install 'aizheimer\[parquet\]'"):
            write_parquet(tmp_path / "x.parquet", [])

    def test_rows_come_back(self, tmp_path):
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install '.[parquet]'")
        rows = tidy([{"method": "a", "ua": 0.5}, {"method": "b", "error": "x", "no_op": True}])
        assert parquet.read_table(write_parquet(tmp_path / "x.parquet", rows)).to_pylist() == rows


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'")
class TestRay:
    """In a process of its own, see `ray_runs`."""

    def test_answers_and_errors_of_jobs(self, tmp_path):
        code = (
            "import json, math; from aizheimer.bench.backends import run_on_ray\n"
            "found = dict(run_on_ray([4.0, 9.0, -1.0], math.sqrt, workers=1))\n"
            "print(json.dumps([found[4.0], found[9.0], 'ValueError' in type(found[-1.0]).__name__]))"
        )
        assert printed(code, cache=tmp_path, timeout=580)[-1] == [2.0, 3.0, True]

    @pytest.mark.long
    def test_a_bench_has_the_rows_that_it_has_here(self, plan, tmp_path):
        jobs = plan(concepts=["cat", TOO_LONG])
        here = run_bench(jobs, tmp_path / "here", say=quiet)
        (tmp_path / "plan.json").write_text(jobs.model_dump_json())
        code = (
            "import json, sys; from pathlib import Path; from aizheimer.bench.plan import BenchPlan\n"
            "from aizheimer.bench.run import run_bench\n"
            "plan = BenchPlan.model_validate_json(Path(sys.argv[1]).read_text())\n"
            "rows = run_bench(plan, sys.argv[2], backend='ray', workers=1, say=lambda _: None)\n"
            "print(json.dumps(rows))"
        )
        there = printed(code, tmp_path / "plan.json", tmp_path / "there", cache=tmp_path / "cache", timeout=580)[-1]
        timed = {"seconds", "seconds_forget"}
        assert [{k: v for k, v in row.items() if k not in timed} for row in there] == [
            {k: v for k, v in row.items() if k not in timed} for row in here
        ]


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'aizheimer\[ray\]'"):
        list(run_on_ray([1], abs))
