"""``aizheimer tune``: the weakest edit that meets a demand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aizheimer.cli import streams
from aizheimer.cli.bench import Where
from aizheimer.cli.forget import RUNS, folder_name
from aizheimer.cli.guard import on_interrupt
from aizheimer.cli.options import (
    Anchor,
    Clip,
    Debug,
    Json,
    Keep,
    MethodName,
    Model,
    Out,
    Overrides,
    Overwrite,
    Target,
)

if TYPE_CHECKING:
    from aizheimer.tuning.record import Trial
    from aizheimer.tuning.trials import Tuned

Require = Annotated[
    list[str], typer.Option("--require", metavar="FIGURE>=VALUE", help="What must hold; again for more.")
]
Minimise = Annotated[
    str, typer.Option("--minimise", metavar="QUANTITY", help="What should be small, such as 'IRA drop'.")
]
Searched = Annotated[
    list[str] | None,
    typer.Option(
        "--search",
        metavar="KEY=LOW..HIGH",
        help="A range to search in place of the method's own; again for more. strength=0.1..1.5 alone trains once.",
    ),
]
Storage = Annotated[
    Path | None,
    typer.Option(
        "--storage",
        metavar="FILE",
        show_default="tune.journal in the run folder",
        help="Where trials are kept: a journal, or SQLite if it ends in .db.",
    ),
]
Samples = Annotated[int | None, typer.Option("--samples", min=3, help="About how many pictures decide on an edit.")]
On = Annotated[Where, typer.Option("--backend", help="Here one after the other, or on Ray.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Trials at a time on Ray.")]
Cheap = Annotated[
    int, typer.Option("--cheap", min=0, help="Pictures of a first look that may rule an edit out; 0 for none.")
]


def tune(
    concept: Target,
    overrides: Overrides = None,
    *,
    require: Require,
    minimise: Minimise = "IRA drop",
    model: Model = "emoji",
    method: MethodName = "aizheimer",
    search: Searched = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Points that are tried, earlier ones included.")] = 16,
    storage: Storage = None,
    samples: Samples = None,
    cheap: Cheap = 16,
    keep: Keep = None,
    anchor: Anchor = "",
    clip: Clip = None,
    backend: On = Where.LOCAL,
    workers: Workers = None,
    out: Out = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the search, and the first of the pictures.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in the folder.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Search for the weakest edit that meets a demand, and save it as a run.

    Strength and fields of the method are tried, edits that few pictures already rule out are not measured further, and
    the best is measured again on pictures that the search has not seen. Writes tune.json and tune.png beside the edit.
    Exit code 3: no edit met the demand.
    """
    del debug
    folder = out if out is not None else RUNS / folder_name(concept)
    from aizheimer import api
    from aizheimer.cli.live import progress_bar
    from aizheimer.tuning.search import tune as find

    recipe = api.load_recipe(method, list(overrides or ()))
    settings: dict[str, Any] = {"trials": trials, "storage": storage, "samples": samples, "cheap": cheap, "seed": seed}
    with on_interrupt(f"To go on, run the same command with --resume ({folder})."), progress_bar() as advance:
        found = find(
            model,
            concept,
            require=require,
            out=folder,
            minimise=minimise,
            method=recipe,
            search=search or (),
            keep=keep or (),
            anchor=anchor,
            clip=clip,
            backend=backend.value,
            workers=workers,
            resume=resume,
            overwrite=overwrite,
            on_trial=_tell,
            progress=advance if streams.progress_console().is_terminal else None,
            **settings,
        )
    _print(found, as_json=as_json)


def _tell(trial: Trial, total: int) -> None:
    """Say how a trial ended."""
    settings = ", ".join(f"{key} {value:.4g}" for key, value in trial.settings.items())
    figures = ", ".join(
        f"{name.upper()} {trial.values[name]:.2f}" for name in ("ua", "ira", "cra") if name in trial.values
    )
    outcome = {"measured": "meets the demand" if trial.met else "misses it", "pruned": "ruled out by a first look"}
    ending = outcome.get(trial.state, f"failed: {trial.error}")
    streams.say(
        f"{trial.number + 1}/{total}  {settings}: {figures}{' - ' if figures else ''}{ending} ({trial.seconds:.0f} s)"
    )


def _print(found: Tuned, *, as_json: bool) -> None:
    from aizheimer.cli.show import changes
    from aizheimer.tuning.trials import PICTURE, RECORD

    record = found.record
    chosen = next(trial for trial in record.trials if trial.number == record.chosen)
    if as_json:
        files = {"run": str(found.folder), "picture": str(found.folder / PICTURE), "record": str(found.folder / RECORD)}
        streams.print_json({**record.model_dump(mode="json"), "settings": chosen.settings, **files})
        return
    confirmed = record.confirmations[-1].values
    streams.print_result(f"chosen     trial {chosen.number + 1} of {len(record.trials)}")
    streams.print_result(streams.pairs({key: f"{value:.4g}" for key, value in chosen.settings.items()}, indent="  "))
    names = list(dict.fromkeys([*(d.quantity for d in record.demands), record.wanted]))
    told = ", ".join(f"{quantity.label} {confirmed[quantity.name]:.3f}" for quantity in names)
    streams.print_result(f"confirmed  {told} on fresh pictures ({found.result.settings.target_images} of the target)")
    streams.print_result(f"edit       {found.folder / 'edit.safetensors'} ({changes(found.edit)})")
    streams.print_result(f"picture    {found.folder / PICTURE}")
