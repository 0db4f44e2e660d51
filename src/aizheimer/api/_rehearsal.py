"""A method run once on its real model, as small as it can be, to see what a step takes."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import expanded
from aizheimer.backbones.counting import Count, counted
from aizheimer.backbones.memory import allocated_peak, available_bytes, watching
from aizheimer.concepts.concept import Concept
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.query_problem import query_recorder
from aizheimer.engine.run_folder import RunFolder
from aizheimer.methods.base import Method
from aizheimer.modules.formats import halved_layers

ONE = {"forget": 1, "retain": 1, "holdout": 1, "steps": 1, "picture_steps": 1}
PICTURES = ("images", "pictures")
"""Fields of methods that say where pictures come from."""
WATCHED, STEPS = 2, 4
"""The first step makes the optimiser's state, the second has it from the start; others are timed and not watched."""


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What a small run took.

    Args:
        batch: Forget examples in a step.
        retain: Retain examples in a step.
        peak: The most bytes held while it trained, above what it held before.
        prepared: The most bytes held before that, above the weights: encoding prompts, choosing what to retain.
        prompts: How many prompts it encoded.
        step_seconds: Time of a step that nothing watched.
        edit_bytes: Size of its edit on the disk.
        checkpoint_bytes: Size of its checkpoint: parameters, best state, optimiser.
        network: What was trained, of `aizheimer.backbones.base.Part`.
        parameters: Names of what was trained; empty for adapters.
    """

    batch: int
    retain: int
    peak: int
    prepared: int
    prompts: int
    step_seconds: float
    edit_bytes: int
    checkpoint_bytes: int
    network: str
    parameters: tuple[str, ...]

    def larger(self, count: int, device: torch.device) -> int:
        """Return how many examples, up to ``count``, surely fit into half of the memory that is there; two at least.

        Small batches take more time for an example than large ones, so that a line through two of them leads astray.
        """
        room = available_bytes(device) // 2
        return min(count, max(2, room // max(self.peak, 1)))


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What one row of a forward pass without gradients takes: fixed and by row.

    Args:
        base: Bytes whatever the rows.
        each: Bytes for each row.
        seconds: Time for each row.
        guided: Rows that one latent's prediction under guidance takes, with the plain ones that are kept beside it.
    """

    base: float
    each: float
    seconds: float
    guided: int

    def peak(self, rows: int) -> float:
        """Return the bytes of a pass of so many rows."""
        return self.base + self.each * rows


@dataclass
class _Seen:
    steps: list[Mapping[str, Any]] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


def rehearse(backbone: Backbone, concept: Concept, method: Method, *, batch: int, retain: int) -> Rehearsal:
    """Run a few steps of a trained method with other batch sizes and next to no data, and measure.

    Args:
        backbone: The model; it is bit-identical afterwards.
        concept: What would be forgotten.
        method: The method with its real hyper-parameters.
        batch: Forget examples in a step.
        retain: Retain examples in a step.
    """
    small = type(method).model_validate(trimmed(method.model_dump(), batch=batch, retain=retain))
    seen = _Seen()
    with tempfile.TemporaryDirectory(prefix="aizheimer-") as folder:
        run = RunFolder(Path(folder) / "run").create()
        with ExitStack() as stack:
            watches = [stack.enter_context(watching(backbone.device))]

            def on_data(row: Mapping[str, Any]) -> None:
                # A step's memory would not be seen beneath what is held while prompts are encoded.
                seen.data.update(row)
                watches[-1].end()
                watches.append(stack.enter_context(watching(backbone.device)))

            def on_step(row: Mapping[str, Any]) -> None:
                seen.steps.append(row)
                if row["step"] == WATCHED:
                    watches[-1].end()

            callbacks = Callbacks(on_step=on_step, on_data=on_data)
            small.unlearn(backbone, concept, run=run, callbacks=callbacks).save(run.path)
            *before, peak = (watch.end() for watch in watches)
        sizes = {path.name: path.stat().st_size for path in run.path.iterdir() if path.is_file()}
    names, network = tuple(seen.data.get("parameters", ())), str(seen.data.get("network", "unet"))
    return Rehearsal(
        batch=batch,
        retain=retain,
        peak=peak - _gone(backbone, method, names if network == "unet" else ()),
        prepared=max(before, default=0),
        prompts=sum(len(seen.data.get(name, ())) for name in ("forget_prompts", "retain_prompts")) + 1,
        # The least: what else the machine does is no part of it.
        step_seconds=min((float(row["seconds"]) for row in seen.steps[WATCHED:]), default=0.0),
        edit_bytes=sum(size for name, size in sizes.items() if name.startswith("edit.")),
        checkpoint_bytes=sum(size for name, size in sizes.items() if name.startswith("checkpoint")),
        network=network,
        parameters=names,
    )


def trimmed(content: Mapping[str, Any], *, batch: int, retain: int) -> dict[str, Any]:
    """Return hyper-parameters of a method with these batch sizes, `STEPS` steps and next to no data.

    Args:
        content: The hyper-parameters, as ``model_dump`` gives them.
        batch: Forget examples in a step.
        retain: Retain examples in a step.
    """
    small = dict(content)
    small["training"] = small["training"] | {
        "steps": STEPS,
        "batch_size": batch,
        "accumulation": 1,
        "monitor_every": 1000,
        "warmup": 0,
        "drift_limit": None,
        "stop_mass_ratio": None,
    }
    own: dict[str, Any] = {"retain_batch_size": retain, "monitor_examples": 1, "enough": None, "start": None}
    small |= {name: value for name, value in own.items() if name in small}
    small["rollouts"] = small["rollouts"] | ONE
    if (bank := small.get("bank")) is not None:
        # Of a warm start it is the steps through the network that a run is made of.
        small["bank"] = bank | {"forget": 1, "retain": 1} if bank["warm_start"] is None else None
    if isinstance(small.get("retain"), Mapping):
        small["retain"] = small["retain"] | {"batch_size": retain, "monitor": 1}
    if "warmup" in small:
        small["warmup"] = min(small["warmup"], 1)
    for name in PICTURES:
        if str(small.get(name)).startswith("generate:"):
            small[name] = "generate:2"
    return small


@dataclass(frozen=True, kw_only=True)
class Solved:
    """What a closed form took.

    Args:
        seconds: Time of all of it.
        peak: The most bytes held, above the weights.
        edit_bytes: Size of its edit on the disk.
        cache_bytes: Size of what it keeps beside it.
        residual: Share of what the concept's words say that it leaves; None if it does not say.
        suffices: Whether no training follows.
    """

    seconds: float
    peak: int
    edit_bytes: int
    cache_bytes: int
    residual: float | None
    suffices: bool


def closed_form(backbone: Backbone, concept: Concept, method: Any) -> Solved | None:
    """Solve the closed form that a method is, or begins with; None if there is none.

    Args:
        backbone: The model; it is bit-identical afterwards.
        concept: What would be forgotten.
        method: The method with its real hyper-parameters.
    """
    if "training" not in type(method).model_fields:
        return _solve(backbone, concept, method)
    if getattr(method, "start", None) is None or "enough" not in type(method).model_fields:
        return None
    # Without end whatever it leaves: a training that follows is rehearsed by itself.
    found = _solve(backbone, concept, method.model_copy(update={"images": None, "enough": math.inf}))
    enough: float | None = method.enough if method.images is None else None
    return replace(found, suffices=enough is not None and (found.residual or 0.0) <= enough)


def _solve(backbone: Backbone, concept: Concept, method: Method) -> Solved:
    """Solve a closed form, and measure: it takes seconds, and nothing less tells whether a training must follow it."""
    with tempfile.TemporaryDirectory(prefix="aizheimer-") as folder:
        run = RunFolder(Path(folder) / "run").create()
        started = time.perf_counter()
        edit = method.unlearn(backbone, concept, run=run)
        seconds = time.perf_counter() - started
        edit.save(run.path)
        files = {path: path.stat().st_size for path in run.path.rglob("*") if path.is_file()}
    # A second time, since watching on a CPU takes time itself.
    peak = allocated_peak(lambda: method.unlearn(backbone, concept), backbone.device)
    edit_bytes = sum(size for path, size in files.items() if path.name.startswith("edit."))
    return Solved(
        seconds=seconds,
        peak=peak,
        edit_bytes=edit_bytes,
        cache_bytes=sum(files.values()) - edit_bytes,
        residual=edit.provenance.extra.get("residual"),
        suffices=True,
    )


def rows_without_gradients(backbone: Backbone, *, guidance: float) -> Rows:
    """Measure forward passes of two and of four rows, as rollouts and looks at the held-out set take them.

    Args:
        backbone: The model.
        guidance: Of rollouts.
    """
    peaks, seconds, guided = {}, 0.0, Count()
    for rows in (2, 4):
        x_t = torch.zeros(rows, *backbone.latent_shape, device=backbone.device, dtype=backbone.dtype)
        t = torch.full((rows,), backbone.schedule.num_steps // 2, device=backbone.device)
        conditions = expanded(backbone.condition([""]).to(x_t), rows)
        with torch.no_grad():
            peaks[rows] = allocated_peak(lambda: backbone.predict(x_t, t, conditions), backbone.device)  # noqa: B023
            if rows == 2:
                one = expanded(conditions, rows)[:1]
                with counted(backbone) as guided:
                    backbone.predict_guided(x_t[:1], t[:1], one, null=one, scale=guidance)
            else:
                seconds = _timed(lambda: backbone.predict(x_t, t, conditions), backbone.device)  # noqa: B023
    each = max(0.0, (peaks[4] - peaks[2]) / 2)
    return Rows(base=max(0.0, peaks[2] - 2 * each), each=each, seconds=seconds / 4, guided=guided.latents)


def _timed(action: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a call that has been made before; a GPU is waited for."""
    waits = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    waits()
    started = time.perf_counter()
    action()
    waits()
    return time.perf_counter() - started


def query_bytes(backbone: Backbone, layers: Sequence[str]) -> int:
    """Return the size in float16 of the queries that some attention layers ask for one input."""
    x_t = torch.zeros(1, *backbone.latent_shape, device=backbone.device, dtype=backbone.dtype)
    t = torch.zeros(1, dtype=torch.long, device=backbone.device)
    found = query_recorder(backbone, layers)(x_t, t, backbone.condition([""]).to(x_t))
    return sum(2 * queries.numel() for queries in found.values())


def _gone(backbone: Backbone, method: Method, trained: tuple[str, ...]) -> int:
    """Return the float32 bytes that are not in memory while frozen weights are in half precision."""
    settings: Any = method
    if settings.training.weights != "bf16" or backbone.device.type == "cuda":
        return 0  # on CUDA the allocator itself has seen them go
    layers = halved_layers(backbone.denoiser, trained)
    return sum(parameter.nbytes for layer in layers for parameter in layer.parameters())
