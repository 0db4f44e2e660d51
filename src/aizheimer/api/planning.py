"""What a run will take, before it runs: memory, time and disk, from a rehearsal on the model itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from aizheimer.api._preparation import Preparation
from aizheimer.api._rehearsal import Rehearsal, Rows, Solved, closed_form, query_bytes, rehearse, rows_without_gradients
from aizheimer.api._sizes import Sizes, is_flat, monitored
from aizheimer.api.forgetting import recipe_of
from aizheimer.api.models import Model, address_of, as_concept, load_model
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.memory import resident_bytes, size_text, weight_bytes
from aizheimer.backbones.networks import trained_names
from aizheimer.concepts.concept import Concept
from aizheimer.engine.held_out import MONITOR_BATCH
from aizheimer.errors import GateError, InputError
from aizheimer.methods.base import Method
from aizheimer.modules.parameters import select_layers
from aizheimer.recipes.load import Recipe

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
        memory: Bytes: ``weights``, what is held above them by ``solve`` (a closed form), ``rollouts`` (trajectories and
            pictures, before they are on the disk), ``step`` and ``look`` (at the held-out set) when each is at its
            largest, ``peak`` of them all; ``bank``, what is kept of trajectories, pictures and queries, which a run
            without a folder holds beside; and ``program``, what the process holds beside tensors.
        seconds: ``solve``, ``prepare``, ``step``, ``look``, and ``total``.
        disk: Bytes: ``edit``, ``checkpoint``, ``cache`` and ``total``.
        trains: Whether there are steps; without, the closed form is all there is.
        left: The share of what the concept's words say that the closed form leaves, and that the method takes for
            ``enough`` not to train; None where there is none.
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
    trains: bool = True
    left: float | None = None
    enough: float | None = None

    @property
    def needed(self) -> int:
        """Bytes that must be there: the peak, and on a CPU the program beside it."""
        return self.memory["peak"] + (self.memory["program"] if self.device == "cpu" else 0)


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

    The method runs a few steps on the model with one example of each kind, and again with as many, of its batch, as
    surely fit: a step's memory and time are straight lines in both. Forward passes without gradients, which rollouts
    and looks at the held-out set are made of, are measured alike. A closed form is solved: that takes seconds, and of
    the default method it tells whether a training will follow.

    Args:
        model: What would be edited; see `aizheimer.api.load_model`. It is bit-identical afterwards.
        concept: What would be forgotten.
        method: A trained or closed-form method, its recipe, or either one loaded.
        fit: Bytes that are there; options are chosen with which the run needs no more.
        seed: Of the run.
        **parameters: Parameters of the method, nested as in a recipe.

    Returns:
        The prediction, with the options it is for.

    Raises:
        InputError: The method neither trains nor solves.
        GateError: Nothing that can be chosen fits.

    Example:
        >>> plan("emoji", "Santa Claus", method="esd").needed < 4 * 2**30  # doctest: +SKIP
        True
    """
    recipe = recipe_of(method, parameters, seed)
    trained = "training" in type(recipe.method).model_fields
    if not trained and recipe.method.info.kind == "runtime":
        raise InputError(
            f"plan: {recipe.name} neither trains nor solves, so there is nothing to predict; it takes what drawing "
            "pictures does"
        )
    backbone = load_model(model)
    target = as_concept(concept, world=backbone.world)
    program = max(0, resident_bytes() - weight_bytes(backbone.components.values()))
    chosen: Any = recipe.method
    solved = closed_form(backbone, target, chosen)
    if solved is not None and solved.suffices:
        return _fitting([_closed(backbone, target, recipe, solved=solved, program=program)], fit)
    rows = rows_without_gradients(backbone, guidance=chosen.rollouts.guidance_or(backbone.world.guidance))
    tried: list[Plan] = []
    for options in LEANER if fit is not None else LEANER[:1]:
        planner = _Planner.of(backbone, target, recipe, options=options, rows=rows, solved=solved, program=program)
        for sizes in planner.sizes.cuts() if fit is not None else [planner.sizes]:
            tried.append(planner.plan(sizes))
            if fit is None or tried[-1].needed <= fit:
                return tried[-1]
    return _fitting(tried, fit)


def _closed(backbone: Backbone, concept: Concept, recipe: Recipe, *, solved: Solved, program: int) -> Plan:
    """Return what a run takes that solves and does not train."""
    weights = weight_bytes(backbone.components.values())
    nothing = dict.fromkeys(("step", "rollouts", "look", "bank"), 0)
    return Plan(
        model=address_of(backbone),
        method=recipe.name,
        concept=concept.target,
        device=backbone.device.type,
        options={},
        memory={"weights": weights, "solve": solved.peak, **nothing, "peak": weights + solved.peak, "program": program},
        seconds={"solve": solved.seconds, "prepare": 0.0, "step": 0.0, "look": 0.0, "total": solved.seconds},
        disk={
            "edit": solved.edit_bytes,
            "checkpoint": 0,
            "cache": solved.cache_bytes,
            "total": solved.edit_bytes + solved.cache_bytes,
        },
        trains=False,
        left=solved.residual,
        enough=getattr(recipe.method, "enough", None),
    )


def _fitting(tried: list[Plan], fit: int | None) -> Plan:
    """Return the plan that needs least.

    Raises:
        GateError: Even that does not fit.
    """
    least = min(tried, key=lambda found: found.needed)
    if fit is None or least.needed <= fit:
        return least
    raise GateError(
        f"plan: nothing fits into {size_text(fit)}; the least is {size_text(least.needed)}, with "
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
    sizes: Sizes
    one: Rehearsal
    by_batch: Rehearsal
    by_retain: Rehearsal
    rows: Rows
    solved: Solved | None
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
        solved: Solved | None,
        program: int,
    ) -> _Planner:
        content = recipe.method.model_dump()
        content["training"] = content["training"] | options
        method: Any = type(recipe.method).model_validate(content)
        sizes = Sizes.of(method)
        one = rehearse(backbone, concept, method, batch=1, retain=1)
        batch, retain = (one.larger(count, backbone.device) for count in (sizes.batch, sizes.retain))
        return cls(
            backbone=backbone,
            concept=concept,
            recipe=recipe,
            method=method,
            options=options,
            sizes=sizes,
            one=one,
            by_batch=rehearse(backbone, concept, method, batch=batch, retain=1) if sizes.batch > 1 else one,
            by_retain=rehearse(backbone, concept, method, batch=1, retain=retain) if sizes.retain > 1 else one,
            rows=rows,
            solved=solved,
            program=program,
        )

    def plan(self, sizes: Sizes) -> Plan:
        memory, seconds = self._memory(sizes), self._seconds(sizes)
        options = {f"training.{name}": value for name, value in self.options.items()}
        if sizes.parts != self.sizes.parts:
            options |= {"training.batch_size": sizes.batch, "training.accumulation": sizes.parts}
        if sizes.retain != self.sizes.retain:
            options["retain_batch_size" if is_flat(self.method) else "retain.batch_size"] = sizes.retain
        edit, checkpoint = self.one.edit_bytes, self.one.checkpoint_bytes
        cache = int(memory["bank"]) + self.one.prompts * self._prompt_bytes()
        return Plan(
            model=address_of(self.backbone),
            method=self.recipe.name,
            concept=self.concept.target,
            device=self.backbone.device.type,
            options=options,
            memory={name: int(value) for name, value in memory.items()},
            seconds=seconds,
            disk={"edit": edit, "checkpoint": checkpoint, "cache": cache, "total": edit + checkpoint + cache},
            left=None if self.solved is None else self.solved.residual,
            enough=getattr(self.method, "enough", None),
        )

    def _memory(self, sizes: Sizes) -> dict[str, float]:
        weights = weight_bytes(self._resident())
        # Solving and rolling out have the text encoders and the autoencoder beside them, wherever these wait later.
        parked = weight_bytes(self.backbone.components.values()) - weights
        # What the run holds while it only looks: parameters, their best values, and the optimiser's averages.
        state = self.one.checkpoint_bytes
        banks = self.drawn.banks(math.prod(self.backbone.latent_shape))
        found = {
            "weights": weights,
            "solve": 0 if self.solved is None else self.solved.peak + parked,
            "step": self._line("peak", sizes),
            "rollouts": self.rows.peak(2 * self.drawn.most),
            "look": self.rows.peak(min(MONITOR_BATCH, monitored(self.method))) + state,
            "bank": sum(banks) + self._query_bytes(),
            "program": self.program,
        }
        if self.backbone.device.type == "cpu":
            # All steps of a bank, and then all of them in one piece, before they are on the disk and mapped.
            found["rollouts"] += 2 * max(banks)
        found["rollouts"] = max(found["rollouts"], self.one.prepared) + parked
        return found | {"peak": weights + max(found[name] for name in ("solve", "step", "rollouts", "look"))}

    def _resident(self) -> list[Any]:
        """Return the networks whose weights are on the device while it trains."""
        components = self.backbone.components
        if self.backbone.device.type == "cpu":
            return list(components.values())
        kept = {"unet", "transformer", *trained_names(self.backbone.networks, self.one.network)}
        return [net for name, net in components.items() if name in kept]

    @property
    def drawn(self) -> Preparation:
        """What is drawn before the first step."""
        return Preparation.of(self.method)

    def _seconds(self, sizes: Sizes) -> dict[str, float]:
        plan, training = self.method.rollouts, self.method.training
        step = self._line("step_seconds", sizes) * sizes.parts
        guided = self.rows.guided * self.rows.seconds
        if getattr(self.method, "rollout", None) == "student":
            # Drawn anew for every example, under guidance, up to a random step.
            step += sizes.batch * sizes.parts * (plan.steps - 1) / 2 * guided
        look = 2 * monitored(self.method) * self.rows.seconds
        prepare = self.drawn.steps * guided + self._kept_inputs() * self.rows.seconds
        looks = 1 + math.ceil(training.steps / training.monitor_every)
        solving = 0.0 if self.solved is None else self.solved.seconds
        total = solving + prepare + training.steps * step + looks * look
        return {"solve": solving, "prepare": prepare, "step": step, "look": look, "total": total}

    def _line(self, name: str, sizes: Sizes) -> float:
        """Return what a part of a step takes: what one example of each kind does, and what each further one adds."""
        base, batch, retain = (getattr(found, name) for found in (self.one, self.by_batch, self.by_retain))
        each = max(0, batch - base) / max(1, self.by_batch.batch - 1)
        each_retained = max(0, retain - base) / max(1, self.by_retain.retain - 1)
        return base + each * (sizes.batch - 1) + each_retained * (sizes.retain - 1)

    def _prompt_bytes(self) -> int:
        """Return the size of an encoded prompt."""
        return sum(tensor.nbytes for tensor in self.backbone.condition([""]).tensors().values())

    def _kept_inputs(self) -> int:
        """Return the most inputs whose queries are kept."""
        bank = getattr(self.method, "bank", None)
        return 0 if bank is None else bank.forget + bank.retain + 2 * monitored(self.method)

    def _query_bytes(self) -> int:
        if not self._kept_inputs():
            return 0
        layers = select_layers(list(self.backbone.attention_modules()), self.method.layers)
        width = 1 if self.method.bank.keep == "float16" else 2
        return self._kept_inputs() * width * query_bytes(self.backbone, layers)
