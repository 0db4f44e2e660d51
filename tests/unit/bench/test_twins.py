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
        fields |= {"seeds": seeds, "suites": ["families"], "steps": 2}
        plan = BenchPlan.model_validate(fields)
        return [run_cell(cell, plan=plan, folder=tmp_path) for cell in plan.cells()]

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
