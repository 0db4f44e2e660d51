"""Several processes forget together: the same result as one, in one folder; and one that is killed costs little."""

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from aizheimer import _files, api
from aizheimer.edits.edit import Edit
from aizheimer.edits.io import load_edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from tests import company
from tests.contracts.quick import quick_recipe
from tests.tiers import all_but
from tests.trained import same_edit

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("cached")]  # processes that import, on a busy machine

METHODS = ("aizheimer", "esd", "advunlearn", "doco", "receler")
"""Attention read by a probe, predictions alone, prompts under attack, an adversary and a gradient rule, adapters."""
STEPS = 24
LONG = (f"training.steps={STEPS}", "training.checkpoint_every=4", "training.monitor_every=20")
NEAR = 2e-3
"""Relative. Processes add in another order, and Adam divides by what may be next to nothing."""


@pytest.fixture
def cached(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path_factory.getbasetemp() / "processes-cache"))


def recipe_file(name: str, folder: Path, *overrides: str) -> Path:
    recipe = quick_recipe(name, "training.batch_size=4", *overrides)
    _files.write_yaml(folder / "recipe.yaml", recipe.resolved())
    return folder / "recipe.yaml"


def words(pipeline: Path, recipe: Path, out: Path, *options: str) -> list[object]:
    return ["forget", "santa claus", "--model", pipeline, "--method", recipe, "--out", out, *options]


def alone(pipeline: Path, recipe: Path, **options) -> Edit:
    return api.forget(pipeline, "santa claus", method=recipe, **options)


def distance(a: Edit, b: Edit) -> float:
    """Return how far two edits are apart, relative to the second."""
    one, two = everything(a), everything(b)
    assert one.keys() == two.keys()
    apart = sum((one[name].double() - two[name].double()).square().sum() for name in two)
    return float((apart / sum(tensor.double().square().sum() for tensor in two.values())).sqrt())


def everything(edit: Edit) -> dict[str, torch.Tensor]:
    return {**edit.deltas, **(edit.hook.tensors if edit.hook is not None else {})}


@pytest.mark.parametrize("name", all_but(["aizheimer"], METHODS))
def test_two_processes_give_what_one_gives(name, saved_tiny_pipeline, tmp_path):
    recipe = recipe_file(name, tmp_path, "training.monitor_every=2")
    with company.start(words(saved_tiny_pipeline, recipe, tmp_path / "run"), count=2, folder=tmp_path / "logs") as two:
        assert two.ended() == [0, 0], two.said(0) + two.said(1)
    seen: list[dict[str, Any]] = []
    one = alone(saved_tiny_pipeline, recipe, callbacks=Callbacks(on_step=seen.append))
    assert distance(load_edit(tmp_path / "run"), one) < NEAR, name
    assert "edit  " in two.said(0)
    assert two.said(1) == ""
    steps = [row for row in RunFolder(tmp_path / "run").history() if row["event"] == "step"]
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    cosines = [[row["cosine"] for row in history if "cosine" in row] for history in (steps, seen)]
    assert len(cosines[0]) == 2
    assert cosines[0] == pytest.approx(cosines[1], abs=1e-2)


@pytest.mark.long
def test_more_processes_than_examples_compute_the_same(saved_tiny_pipeline, tmp_path):
    """Three processes and two examples: nothing can be dealt out, and nothing is counted twice."""
    recipe = recipe_file("esd", tmp_path, "training.batch_size=2", "retain_weight=1")
    with company.start(
        words(saved_tiny_pipeline, recipe, tmp_path / "run"), count=3, folder=tmp_path / "logs"
    ) as three:
        assert three.ended() == [0, 0, 0], three.said()
    assert distance(load_edit(tmp_path / "run"), alone(saved_tiny_pipeline, recipe)) < NEAR


@pytest.mark.long
@pytest.mark.parametrize("killed", [0, 1], ids=["the main one", "another"])
def test_one_killed_process_ends_the_run_which_then_goes_on_in_any_number(saved_tiny_pipeline, tmp_path, killed):
    recipe, run = recipe_file("aizheimer", tmp_path, *LONG), RunFolder(tmp_path / "run")
    with company.start(words(saved_tiny_pipeline, recipe, run.path), count=2, folder=tmp_path / "logs") as two:
        wait_for_step(run, 9, two)
        os.kill(two.processes[killed].pid, signal.SIGKILL)
        codes = two.ended()
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] == 1
    last = two.said(1 - killed).splitlines()[-1]
    assert re.match(r"error: (process 1: )?another process of this command has ended", last)
    assert "--resume" in last
    assert 9 <= run.history()[-1]["step"] < STEPS
    whole = alone(saved_tiny_pipeline, recipe)
    with company.start(
        words(saved_tiny_pipeline, recipe, run.path, "--resume"), count=3, folder=tmp_path / "resumed"
    ) as resumed:
        assert resumed.ended() == [0, 0, 0], resumed.said()
    assert distance(load_edit(run.path), whole) < NEAR
    history = run.history()
    assert [row["step"] for row in history if row["event"] == "step"] == list(range(1, STEPS + 1))
    again = alone(saved_tiny_pipeline, recipe, out=run.path, resume=True)
    assert same_edit(again, load_edit(run.path))


def test_bad_input_is_told_once_and_touches_nothing(saved_tiny_pipeline, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    recipe = recipe_file("esd", tmp_path)
    with company.start(words(saved_tiny_pipeline, recipe, tmp_path / "full"), count=2, folder=tmp_path / "logs") as two:
        assert two.ended() == [2, 2]
    assert two.said(0).splitlines()[-1].startswith("error: ")
    assert two.said(1) == ""
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["note.txt"]


def wait_for_step(run: RunFolder, step: int, running: company.Company) -> None:
    while all(process.is_alive() for process in running.processes):
        if any(row["event"] == "step" and row["step"] >= step for row in run.history()):
            return
        time.sleep(0.005)
    pytest.fail(f"the run ended before step {step}: {running.said()}")
