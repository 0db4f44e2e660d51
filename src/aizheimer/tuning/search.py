"""``aizheimer.tune``: search for the weakest edit that meets a demand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aizheimer import api
from aizheimer._imports import require as require_package
from aizheimer._ray import Backend
from aizheimer.api.forgetting import recipe_of
from aizheimer.concepts.concept import Concept
from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import InputError
from aizheimer.evaluation.generate import StageProgress
from aizheimer.evaluation.judges import Judges
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.methods.base import Method
from aizheimer.recipes.load import Recipe
from aizheimer.tuning.demand import Demand, Quantity
from aizheimer.tuning.looking import Looking
from aizheimer.tuning.record import Trial
from aizheimer.tuning.space import space_for
from aizheimer.tuning.storage import optuna
from aizheimer.tuning.trials import Search, Tuned


def tune(
    model: api.Model,
    concept: str | Concept,
    *,
    require: str | Sequence[str],
    out: str | Path,
    minimise: str = "IRA drop",
    method: str | Path | Recipe | Method = "aizheimer",
    search: Sequence[str] = (),
    trials: int = 16,
    storage: str | Path | None = None,
    samples: int | None = None,
    cheap: int = 16,
    seed: int = 0,
    keep: Sequence[str] = (),
    anchor: str = "",
    resume: bool = False,
    overwrite: bool = False,
    judges: Judges | None = None,
    clip: str | Path | None = None,
    backend: Backend = "local",
    workers: int | None = None,
    on_trial: Callable[[Trial, int], None] | None = None,
    progress: StageProgress | None = None,
    **parameters: Any,
) -> Tuned:
    """Search for the settings whose edit meets a demand and costs the least, and write that edit as a run folder.

    A search that was interrupted goes on with ``resume``; trials that were measured are not measured again. An edit
    whose few cheap pictures rule the demand out is not measured further.

    Args:
        model: What must forget; see `aizheimer.api`.
        concept: Its words, or a `Concept`.
        require: What must hold: ``"UA>=0.95"``, or several.
        out: The run folder.
        minimise: What should be small: ``"IRA drop"``, ``"strength"``.
        method: A method's or recipe's name, a recipe file, or either one loaded.
        search: Ranges, ``"KEY=LOW..HIGH"``, in place of the method's own fields in `aizheimer.tuning.space`.
        trials: Points that are tried, those of an interrupted search included.
        storage: File of the search; by default ``tune.journal`` in the run folder.
        samples: About how many pictures decide on an edit.
        cheap: Pictures of the first look; 0 for none.
        seed: Of the sampler, and the first of the pictures.
        keep: Concepts that must stay.
        anchor: What takes the concept's place.
        resume: Go on with the search in ``out``.
        overwrite: Replace the run in ``out``.
        judges: Who looks; by default the model's own.
        clip: Folder of a CLIP to judge with, for a model that brings no judges.
        backend: "local" tries one point after the other here; "ray" the first here and the others on Ray's workers, who
            load the model themselves.
        workers: Points at a time on Ray; by default every core.
        on_trial: Called with each trial when it has ended, and how many there are in all.
        progress: Called with (stage, done, total).
        **parameters: Parameters of the method that are not searched.

    Returns:
        The edit, its evaluation on fresh pictures, and the record.

    Raises:
        InputError: Something given cannot be used, or nobody can measure what is asked for.
        GateError: No edit met the demand; the record says how near each one came.
        MissingDependencyError: Optuna is not installed.

    Example:
        >>> tune("emoji", "Santa Claus", require="UA>=0.95", out="santa").record.chosen  # doctest: +SKIP
    """
    optuna()
    demands = [Demand.parse(text) for text in ([require] if isinstance(require, str) else require)]
    wanted = Quantity.parse(minimise, option="--minimise")
    _check_counts(demands, trials=trials, cheap=cheap, samples=samples)
    _check_backend(model, backend=backend, workers=workers)
    recipe = recipe_of(method, parameters, None)
    space = space_for(recipe.method_name, recipe.method, search)
    backbone = api.load_model(model)
    target = api.as_concept(concept, world=backbone.world, keep=keep, anchor=anchor)
    looking = Looking.of(backbone, target, judges=judges, clip=clip, progress=progress)
    asked: dict[str, Any] = {"recipe": recipe, "demands": demands, "wanted": wanted, "space": space}
    asked["full"] = EvaluationSettings.of_size(samples, full=False, seed=seed)
    asked["few"] = EvaluationSettings.sized(cheap, seed=seed) if cheap else None
    crew = functools.partial(
        _in_worker, model, target, judges=judges, clip=clip, run=RunFolder(Path(out).resolve()), **asked
    )
    searching = Search(
        looking=looking,
        run=RunFolder(Path(out)).create(resume=resume, overwrite=overwrite),
        crew=crew if backend == "ray" else None,
        workers=workers,
        **asked,
    )
    return searching.through(trials, file=Path(storage) if storage is not None else None, on_trial=on_trial)


def _check_counts(demands: Sequence[Demand], *, trials: int, cheap: int, samples: int | None) -> None:
    if not demands:
        raise InputError("Got nothing to require; say what must hold, such as 'UA>=0.95'.")
    if trials < 1:
        raise InputError(f"trials: got {trials}; wanted 1 or more.")
    if cheap and cheap < 3:
        raise InputError(f"cheap: got {cheap}; wanted 3 or more pictures, or 0 for no first look.")
    if samples is not None and samples < 3:
        raise InputError(f"samples: got {samples}; wanted 3 or more.")


def _check_backend(model: api.Model, *, backend: Backend, workers: int | None) -> None:
    if backend == "local":
        if workers is not None:
            raise InputError(
                "workers: local trials run one after the other; give the backend ray for several at a time."
            )
        return
    require_package("ray", extra="ray")
    if workers is not None and workers < 1:
        raise InputError(f"workers: got {workers}; wanted 1 or more.")
    if not isinstance(model, str | Path):
        raise InputError(
            "backend: Ray's workers load the model themselves; name its folder or address, not a pipeline."
        )


def _in_worker(
    model: api.Model, concept: Concept, *, judges: Judges | None, clip: str | Path | None, **fields: Any
) -> Search:
    """Make the search in a worker's process."""
    return Search(looking=Looking.of(api.load_model(model), concept, judges=judges, clip=clip), **fields)
