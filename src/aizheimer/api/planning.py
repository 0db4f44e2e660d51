"""What a run will take, before it runs: memory, time and disk, from a rehearsal on the model itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from aizheimer.api._rehearsal import Rehearsal, Rows, query_bytes, rehearse, rows_without_gradients
from aizheimer.api.forgetting import recipe_of
from aizheimer.api.models import Model, address_of, as_concept, load_model
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.memory import resident_bytes, size_text, weight_bytes
from aizheimer.concepts.concept import Concept
from aizheimer.data.latents import RolloutPlan
from aizheimer.engine.held_out import MONITOR_BATCH
from aizheimer.errors import GateError, InputError
from aizheimer.methods.base import Method
from aizheimer.modules.parameters import select_layers
from aizheimer.recipes.load import Recipe

ROLLOUT_BATCH = 16
"""Trajectories that `aizheimer.data.latents.rollout` denoises at a time."""
LEANER: tuple[Mapping[str, Any], ...] = (
    {},
    {"checkpointing": True},
    {"checkpointing": True, "precision": "bf16", "weights": "bf16"},
)
"""What ``fit`` tries in turn, from what costs least; each is also tried with its batch cut into parts."""


class Plan(BaseModel):
    """What a run is predicted to take.

    Args:
        model: What is edited.
        method: The recipe's name.
        concept: What is forgotten.
        device: Where it runs.
        options: Hyper-parameters that were changed to make it fit, as ``training.<name>``.
        memory: Bytes: ``weights``, what is held above them by ``step``, ``rollouts`` and ``look`` (at the held-out set)
            when each is at its largest, ``bank`` (trajectories and queries in memory), ``peak`` of them all; and
            ``program``, what the process holds beside tensors.
        seconds: ``prepare``, ``step``, ``look``, and ``total``.
        disk: Bytes: ``edit``, ``checkpoint``, ``cache`` and ``total``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    method: str
    concept: str
    device: str
    options: dict[str, Any]
    memory: dict[str, int]
    seconds: dict[str, float]
    disk: dict[str, int]

    @property
    def needed(self) -> int:
        """Bytes that must be there: the peak, and on a CPU the program beside it."""
        return self.memory["peak"] + (self.memory["program"] if self.device == "cpu" else 0)


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """A trained method's batch: forget and retain examples in a part, and parts in a step."""

    batch: int
    retain: int
    parts: int

    @classmethod
    def of(cls, method: Any) -> _Sizes:
        return cls(
            batch=method.training.batch_size,
            retain=method.retain_batch_size if _is_flat(method) else method.retain.batch_size,
            parts=method.training.accumulation,
        )

    def cut(self, parts: int) -> _Sizes:
        return replace(self, batch=self.batch // parts, retain=max(1, self.retain // parts), parts=self.parts * parts)


def plan(
    model: Model,
    concept: str | Concept,
    *,
    method: str | Path | Recipe | Method = "aizheimer",
    fit: int | None = None,
    seed: int | None = None,
    **parameters: Any,
) -> Plan:
    """Predict what forgetting a concept takes, without doing it.

    The method runs two steps on the model with one example of each kind, and a second time with two where its batch is
    larger: a step's memory and time are straight lines in both. Forward passes without gradients, which rollouts and
    looks at the held-out set are made of, are measured alike.

    Args:
        model: What would be edited; see `aizheimer.api.load_model`. It is bit-identical afterwards.
        concept: What would be forgotten.
        method: A trained method, its recipe, or either one loaded.
        fit: Bytes that are there; options are chosen with which the run needs no more.
        seed: Of the run.
        **parameters: Parameters of the method, nested as in a recipe.

    Returns:
        The prediction, with the options it is for.

    Raises:
        InputError: The method does not train.
        GateError: Nothing that can be chosen fits.

    Example:
        >>> plan("emoji", "Santa Claus", method="esd").needed < 4 * 2**30  # doctest: +SKIP
        True
    """
    recipe = recipe_of(method, parameters, seed)
    if "training" not in type(recipe.method).model_fields:
        raise InputError(
            f"plan: {recipe.name} does not train, so there are no steps to predict; it takes what drawing pictures do"
        )
    backbone = load_model(model)
    target = as_concept(concept, world=backbone.world)
    program = max(0, resident_bytes() - weight_bytes(backbone.components.values()))
    rows = rows_without_gradients(backbone)
    tried: list[Plan] = []
    for options in LEANER if fit is not None else LEANER[:1]:
        planner = _Planner.of(backbone, target, recipe, options=options, rows=rows, program=program)
        for sizes in planner.cuts() if fit is not None else [planner.sizes]:
            tried.append(planner.plan(sizes))
            if fit is None or tried[-1].needed <= fit:
                return tried[-1]
    least = min(tried, key=lambda found: found.needed)
    raise GateError(
        f"plan: nothing fits into {size_text(fit or 0)}; the least is {size_text(least.needed)}, with "
        f"{', '.join(f'{name}={value}' for name, value in least.options.items()) or 'the method as it is'}"
    )


@dataclass(frozen=True, kw_only=True)
class _Planner:
    """Turns a few rehearsals of one choice of options into predictions for any batch."""

    backbone: Backbone
    concept: Concept
    recipe: Recipe
    method: Any
    options: Mapping[str, Any]
    sizes: _Sizes
    one: Rehearsal
    by_batch: Rehearsal
    by_retain: Rehearsal
    rows: Rows
    program: int

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        concept: Concept,
        recipe: Recipe,
        *,
        options: Mapping[str, Any],
        rows: Rows,
        program: int,
    ) -> _Planner:
        content = recipe.method.model_dump()
        content["training"] = content["training"] | options
        method: Any = type(recipe.method).model_validate(content)
        sizes = _Sizes.of(method)
        one = rehearse(backbone, concept, method, batch=1, retain=1)
        return cls(
            backbone=backbone,
            concept=concept,
            recipe=recipe,
            method=method,
            options=options,
            sizes=sizes,
            one=one,
            by_batch=rehearse(backbone, concept, method, batch=2, retain=1) if sizes.batch > 1 else one,
            by_retain=rehearse(backbone, concept, method, batch=1, retain=2) if sizes.retain > 1 else one,
            rows=rows,
            program=program,
        )

    def cuts(self) -> list[_Sizes]:
        """Return the batch as it is, and cut into more and more equal parts."""
        return [self.sizes.cut(parts) for parts in range(1, self.sizes.batch + 1) if self.sizes.batch % parts == 0]

    def plan(self, sizes: _Sizes) -> Plan:
        memory, seconds = self._memory(sizes), self._seconds(sizes)
        options = {f"training.{name}": value for name, value in self.options.items()}
        if sizes.parts != self.sizes.parts:
            options |= {"training.batch_size": sizes.batch, "training.accumulation": sizes.parts}
            options["retain_batch_size" if _is_flat(self.method) else "retain.batch_size"] = sizes.retain
        edit, checkpoint, bank = self.one.edit_bytes, self.one.checkpoint_bytes, self._bank_bytes()
        return Plan(
            model=address_of(self.backbone),
            method=self.recipe.name,
            concept=self.concept.target,
            device=self.backbone.device.type,
            options=options,
            memory={name: int(value) for name, value in memory.items()},
            seconds=seconds,
            disk={"edit": edit, "checkpoint": checkpoint, "cache": bank, "total": edit + checkpoint + bank},
        )

    def _memory(self, sizes: _Sizes) -> dict[str, float]:
        weights = weight_bytes(self._resident())
        # What the run holds while it only looks: parameters, their best values, and the optimiser's averages.
        state = self.one.checkpoint_bytes
        step = self._line("peak", sizes)
        rollouts = self.rows.peak(2 * min(ROLLOUT_BATCH, sum(self._trajectories())))
        look = self.rows.peak(min(MONITOR_BATCH, _monitored(self.method))) + state
        bank = self._bank_bytes()
        peak = weights + bank + max(step, rollouts, look)
        return {
            "weights": weights,
            "step": step,
            "rollouts": rollouts,
            "look": look,
            "bank": bank,
            "peak": peak,
            "program": self.program,
        }

    def _resident(self) -> list[Any]:
        """Return the networks whose weights are on the device while it trains."""
        components = self.backbone.components
        if self.backbone.device.type == "cpu":
            return list(components.values())
        kept = {"unet", "transformer", *([self.one.network] if self.one.network == "text_encoder" else [])}
        return [net for name, net in components.items() if name in kept]

    def _seconds(self, sizes: _Sizes) -> dict[str, float]:
        plan, training = self.method.rollouts, self.method.training
        step = self._line("step_seconds", sizes) * sizes.parts
        if getattr(self.method, "rollout", None) == "student":
            # Drawn anew for every example, under guidance, up to a random step.
            step += sizes.batch * sizes.parts * (plan.steps - 1) * self.rows.seconds
        look = 2 * _monitored(self.method) * self.rows.seconds
        prepare = (2 * sum(self._trajectories()) * plan.steps + self._kept_inputs()) * self.rows.seconds
        looks = 1 + math.ceil(training.steps / training.monitor_every)
        total = prepare + training.steps * step + looks * look
        return {"prepare": prepare, "step": step, "look": look, "total": total}

    def _line(self, name: str, sizes: _Sizes) -> float:
        """Return what a part of a step takes: what one example of each kind does, and what each further one adds."""
        base, batch, retain = (getattr(found, name) for found in (self.one, self.by_batch, self.by_retain))
        return base + max(0, batch - base) * (sizes.batch - 1) + max(0, retain - base) * (sizes.retain - 1)

    def _trajectories(self) -> Sequence[int]:
        """Return how many trajectories of forget and of retain prompts are rolled out."""
        plan: RolloutPlan = self.method.rollouts
        own = getattr(self.method, "rollout", "teacher") == "teacher"
        return (plan.forget if own else 1) + plan.holdout, plan.retain + plan.holdout

    def _bank_bytes(self) -> int:
        plan: RolloutPlan = self.method.rollouts
        latent = math.prod(self.backbone.latent_shape) * (2 if plan.keep == "float16" else 4)
        return sum(self._trajectories()) * (3 * plan.steps + 1) * latent + self._query_bytes()

    def _kept_inputs(self) -> int:
        """Return the most inputs whose queries are kept."""
        bank = getattr(self.method, "bank", None)
        return 0 if bank is None else bank.forget + bank.retain + 2 * _monitored(self.method)

    def _query_bytes(self) -> int:
        if not self._kept_inputs():
            return 0
        layers = select_layers(list(self.backbone.attention_modules()), self.method.layers)
        width = 1 if self.method.bank.keep == "float16" else 2
        return self._kept_inputs() * width * query_bytes(self.backbone, layers)


def _is_flat(method: Any) -> bool:
    """Whether a method's retain settings are its own fields, instead of a plan's."""
    return "retain_batch_size" in type(method).model_fields


def _monitored(method: Any) -> int:
    """Return how many held-out examples of each kind a method looks at."""
    return method.monitor_examples if _is_flat(method) else method.retain.monitor
