"""``aizheimer generate``: draw prompts, with an edit or without."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from aizheimer._names import dashed
from aizheimer.cli import streams
from aizheimer.cli.options import Debug, Device, Guidance, Json, Model
from aizheimer.errors import InputError


def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="What to draw.")],
    *,
    model: Model = "emoji",
    device: Device = None,
    edit: Annotated[
        Path | None, typer.Option("--edit", metavar="RUN", help="Apply this edit; without it the model draws as it is.")
    ] = None,
    strength: Annotated[float, typer.Option("--strength", help="How much of the edit; 1 is all of it.")] = 1.0,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Pictures for each prompt.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the first picture; the next has seed + 1.")] = 0,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Denoising steps.")] = 20,
    guidance: Guidance = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the pictures go.")] = Path("pictures"),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw prompts and save the pictures as PNG, named by prompt and seed."""
    del debug
    _check(prompts, strength, edit=edit, out=out)
    from PIL import Image

    from aizheimer import api
    from aizheimer._files import atomic
    from aizheimer.cli.live import progress_bar
    from aizheimer.evaluation.generate import PromptJob
    from aizheimer.evaluation.generate import generate as draw

    backbone = api.load_model(model, device=device)
    jobs = [PromptJob(prompt, seed + i) for prompt in prompts for i in range(count)]
    with contextlib.ExitStack() as stack:
        if edit is not None:
            stack.enter_context(api.load_edit(edit).scale(strength).applied(backbone.pipe))
        advance = stack.enter_context(progress_bar())
        pictures = draw(
            backbone.pipe,
            jobs,
            steps=steps,
            guidance=backbone.world.guidance if guidance is None else guidance,
            progress=lambda done, total: advance("drawing", done, total),
        )
    files = [str(out / name) for name in file_names([(job.prompt, job.seed) for job in jobs])]
    rows = [{"prompt": job.prompt, "seed": job.seed, "file": file} for job, file in zip(jobs, files, strict=True)]
    for file, picture in zip(files, pictures, strict=True):
        with atomic(Path(file)) as temporary:
            Image.fromarray(picture).save(temporary, format="PNG")
    if as_json:
        streams.print_json({"pictures": rows})
        return
    for file in files:
        streams.print_result(file)


def _check(prompts: Sequence[str], strength: float, *, edit: Path | None, out: Path) -> None:
    if empty := [prompt for prompt in prompts if not prompt.strip()]:
        raise InputError(f"Got an empty prompt ({empty[0]!r}); say what to draw.")
    if not math.isfinite(strength):
        raise InputError(f"--strength: got {strength}, wanted a number such as 0.5.")
    if strength != 1.0 and edit is None:
        raise InputError("--strength scales an edit; name it with --edit RUN.")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: '{out}' is a file; give a folder.")


def file_names(jobs: Sequence[tuple[str, int]], *, limit: int = 60) -> list[str]:
    """Return a file's name for each prompt and seed: its letters and digits joined by dashes, all names different.

    Example:
        >>> file_names([("Santa Claus!", 0), ("santa claus", 0), ("🎅", 1)])
        ['santa-claus-0.png', 'santa-claus-0-2.png', 'picture-1.png']
    """
    names: list[str] = []
    for prompt, seed in jobs:
        stem = f"{dashed(prompt)[:limit].strip('-') or 'picture'}-{seed}"
        same = sum(name == f"{stem}.png" or name.startswith(f"{stem}-") for name in names)
        names.append(f"{stem}-{same + 1}.png" if same else f"{stem}.png")
    return names
