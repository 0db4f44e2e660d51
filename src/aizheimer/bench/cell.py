"""One job of a bench: forget, evaluate, ask the suites, attack; the answer is a row, whatever happens."""

from __future__ import annotations

import json
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from aizheimer import api
from aizheimer._files import write_json
from aizheimer._interrupts import interruptible
from aizheimer._version import __version__
from aizheimer.attacks.base import AttackSettings
from aizheimer.backbones.base import Backbone
from aizheimer.bench.columns import evaluation_columns, trial_columns
from aizheimer.bench.plan import BenchPlan, Cell
from aizheimer.bench.rows import ROW, RUNS, Row
from aizheimer.bench.twins import adopt, measured_row
from aizheimer.edits.edit import Edit
from aizheimer.edits.storage import RECORD
from aizheimer.engine.run_folder import RunFolder
from aizheimer.evaluation.evaluate import evaluate
from aizheimer.evaluation.generate import StageProgress, staged
from aizheimer.evaluation.judges import JudgeNetworks, Judges
from aizheimer.evaluation.results import EvaluationResult
from aizheimer.evaluation.reuse import Say, quiet
from aizheimer.evaluation.suite import Scene
from aizheimer.proof.findings import EVALUATION
from aizheimer.proof.trials import Trials, run_trials

MADE = "made.json"
"""What making a cell's edit took, in its run folder: written when the edit is whole."""

NOT_SHARED = ("status", "error", "seconds", "run", "aizheimer")
"""Columns that a job writes itself where the rest of its row is another's with the same edit."""


def run_cell(
    cell: Cell, *, plan: BenchPlan, folder: Path, say: Say = quiet, progress: StageProgress | None = None
) -> Row:  # fmt: skip
    """Do one job and write its row; an error becomes a row that tells it.

    What is in the run folder already is kept: an edit that was finished is not made again, one that was interrupted is
    resumed, results that are there and were made from the same things are not measured again.

    Args:
        cell: The job.
        plan: How edits are measured.
        folder: The bench's folder; the cell's run is ``runs/<key>`` in it.
        say: Told in one line what is measured again, and why.
        progress: Called with a stage's name, what is done and what there is in all.

    Returns:
        The row, as `write_row` keeps it.
    """
    run = folder / RUNS / cell.key
    row: Row = {"method": cell.method.name, "concept": cell.concept, "seed": cell.seed}
    started = time.perf_counter()
    try:
        with interruptible():
            row |= {"status": "done", "error": ""} | _measure(cell, plan=plan, run=run, say=say, progress=progress)
    except Exception as error:  # whatever it is, it must not end the bench
        text = " ".join(str(error).split()) or "no message"
        row |= {"status": "failed", "error": f"{type(error).__name__}: {text}"}
    row |= {"seconds": round(time.perf_counter() - started, 2), "run": f"{RUNS}/{cell.key}", "aizheimer": __version__}
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / ROW, row)
    return row


def _measure(cell: Cell, *, plan: BenchPlan, run: Path, say: Say, progress: StageProgress | None) -> Row:
    backbone = _backbone(plan.model)
    edit, made = _edit(cell, plan=plan, run=run, backbone=backbone)
    twin = adopt(cell, edit, plan=plan, runs=run.parent)
    if not twin and (row := measured_row(cell, edit, plan=plan, runs=run.parent)) is not None:
        own = {"seed": cell.seed, "seconds_forget": made["seconds"]}
        return {name: value for name, value in row.items() if name not in NOT_SHARED} | own
    judges = _networks(plan.model).judges(extra=(edit.provenance.concept.target,))
    result = _evaluation(plan, run=run, backbone=backbone, edit=edit, judges=judges, progress=progress)
    scene = Scene(
        backbone=backbone,
        edit=edit,
        concept=edit.provenance.concept.to_concept(),
        judges=judges,
        settings=result.settings,
    )
    trials = _trials(plan, scene, run=run, say=say, progress=progress)
    return {
        "recipe": cell.method.recipe,
        "kind": result.kind,
        "model": result.model_name,
        "seconds_forget": made["seconds"],
        "edit": edit.digest,
        "same_edit_as": twin,
        "megabytes": round(edit.size_bytes / 1e6, 6),
        "no_op": result.no_op,
        "collapse": result.collapse,
        **evaluation_columns(result),
        **trial_columns(trials),
    }


@lru_cache(maxsize=1)
def _backbone(model: str) -> Backbone:
    """Load the model once in every process; every edit comes off again, bit for bit."""
    return api.load_model(model)


@lru_cache(maxsize=1)
def _networks(model: str) -> JudgeNetworks:
    """Load the judges once in every process: no target changes a network."""
    return JudgeNetworks.load(_backbone(model).world)


def _edit(cell: Cell, *, plan: BenchPlan, run: Path, backbone: Backbone) -> tuple[Edit, dict[str, Any]]:
    """Return the cell's edit and what it took: made before, resumed, or made now."""
    made = run / MADE
    if made.is_file() and (run / RECORD).is_file():
        return api.load_edit(run), json.loads(made.read_text(encoding="utf-8"))
    failed = (run / ROW).is_file()
    if failed:
        (run / ROW).unlink()  # a row may be all that a failed cell left, and a run folder must hold a run
    holds_run = RunFolder(run).holds_run()
    if run.is_dir() and not any(run.iterdir()):
        run.rmdir()
    started = time.perf_counter()
    edit = api.forget(
        backbone,
        cell.concept,
        method=plan.recipe(cell),
        out=run,
        resume=holds_run and not failed,
        overwrite=holds_run and failed,
    )
    took = {"seconds": round(time.perf_counter() - started, 2), "resumed": holds_run and not failed}
    write_json(made, took)
    return edit, took


def _evaluation(
    plan: BenchPlan, *, run: Path, backbone: Backbone, edit: Edit, judges: Judges, progress: StageProgress | None
) -> EvaluationResult:
    if (run / EVALUATION).is_file():
        there = EvaluationResult.load(run / EVALUATION)
        if there.edit in (None, edit.digest):  # files of before it was written are this bench's own
            return there
    result = evaluate(
        backbone.pipe,
        edit,
        concept=edit.provenance.concept.to_concept(),
        world=backbone.world,
        judges=judges,
        settings=plan.settings(),
        progress=staged(progress, "pictures"),
    )
    result.save(run / EVALUATION)
    return result


def _trials(plan: BenchPlan, scene: Scene, *, run: Path, say: Say, progress: StageProgress | None) -> Trials:
    if not plan.suites and not plan.attacks:
        return Trials()
    settings = AttackSettings(
        images=plan.attack_images, steps=plan.attack_steps, seed=plan.evaluation_seed, precision=plan.precision
    )
    return run_trials(
        scene,
        folder=run,
        suites=plan.suites,
        attacks=[entry.loaded() for entry in plan.attacks],
        attack_settings=settings,
        controls=plan.controls,
        say=say,
        progress=progress,
    )
