"""How a method of the noise-target family is run: what its assembly files have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from aizheimer._processes import is_main, processes
from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone, Part
from aizheimer.backbones.networks import trained_names, trained_network
from aizheimer.concepts.concept import Concept
from aizheimer.data.cache import cache_folder
from aizheimer.data.images import check_picture_folder
from aizheimer.data.latents import RolloutPlan
from aizheimer.data.prepare import ConceptData, generate_count, parked, prepare
from aizheimer.data.retain import RetainSet, retain_set
from aizheimer.edits.edit import Edit
from aizheimer.edits.hook import Hook
from aizheimer.edits.provenance import ConceptRecord, Provenance, base_name, text_fingerprints
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.gradient_rules import EmaStop, GradientRule
from aizheimer.engine.lean import lean, tiled
from aizheimer.engine.loop import Begin, TrainResult, check_parameters, train
from aizheimer.engine.problem import Companion, Problem
from aizheimer.engine.run_folder import RunFolder
from aizheimer.engine.session import borrowed
from aizheimer.engine.settings import TrainSettings
from aizheimer.errors import DataError, ModelError, TrainingError
from aizheimer.methods._material import Material, TrainedMethod
from aizheimer.methods.base import check_family
from aizheimer.modules.parameters import ParameterSelection

T = TypeVar("T")

NOTHING = ParameterSelection(())
"""What a method selects that trains adapters and leaves every weight alone."""
_WATCHED = ("attention_mass", "mass_ratio", "erase_error", "forget_drift", "retention_drift")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A training problem, and what goes with it.

    Args:
        problem: What is trained.
        rule: How the losses' gradients are combined.
        stop: When a loss's running mean ends the run.
        companion: What learns along.
        during: A context for the training.
        data: Hashes of data of its own, which a resumed run must share.
        edited: Turns trained tensors into the network's; None when they are the network's.
        hook: Makes the edit's behaviour of trained tensors; with one, no weight changes.
        begin: Changes by parameter name that training begins from, or what finds them.
        extra: JSON values for the provenance.
    """

    problem: Problem
    rule: GradientRule | None = None
    stop: EmaStop | None = None
    companion: Companion | None = None
    during: AbstractContextManager[Any] = field(default_factory=nullcontext)
    data: Mapping[str, str] = field(default_factory=dict)
    edited: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    hook: Callable[[Mapping[str, Tensor]], Hook] | None = None
    begin: Begin = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def no_attention_stop(training: TrainSettings) -> None:
    """Refuse a setting that would silently do nothing.

    Raises:
        ValueError: If early stopping by attention mass is asked for; these methods do not watch attention.
    """
    if training.stop_mass_ratio is not None:
        raise ValueError("training.stop_mass_ratio watches attention, which this method does not; set it to null")


def check_begin_token(backbone: Backbone, *, detach: bool) -> None:
    """Refuse to spare a token that the model does not have.

    Raises:
        ModelError: If prompts begin with their first word.
    """
    if detach and backbone.windows[0].first == 0:
        raise ModelError(
            "detach_begin_token spares the token that all prompts begin with, and this model's begin with a word; set "
            "detach_begin_token to false."
        )


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
    part: Part = "unet",
    task: Callable[[Material], Task],
    images: str | None = None,
    pictures: str | None = None,
    forget_latents: bool = True,
    plan: RolloutPlan | None = None,
    without: Sequence[Concept] = (),
    run: RunFolder | None,
    callbacks: Callbacks | None,
) -> Edit:
    """Prepare, train and return the edit; the pipeline is bit-identical afterwards.

    Args:
        method: Whose hyper-parameters.
        backbone: The model.
        concept: What to forget.
        selection: What may change of the network's own parameters.
        layers: Cross-attention modules that something is put on, beside those of the selection.
        part: What the selection is of.
        task: Builds the training problem.
        images: Where the concept's images come from; see `aizheimer.data.prepare.prepare`.
        pictures: Where other images come from that the task will ask for.
        forget_latents: Whether latents of the concept are needed at all.
        plan: How many rollouts; None for the method's.
        without: Other concepts that nothing is retained of.
        run: Where checkpoints and history go.
        callbacks: Told what happens.

    Raises:
        ConceptError: If the concept is not in its own prompts' token window, or there is nothing to retain.
        DataError: If the images cannot be read; a missing folder is told before any work.
        ModelError: If the weights are not in float32.
        TrainingError: If training diverged; with a run folder, the edit of the best state has been saved there.
    """
    check_family(method, backbone)
    backbone.token_columns(backbone.world.prompts(concept), concept.target, policy="concept")
    check_trainable(backbone, selection, part=part, pictures=(images, pictures))
    base = _Base.of(backbone, part)
    with _material(
        method,
        backbone,
        concept,
        selection=selection,
        layers=layers,
        part=part,
        images=images,
        forget_latents=forget_latents,
        plan=plan or method.rollouts,
        without=without,
        cache=cache_folder(None if run is None else run.path),
        callbacks=callbacks or Callbacks(),
    ) as material:
        return _trained(material, _prepared(lambda: task(material), material.cache), base=base, run=run)


def _prepared(work: Callable[[], T], cache: Path | None) -> T:
    """Do what stores its results in a cache: of several processes the main one first, and the others find it there."""
    return work() if cache is None else processes().in_turn(work)


@contextmanager
def _material(
    method: TrainedMethod,
    backbone: Backbone,
    concept: Concept,
    *,
    selection: ParameterSelection,
    layers: Sequence[str],
    part: Part,
    images: str | None,
    forget_latents: bool,
    plan: RolloutPlan,
    without: Sequence[Concept],
    cache: Path | None,
    callbacks: Callbacks,
) -> Iterator[Material]:
    """Choose what to retain, prepare the data, tell, and lend the selected parameters for the length of the block."""
    chosen = method.retain.model_dump(include={"neighbours", "others", "general"})
    generator = generator_for(method.training.seed, "retain")
    retained = retain_set(backbone, concept, **chosen, generator=generator, without=without)
    preparation = partial(
        prepare,
        backbone,
        concept,
        images=images,
        retain_prompts=retained.prompts,
        seed=method.training.seed,
        cache_dir=cache,
        plan=plan,
        progress=callbacks.on_progress,
        forget_latents=forget_latents,
    )
    with tiled(backbone, method.training):
        data = _prepared(preparation, cache)
    attention = list(backbone.attention_modules()) if part == "unet" else []
    callbacks.on_data(_summary(data, retained, selection.names, attention=attention, layers=layers, part=part))
    with borrowed(backbone, selection, part=part) as weights:
        yield Material(
            method=method,
            backbone=backbone,
            concept=concept,
            data=data,
            retained=retained,
            cache=cache,
            callbacks=callbacks,
            weights=weights,
            part=part,
        )


def check_trainable(
    backbone: Backbone,
    selection: ParameterSelection,
    *,
    part: Part = "unet",
    pictures: Sequence[str | None] = (),
) -> None:
    """Refuse, before any work, what training could not begin from.

    Args:
        backbone: The model.
        selection: What would be trained; empty for adapters.
        part: What the selection is of.
        pictures: Where images come from: folders, ``generate:N`` or nothing.

    Raises:
        ModelError: If the weights are not in float32.
        DataError: If a folder does not exist.
    """
    network = trained_network(backbone.networks, part)
    # Without a selection adapters are trained, and those have the type of what they are put on.
    check_parameters(selection.parameters(network) or dict(network.named_parameters()))
    for place in pictures:
        if place is not None and generate_count(place) is None:
            check_picture_folder(Path(place))


@dataclass(frozen=True, kw_only=True)
class _Base:
    """Fingerprints of the model before training, by `Provenance`'s fields; a text encoder's only where it learns."""

    denoiser: str
    text: Mapping[str, Any]

    @classmethod
    def of(cls, backbone: Backbone, part: Part) -> _Base:
        text = text_fingerprints(backbone.networks, trained_names(backbone.networks, part))
        return cls(denoiser=backbone.fingerprint(), text=text)

    def identity(self) -> dict[str, str]:
        return {"base": self.denoiser} | {name.replace("_fingerprint", " base"): one for name, one in self.text.items()}


def _trained(material: Material, task: Task, *, base: _Base, run: RunFolder | None) -> Edit:
    method, data = material.method, material.data
    record = ConceptRecord.of(material.concept)
    hashes = {**data.hashes, **task.data}
    identity = {"concept": record.model_dump(mode="json"), "data": hashes, **base.identity()}
    identity["recipe"] = method.model_dump(mode="json", exclude={"training"})

    def edit(tensors: Mapping[str, Tensor], result: TrainResult | None) -> Edit:
        provenance = _provenance(material, task, base=base, result=result)
        if task.hook is not None:
            kept = {name: tensor.detach().cpu().float().clone() for name, tensor in tensors.items()}
            return Edit({}, provenance, task.hook(kept))
        edited = tensors if task.edited is None else task.edited(tensors)
        return Edit.between(material.originals, edited, provenance=provenance, part=material.part)

    try:
        network = material.backbone.denoiser
        with parked(material.backbone, part=material.part), task.during, lean(network, method.training):
            result = train(
                task.problem,
                method.training,
                run=run,
                callbacks=material.callbacks,
                identity=identity,
                rule=task.rule,
                stop=task.stop,
                companion=task.companion,
                begin=task.begin,
            )
        return edit(result.tensors, result)
    except TrainingError:
        if run is not None and is_main():
            edit(task.problem.parameters, None).save(run.path)
        raise


def _provenance(material: Material, task: Task, *, base: _Base, result: TrainResult | None) -> Provenance:
    extra: dict[str, Any] = {"neighbours": [list(pair) for pair in material.retained.neighbours]}
    extra |= {"data": {**material.data.hashes, **task.data}, **task.extra}
    extra["stopped"] = "diverged" if result is None else result.stopped
    if result is not None:
        last = [row for row in result.history if row["event"] == "monitor" and row["step"] <= result.step][-1]
        extra |= {"step": result.step} | {key: last[key] for key in _WATCHED if last.get(key) is not None}
    return Provenance(
        method=material.method.name,
        concept=ConceptRecord.of(material.concept),
        base_fingerprint=base.denoiser,
        **base.text,
        base_name=base_name(material.backbone.pipe.name_or_path),
        recipe=material.method.model_dump(mode="json"),
        seed=material.method.training.seed,
        extra=extra,
    )


def _summary(
    data: ConceptData,
    retained: RetainSet,
    parameters: Sequence[str],
    *,
    attention: Sequence[str],
    layers: Sequence[str],
    part: Part,
) -> dict[str, Any]:
    own = [layer for layer in attention if any(name.startswith(f"{layer}.") for name in parameters)]
    return {
        "forget_prompts": data.forget_prompts,
        **retained.summary(),
        "layers": list(dict.fromkeys([*own, *layers])),
        "network": part,
        "parameters": list(parameters),
    }
