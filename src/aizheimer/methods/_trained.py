"""How a method of the noise-target family is run: what its assembly files have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.data.cache import cache_folder
from aizheimer.data.latents import RolloutPlan
from aizheimer.data.prepare import ConceptData, generate_count, parked, prepare
from aizheimer.data.retain import RetainSet, retain_set
from aizheimer.edits.edit import Edit
from aizheimer.edits.hook import Hook
from aizheimer.edits.provenance import ConceptRecord, Provenance, base_name
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.gradient_rules import EmaStop, GradientRule
from aizheimer.engine.loop import TrainResult, train
from aizheimer.engine.problem import Companion, Problem
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.session import borrowed
from aizheimer.engine.settings import TrainSettings
from aizheimer.errors import DataError, TrainingError
from aizheimer.methods._material import Material, TrainedMethod
from aizheimer.modules.parameters import ParameterSelection

NOTHING = ParameterSelection(())
"""What a method selects that trains adapters and leaves every weight alone."""
_WATCHED = ("attention_mass", "mass_ratio", "erase_error", "retention_drift")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A training problem, and what goes with it.

    Args:
        problem: What is trained.
        rule: How the losses' gradients are combined.
        stop: When a loss's running mean ends the run.
        companion: What learns along.
        during: A context for the training.
        edited: Turns trained tensors into the denoiser's; None when they are the denoiser's.
        hook: Makes the edit's behaviour of trained tensors; with one, no weight of the denoiser changes.
        extra: JSON values for the provenance.
    """

    problem: Problem
    rule: GradientRule | None = None
    stop: EmaStop | None = None
    companion: Companion | None = None
    during: AbstractContextManager[Any] = field(default_factory=nullcontext)
    edited: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    hook: Callable[[Mapping[str, Tensor]], Hook] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def no_attention_stop(training: TrainSettings) -> None:
    """Refuse a setting that would silently do nothing.

    Raises:
        ValueError: If early stopping by attention mass is asked for; these methods do not watch attention.
    """
    if training.stop_mass_ratio is not None:
        raise ValueError("training.stop_mass_ratio watches attention, which this method does not; set it to null")


def check_images(images: str | None) -> None:
    """Refuse what is neither a folder nor ``generate:N``.

    Raises:
        ValueError: If ``generate:`` is not followed by a number of images.
    """
    try:
        generate_count(images)
    except DataError as error:
        raise ValueError(str(error)) from error


def plan_for(rollouts: RolloutPlan, *, retain: bool, forget: bool) -> RolloutPlan:
    """Return the plan with one trajectory in the place of those that nothing is trained on."""
    unused = {name: 1 for name, used in (("retain", retain), ("forget", forget)) if not used}
    return rollouts.model_copy(update=unused)


def learn(
    method: TrainedMethod,
    backbone: Backbone,
    concept: Concept,
    *,
    selection: ParameterSelection = NOTHING,
    layers: Sequence[str] = (),
    task: Callable[[Material], Task],
    images: str | None = None,
    forget_latents: bool = True,
    plan: RolloutPlan | None = None,
    run: RunFolder | None,
    callbacks: Callbacks | None,
) -> Edit:
    """Prepare, train and return the edit; the pipeline is bit-identical afterwards.

    Args:
        method: Whose hyper-parameters.
        backbone: The model.
        concept: What to forget.
        selection: What may change of the denoiser's own parameters.
        layers: Cross-attention modules that something is put on, beside those of the selection.
        task: Builds the training problem.
        images: Where the concept's images come from; see `aizheimer.data.prepare.prepare`.
        forget_latents: Whether latents of the concept are needed at all.
        plan: How many rollouts; None for the method's.
        run: Where checkpoints and history go.
        callbacks: Told what happens.

    Raises:
        ConceptError: If the concept is not in its own prompts' token window, or there is nothing to retain.
        DataError: If the images cannot be read.
        TrainingError: If training diverged; with a run folder, the edit of the best state has been saved there.
    """
    callbacks = callbacks or Callbacks()
    backbone.token_columns(backbone.world.prompts(concept), concept.target, policy="concept")
    base, cache = backbone.fingerprint(), cache_folder(None if run is None else run.path)
    retained = _retained(method, backbone, concept)
    data = prepare(
        backbone,
        concept,
        images=images,
        retain_prompts=retained.prompts,
        seed=method.training.seed,
        cache_dir=cache,
        plan=plan or method.rollouts,
        progress=callbacks.on_progress,
        forget_latents=forget_latents,
    )
    callbacks.on_data(_summary(data, retained, selection.names, layers))
    with borrowed(backbone, selection) as weights:
        material = Material(
            method=method,
            backbone=backbone,
            concept=concept,
            data=data,
            retained=retained,
            cache=cache,
            callbacks=callbacks,
            weights=weights,
        )
        return _trained(material, task(material), base=base, run=run)


def _retained(method: TrainedMethod, backbone: Backbone, concept: Concept) -> RetainSet:
    chosen = method.retain.model_dump(include={"neighbours", "others", "general"})
    return retain_set(backbone, concept, **chosen, generator=generator_for(method.training.seed, "retain"))


def _trained(material: Material, task: Task, *, base: str, run: RunFolder | None) -> Edit:
    method, data = material.method, material.data
    record = ConceptRecord.of(material.concept)
    identity = {"concept": record.model_dump(mode="json"), "base": base, "data": data.hashes}
    identity["recipe"] = method.model_dump(mode="json", exclude={"training"})

    def edit(tensors: Mapping[str, Tensor], result: TrainResult | None) -> Edit:
        provenance = _provenance(material, task, base=base, result=result)
        if task.hook is not None:
            kept = {name: tensor.detach().cpu().float().clone() for name, tensor in tensors.items()}
            return Edit({}, provenance, task.hook(kept))
        edited = tensors if task.edited is None else task.edited(tensors)
        return Edit.between(material.originals, edited, provenance=provenance)

    try:
        with parked(material.backbone), task.during:
            result = train(
                task.problem,
                method.training,
                run=run,
                callbacks=material.callbacks,
                identity=identity,
                rule=task.rule,
                stop=task.stop,
                companion=task.companion,
            )
        return edit(result.tensors, result)
    except TrainingError:
        if run is not None:
            edit(task.problem.parameters, None).save(run.path)
        raise


def _provenance(material: Material, task: Task, *, base: str, result: TrainResult | None) -> Provenance:
    extra: dict[str, Any] = {"neighbours": [list(pair) for pair in material.retained.neighbours]}
    extra |= {"data": material.data.hashes, **task.extra}
    extra["stopped"] = "diverged" if result is None else result.stopped
    if result is not None:
        last = [row for row in result.history if row["event"] == "monitor" and row["step"] <= result.step][-1]
        extra |= {"step": result.step} | {key: last[key] for key in _WATCHED if last.get(key) is not None}
    return Provenance(
        method=material.method.name,
        concept=ConceptRecord.of(material.concept),
        base_fingerprint=base,
        base_name=base_name(material.backbone.pipe.name_or_path),
        recipe=material.method.model_dump(mode="json"),
        seed=material.method.training.seed,
        extra=extra,
    )


def _summary(
    data: ConceptData, retained: RetainSet, parameters: Sequence[str], layers: Sequence[str]
) -> dict[str, Any]:
    own = [name.partition(".attn2.")[0] + ".attn2" for name in parameters if ".attn2." in name]
    return {
        "forget_prompts": data.forget_prompts,
        **retained.summary(),
        "layers": list(dict.fromkeys([*own, *layers])),
        "parameters": list(parameters),
    }
