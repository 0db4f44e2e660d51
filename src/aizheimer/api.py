"""The one-liners: forget, evaluate, report.

Every function takes a model in any form: ``"emoji"``, a pipeline's folder, a hub id, a loaded
``StableDiffusionPipeline`` or a ``Backbone``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from aizheimer.backbones.base import Backbone, backbone_for, load_pipeline
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.world import World
from aizheimer.edits.edit import Edit
from aizheimer.edits.io import load_edit
from aizheimer.edits.provenance import current_versions
from aizheimer.engine.callbacks import Callbacks
from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import InputError, RunFolderError
from aizheimer.methods.base import Method
from aizheimer.recipes.load import Recipe, load_recipe

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from aizheimer.evaluation.generate import Progress
    from aizheimer.evaluation.judges import Judges
    from aizheimer.evaluation.results import EvaluationResult
    from aizheimer.evaluation.suite import SuiteResult
    from aizheimer.evaluation.suite_file import Report

Model: TypeAlias = "str | Path | StableDiffusionPipeline | Backbone"

__all__ = [
    "as_concept", "environment", "evaluate", "evaluate_suites", "forget", "load_edit", "load_model", "model_of_run",
]  # fmt: skip


def load_model(model: Model) -> Backbone:
    """Return the backbone of a model, loading it if it is a name or a folder.

    Args:
        model: ``"emoji"``, a pipeline's folder, a hub id, a loaded pipeline, or a backbone, which is returned as it is.

    Returns:
        The backbone; its ``pipe`` is the pipeline.

    Raises:
        ModelError: The folder is missing, damaged, or holds no Stable Diffusion pipeline.

    Example:
        >>> load_model("emoji").world.name  # doctest: +SKIP
        'emoji'
    """
    if isinstance(model, str | Path):
        return backbone_for(load_pipeline(model))
    # A pipeline is no backbone, though a backbone offers all that a pipeline is asked for here.
    return model if isinstance(model, Backbone) else backbone_for(model)


def as_concept(concept: str | Concept, *, world: World, keep: Sequence[str] = (), anchor: str = "") -> Concept:
    """Return words as a concept, a style if the world lists them among its styles.

    Raises:
        ConceptError: The words are empty, or also kept.
        InputError: A `Concept` came with ``keep`` or ``anchor`` beside it.
    """
    if not isinstance(concept, Concept):
        return Concept(concept, anchor=anchor, keep=tuple(keep), kind=world.kind_of(concept))
    if keep or anchor:
        raise InputError("Got a Concept and keep or anchor beside it; put them into the Concept.")
    return concept


def forget(
    model: Model,
    concept: str | Concept,
    *,
    method: str | Path | Recipe | Method = "aizheimer",
    keep: Sequence[str] = (),
    anchor: str = "",
    images: str | Path | None = None,
    out: str | Path | None = None,
    seed: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Callbacks | None = None,
    **parameters: Any,
) -> Edit:
    """Make a model forget a concept.

    The model itself is bit-identical afterwards: the edit changes it while it is applied.

    Args:
        model: What must forget; see the module's first lines.
        concept: Its words, as they are written in a prompt, or a `Concept`.
        method: A method's or recipe's name, a recipe file, or either one loaded.
        keep: Concepts that must stay, beside the nearest neighbours.
        anchor: What takes the concept's place.
        images: A folder of the concept's pictures, or ``"generate:N"``; by default the method's own choice.
        out: The run folder; with None nothing is written.
        seed: Of everything random; by default the method's own.
        resume: Continue the run in ``out``, to the same bits as if it had never stopped.
        overwrite: Replace the run in ``out``.
        callbacks: Told what happens.
        **parameters: Parameters of the method, nested as in a recipe: ``training={"steps": 100}``.

    Returns:
        The edit, which has also been saved when there is a run folder.

    Raises:
        InputError: Something given cannot be used; nothing is written then, and an old run is as it was.
        TrainingError: Training diverged; with a run folder, the edit of the best state has been saved.

    Example:
        >>> edit = forget(pipe, "Santa Claus", keep=["Mrs. Claus"])  # doctest: +SKIP
        >>> with edit.applied(pipe):  # doctest: +SKIP
        ...     pipe("Santa Claus in noto style")
    """
    overrides = [*_dotted(parameters), *_dotted({"images": images} if images is not None else {})]
    recipe = _as_recipe(method, overrides, seed)
    backbone = load_model(model)
    target = as_concept(concept, world=backbone.world, keep=keep, anchor=anchor)
    if out is None:
        if resume or overwrite:
            raise RunFolderError("Got resume or overwrite without a run folder; name it with out.")
        return recipe.method.unlearn(backbone, target, callbacks=callbacks)
    return _forget_into(Path(out), recipe, backbone, target, resume=resume, overwrite=overwrite, callbacks=callbacks)


def evaluate(
    model: Model,
    edit: Edit | str | Path | None,
    *,
    concept: str | Concept | None = None,
    samples: int | None = None,
    full: bool = False,
    seed: int = 0,
    clip: str | Path | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Measure what an edit made a model forget, and what it kept.

    Both models draw the same prompts from the same noise, and judges say what they see. The unedited model's pictures
    are cached.

    Args:
        model: The edit's base.
        edit: The edit, its run folder, or None for the unedited model.
        concept: The target; by default the edit's own.
        samples: About how many pictures to draw with the edit.
        full: Draw as many as figures to publish need.
        seed: First seed of every prompt.
        clip: Folder of a CLIP to judge with, for a model that brings no judges.
        progress: Called with (pictures done, pictures in all).

    Returns:
        UA, IRA and CRA beside the unedited model's values, the neighbours one by one, and flags.

    Raises:
        InputError: No concept is named, or both ``samples`` and ``full`` are given.
        EditError: The edit was made for another base.
    """
    from aizheimer.evaluation.evaluate import evaluate as measure
    from aizheimer.evaluation.judges import load_judges
    from aizheimer.evaluation.settings import EvaluationSettings

    if full and samples is not None:
        raise InputError("Got full and samples; choose one.")
    if samples is not None and samples < 3:
        raise InputError(f"samples: got {samples}; wanted 3 or more.")
    backbone = load_model(model)
    edit = load_edit(edit) if isinstance(edit, str | Path) else edit
    target = _target(concept, edit, backbone.world)
    if full:
        settings = EvaluationSettings.full(seed=seed)
    else:
        settings = EvaluationSettings(seed=seed) if samples is None else EvaluationSettings.sized(samples, seed=seed)
    judges = load_judges(backbone.world, clip_folder=clip, extra=(target.target,))
    return measure(
        backbone.pipe, edit, concept=target, world=backbone.world, judges=judges, settings=settings, progress=progress
    )


def evaluate_suites(
    model: Model,
    edit: Edit | str | Path | None,
    suites: Sequence[str | Path],
    *,
    concept: str | Concept | None = None,
    effective_only: bool = False,
    seed: int = 0,
    clip: str | Path | None = None,
    judges: Judges | None = None,
    progress: Report | None = None,
) -> dict[str, SuiteResult]:
    """Ask an edit the questions of one or more suites; pictures that two of them want are drawn once.

    Args:
        model: The edit's base.
        edit: The edit, its run folder, or None for the unedited model.
        suites: Names of suites (``"families"``), or their YAML files.
        concept: The target; by default the edit's own.
        effective_only: Leave prompts out on which the unedited model does not show the target, in suites that know it.
        seed: First seed.
        clip: Folder of a CLIP to judge with, for a model that brings no judges.
        judges: Who looks; by default the model's own.
        progress: Called with (suite, stage, done, total).

    Returns:
        Results by the suites' names.

    Raises:
        InputError: A suite, or a key of its file, is unknown; or it cannot ask this of the model, target or judge.

    Example:
        >>> evaluate_suites("emoji", "runs/cat", ["families"])["families"].figures["ua.worst"]  # doctest: +SKIP
    """
    from aizheimer.evaluation.judges import load_judges
    from aizheimer.evaluation.settings import EvaluationSettings
    from aizheimer.evaluation.suite import Scene
    from aizheimer.evaluation.suite_file import load_suite, run_suites

    loaded = [load_suite(name) for name in suites]
    loaded = [suite.with_parameters(effective_only=True) for suite in loaded] if effective_only else loaded
    backbone = load_model(model)
    edit = load_edit(edit) if isinstance(edit, str | Path) else edit
    target = _target(concept, edit, backbone.world)
    looking = judges or load_judges(backbone.world, clip_folder=clip, extra=(target.target,))
    scene = Scene(backbone=backbone, edit=edit, concept=target, judges=looking, settings=EvaluationSettings(seed=seed))
    return run_suites(loaded, scene, progress=progress)


def _target(concept: str | Concept | None, edit: Edit | None, world: World) -> Concept:
    """Return what to look for: the concept that is named, else the edit's own."""
    if concept is not None:
        return as_concept(concept, world=world)
    if edit is None:
        raise InputError("Got neither an edit nor a concept; name the concept to look for.")
    return edit.provenance.concept.to_concept()


def environment() -> dict[str, Any]:
    """Return what this machine computes with: versions, threads and device, as JSON values."""
    import os
    import platform

    import torch

    cuda = torch.cuda.is_available()
    return {
        "versions": current_versions(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def model_of_run(run: str | Path) -> str:
    """Return the model that a run was made on, as it can be loaded again.

    Raises:
        RunFolderError: The folder does not say.
    """
    file = Path(run) / "env.json"
    try:
        model = json.loads(file.read_text(encoding="utf-8"))["model"]
    except (OSError, ValueError, KeyError, TypeError):
        raise RunFolderError(f"{file} does not say which model the run was made on; name it with --model.") from None
    return str(model)


def _forget_into(
    folder: Path,
    recipe: Recipe,
    backbone: Backbone,
    target: Concept,
    *,
    resume: bool,
    overwrite: bool,
    callbacks: Callbacks | None,
) -> Edit:
    """Forget within a run folder; after bad input it is what it was, or is not there."""
    run = RunFolder(folder).create(resume=resume, overwrite=overwrite)
    try:
        _describe(run, recipe, backbone)
        edit = recipe.method.unlearn(backbone, target, run=run, callbacks=callbacks)
    except InputError:
        run.undo()
        raise
    except BaseException:
        run.keep()  # an interrupted run can be resumed, and one that diverged has its best state
        raise
    edit.save(folder)
    run.keep()
    return edit


def _as_recipe(method: str | Path | Recipe | Method, overrides: Sequence[str], seed: int | None) -> Recipe:
    if isinstance(method, str | Path):
        return load_recipe(method, overrides, seed=seed)
    if overrides or seed is not None:
        beside = overrides[0] if overrides else f"seed={seed}"
        raise InputError(f"Got a loaded method and parameters ({beside}) beside it; put them into the method.")
    if isinstance(method, Recipe):
        return method
    return Recipe(name=method.name, description="", method_name=method.name, method=method)


def _dotted(parameters: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return nested parameters as the command line's words: {"training": {"steps": 1}} as ["training.steps=1"]."""
    words = []
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            words += _dotted(value, f"{prefix}{name}.")
        else:
            text = str(value) if isinstance(value, Path) else value
            words.append(f"{prefix}{name}={json.dumps(text, ensure_ascii=False)}")
    return words


def _describe(run: RunFolder, recipe: Recipe, backbone: Backbone) -> None:
    """Write what the run is made with; a resumed run must be made with the same."""
    content = recipe.resolved()
    file = run.file("recipe.yaml")
    if run.resuming and file.exists():
        before = load_recipe(file).resolved()["parameters"]
        changed = [key for key, value in content["parameters"].items() if value != before.get(key)]
        if changed:
            raise RunFolderError(
                f"{run.path} was started with other parameters ({', '.join(changed)}); "
                "resume with the same, or replace the run with --overwrite."
            )
    run.write_yaml("recipe.yaml", content)
    run.write_json("env.json", {"model": _address(backbone), **environment()})


def _address(backbone: Backbone) -> str:
    """Return what loads the model again: the bundled model's name, an absolute folder, or a hub id."""
    name = str(backbone.pipe.name_or_path or "")
    folder = Path(name)
    if not name or not folder.is_dir():
        return name
    bundled = Path(__file__).parent / "assets"
    inside = folder.resolve().parts[len(bundled.resolve().parts) :]
    return inside[0] if folder.resolve().is_relative_to(bundled.resolve()) else str(folder.resolve())
