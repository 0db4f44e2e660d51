"""``aizheimer evaluate``: what the edit forgot, and what it kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from aizheimer._processes import is_main
from aizheimer.cli import streams
from aizheimer.cli.options import Base, Clip, Debug, Device, Json, JudgeName, Run
from aizheimer.cli.suites import EffectiveOnly, SuiteNames, evaluate_run
from aizheimer.cli.workers import OneShare, Workers, draw_with_workers
from aizheimer.errors import GateError, InputError

if TYPE_CHECKING:
    from aizheimer.evaluation.results import EvaluationResult

METRICS = ("ua", "ira", "cra")

Required = Annotated[
    list[str] | None,
    typer.Option(
        "--require",
        metavar="METRIC=VALUE",
        help="Exit with 3 unless ua, ira or cra reaches this; 'ira=95%' is a share of the unedited model's.",
    ),
]


def evaluate(
    run: Run,
    *,
    model: Base = None,
    device: Device = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=3, help="About how many pictures to draw with the edit.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="As many pictures as figures to publish need.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="First seed of every prompt.")] = 0,
    clip: Clip = None,
    require: Required = None,
    workers: Workers = 1,
    share: OneShare = None,
    suite: SuiteNames = None,
    effective_only: EffectiveOnly = False,
    judge: JudgeName = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw the same prompts and seeds with the edit and without, and let judges say what they see.

    UA is the share of target prompts no longer judged to be the target; IRA the share of other concepts of its kind
    still judged right; CRA the share of the other kind still judged right. Writes evaluation.json into the run, or
    suite-NAME.json for each suite.
    """
    del debug
    if suite:
        _check_suites_alone(sized=full or samples is not None, gated=bool(require), shared=workers > 1 or bool(share))
        looking = partial(evaluate_run, clip=clip, judge=judge, effective_only=effective_only)
        looking(run, suite, model=model, device=device, seed=seed, as_json=as_json)
        return
    gates = [Gate.parse(text) for text in require or ()]
    _check_together(samples=samples, full=full, workers=workers, share=share)
    from aizheimer import api
    from aizheimer.cli.live import progress_bar

    edit = api.load_edit(run)
    if workers > 1:
        draw_with_workers(run, workers, model=model, device=device, samples=samples, full=full, seed=seed)
    base = api.load_base(run, model, device=device)
    with progress_bar() as advance:
        watch = partial(advance, "drawing")
        if share:
            drawn = api.draw_share(base, edit, share, samples=samples, full=full, seed=seed, progress=watch)
            _print_share(share, drawn, as_json=as_json)
            return
        result = api.evaluate(
            base, edit, samples=samples, full=full, effective_only=effective_only, seed=seed, clip=clip, judge=judge,
            progress=watch,
        )  # fmt: skip
    if is_main():
        result.save(run / "evaluation.json")
    _print(result, as_json=as_json)
    if failed := [line for gate in gates if (line := gate.failure(result))]:
        raise GateError("; ".join(failed) + ".")


def _check_suites_alone(*, sized: bool, gated: bool, shared: bool) -> None:
    if sized or gated:
        raise InputError("Got --suite and --full, --samples or --require; a suite says itself how much it draws.")
    if shared:
        raise InputError("Got --suite and --workers or --share; start suites with accelerate launch to share them.")


def _check_together(*, samples: int | None, full: bool, workers: int, share: str | None) -> None:
    if full and samples is not None:
        raise InputError("Got --full and --samples; choose one.")
    if workers > 1 and share:
        raise InputError("Got --workers and --share; choose one.")


@dataclass(frozen=True)
class Gate:
    """A figure that must be reached.

    Args:
        metric: "ua", "ira" or "cra".
        least: The least value, in [0, 1] or as a share of the unedited model's.
        relative: Whether ``least`` is such a share.
    """

    metric: str
    least: float
    relative: bool = False

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Read "ua=0.9" or "ira=95%".

        Raises:
            InputError: For an unknown metric or a value that is no share.
        """
        match = re.fullmatch(r"(\w+)=(\d+(?:\.\d+)?)(%?)", text.strip().casefold())
        if match is None or match[1] not in METRICS:
            raise InputError(f"--require: got '{text}', wanted ua, ira or cra and its least value, such as ua=0.9.")
        relative = match[3] == "%"
        least = float(match[2]) / (100 if relative else 1)
        if least > 1:
            raise InputError(f"--require: got '{text}', wanted a value from 0 to 1, or from 0% to 100%.")
        return cls(metric=match[1], least=least, relative=relative)

    def failure(self, result: EvaluationResult) -> str:
        """Return what to say when the gate is not met, and "" when it is."""
        figure = getattr(result, self.metric)
        name = self.metric.upper()
        if figure is None or figure.value is None:
            return f"{name} could not be measured"
        least = self.least * figure.original if self.relative else self.least
        if figure.value >= least:
            return ""
        share = f" ({self.least:.0%} of the unedited model's {figure.original:.3f})" if self.relative else ""
        return f"{name} is {figure.value:.3f}, required was {least:.3f}{share}"


def _print_share(share: str, drawn: int, *, as_json: bool) -> None:
    if as_json:
        streams.print_json({"share": share, "drawn": drawn})
    else:
        streams.print_result(f"share {share}: {drawn} pictures drawn into the cache")


def _print(result: EvaluationResult, *, as_json: bool) -> None:
    if as_json:
        streams.print_json(result.model_dump(mode="json"))
        return
    from aizheimer.reports.table import result_table

    streams.print_rich(result_table(result))
