"""Run a trained method on the tiny pipeline, and what every one of them must leave behind."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from aizheimer.backbones.base import Backbone, backbone_for
from aizheimer.concepts import Concept
from aizheimer.edits.edit import Edit
from aizheimer.edits.hook import describe
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from tests.snapshot import same_snapshot, snapshot
from tests.tiny import tiny_pipeline, tiny_world

SMALL: dict[str, Any] = {
    "retain": {"neighbours": 2, "others": 1, "general": 1, "batch_size": 2, "monitor": 4},
    "rollouts": {"forget": 2, "retain": 3, "holdout": 1, "steps": 2, "picture_steps": 2, "guidance": 3.0},
}
TRAINING: dict[str, Any] = {"steps": 4, "batch_size": 2, "monitor_every": 2, "lr": 1e-3, "drift_limit": None}


def small(method: type, **options: Any) -> Any:
    """Return a method cut down to a second of work."""
    training = TRAINING | options.pop("training", {})
    return method.model_validate({**SMALL, "training": training, **options})


def tiny_backbone(**options: Any) -> Backbone:
    return backbone_for(tiny_pipeline(**options), world=tiny_world())


def tensors(edit: Edit) -> dict[str, torch.Tensor]:
    """Return everything an edit was trained to be: changes of weights, and what its hook holds."""
    return {**edit.deltas, **({} if edit.hook is None else edit.hook.tensors)}


def same_edit(a: Edit, b: Edit) -> bool:
    """Whether two edits have the same bits, and hooks with the same settings."""
    hooks = [describe(edit.hook, 1.0) if edit.hook is not None else None for edit in (a, b)]
    same = a.deltas.keys() == b.deltas.keys() and all(torch.equal(a.deltas[name], b.deltas[name]) for name in a.deltas)
    return same and hooks[0] == hooks[1]


def check_method(
    method: Any, concept: Concept, *, pipeline: dict[str, Any] | None = None, drift: float = 1e-9
) -> tuple[Edit, list, dict]:
    """Unlearn twice on a tiny pipeline; returns the edit, the steps' rows, and what was told of the data."""
    backbone = tiny_backbone(**pipeline or {})
    before, data, steps, looks = snapshot(backbone.pipe), {}, [], []
    callbacks = Callbacks(on_data=data.update, on_step=steps.append, on_monitor=looks.append)
    edit = method.unlearn(backbone, concept, callbacks=callbacks)
    assert same_snapshot(before, snapshot(backbone.pipe))
    assert not edit.is_noop
    assert all(tensor.isfinite().all() for tensor in tensors(edit).values())
    names = {name.partition(".")[2] for name in edit.deltas}
    assert names <= set(data["parameters"])
    assert data["forget_prompts"]
    assert data["retain_prompts"]
    assert set(data["layers"]) <= set(backbone.attention_modules())
    assert same_edit(edit, method.unlearn(backbone, concept))
    assert looks[0]["retention_drift"] < drift
    assert edit.provenance.method == type(method).name
    assert type(method).model_validate(edit.provenance.recipe) == method
    return edit, steps, data


class Stopped(Exception):
    """The moment a test stops a run at."""


def check_resume(method: Any, concept: Concept, folder: Any, *, at: int) -> None:
    """Stop a run after a step, resume it, and compare it with one that was not stopped."""

    def stop(row: Any) -> None:
        if row["step"] == at:
            raise Stopped

    whole = method.unlearn(tiny_backbone(), concept)
    with contextlib.suppress(Stopped):
        method.unlearn(tiny_backbone(), concept, run=RunFolder(folder).create(), callbacks=Callbacks(on_step=stop))
    redone: list[int] = []
    callbacks = Callbacks(on_step=lambda row: redone.append(row["step"]))
    run = RunFolder(folder).create(resume=True)
    resumed = method.unlearn(tiny_backbone(), concept, run=run, callbacks=callbacks)
    assert redone[0] > 1
    assert same_edit(whole, resumed)
