"""Seeds that made the same edit share what was found about it, and no others do."""

import json

import pytest

from aizheimer.bench import cell as cells
from aizheimer.bench.cell import run_cell
from aizheimer.bench.plan import BenchPlan
from aizheimer.proof.findings import EVALUATION
from tests.unit.bench.test_run import TRAINED


@pytest.fixture
def rows(saved_tiny_pipeline, tmp_path):
    def run(method, seeds=(0, 1)):
        fields = {"model": str(saved_tiny_pipeline), "methods": [method], "concepts": ["cat"], "samples": 3}
        fields |= {"seeds": (0, 1), "suites": ["families"], "steps": 2}
        plan = BenchPlan.model_validate(fields)
        return [run_cell(cell, plan=plan, folder=tmp_path) for cell in plan.cells() if cell.seed in seeds]

    return run


def test_a_closed_form_is_judged_once_for_all_seeds(rows, tmp_path, monkeypatch):
    judged = []
    evaluate = cells.evaluate
    monkeypatch.setattr(cells, "evaluate", lambda *args, **options: judged.append(1) or evaluate(*args, **options))
    first, second = rows("uce")
    assert (first["status"], second["status"]) == ("done", "done"), (first["error"], second["error"])
    assert judged == [1]
    assert first["same_edit_as"] == ""
    assert second["same_edit_as"] == "uce--cat--seed0"
    texts = [(tmp_path / "runs" / f"uce--cat--seed{seed}" / EVALUATION).read_text() for seed in (0, 1)]
    assert texts[0] == texts[1]


def test_two_trainings_are_judged_each(rows):
    first, second = rows(TRAINED)
    assert (first["status"], second["status"]) == ("done", "done"), (first["error"], second["error"])
    assert (first["same_edit_as"], second["same_edit_as"]) == ("", "")


def test_a_damaged_twin_is_none(rows, tmp_path):
    rows("uce", seeds=(0,))
    record = tmp_path / "runs" / "uce--cat--seed0" / "edit.json"
    record.write_text(json.dumps({}))
    (second,) = rows("uce", seeds=(1,))
    assert (second["status"], second["same_edit_as"]) == ("done", "")


def carried(tmp_path):
    """Leave of the first seed's run its row alone, as where rows were carried to another machine."""
    run = tmp_path / "runs" / "uce--cat--seed0"
    for file in [*run.rglob("*")]:
        if file.is_file() and file.name != "cell.json":
            file.unlink()
    return run / "cell.json"


def test_a_row_whose_run_is_not_here_is_taken_over(rows, tmp_path, monkeypatch):
    (first,) = rows("uce", seeds=(0,))
    carried(tmp_path)
    monkeypatch.setattr(cells, "evaluate", None)
    (second,) = rows("uce", seeds=(1,))
    assert (second["status"], second["same_edit_as"]) == ("done", "uce--cat--seed0"), second["error"]
    assert (second["seed"], second["run"]) == (1, "runs/uce--cat--seed1")
    own = ("seed", "same_edit_as", "seconds_forget", "seconds", "run")
    assert {k: v for k, v in second.items() if k not in own} == {k: v for k, v in first.items() if k not in own}


@pytest.mark.parametrize("left", ["another edit", "torn", "failed"])
def test_a_row_alone_is_not_taken_over_when_it_is(left, rows, tmp_path):
    (first,) = rows("uce", seeds=(0,))
    there = {
        "another edit": json.dumps({**first, "edit": "0" * 16}),
        "torn": "{",
        "failed": json.dumps({**first, "status": "failed"}),
    }
    carried(tmp_path).write_text(there[left])
    (second,) = rows("uce", seeds=(1,))
    assert (second["status"], second["same_edit_as"]) == ("done", "")
