"""``aizheimer attack``: can the concept be brought back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aizheimer.cli import streams
from aizheimer.cli.guard import on_interrupt
from aizheimer.cli.options import Base, Clip, Debug, Device, Guidance, Json, JudgeName, Run
from aizheimer.errors import InputError

if TYPE_CHECKING:
    from aizheimer.attacks.base import AttackSettings
    from aizheimer.attacks.load import LoadedAttack
    from aizheimer.attacks.results import AttackResult
    from aizheimer.backbones.base import Backbone
    from aizheimer.concepts.concept import Concept
    from aizheimer.detectors.base import Judge
    from aizheimer.edits.edit import Edit
    from aizheimer.evaluation.generate import StageProgress


Names = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        metavar="[LABEL=]NAME",
        help="An attack of 'aizheimer ls attacks'; may be repeated, one attack under labels such as "
        "relearn-full=relearn.",
    ),
]
Controlled = Annotated[
    bool,
    typer.Option(
        "--controls/--no-controls",
        help="Also attack the unedited model, there from a neighbour's words too, and by chance.",
    ),
]


def attack(
    run: Run,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE...", help="The attack's parameters; with several, relearn.steps=20 by name or label."
        ),
    ] = None,
    *,
    names: Names = None,
    every: Annotated[bool, typer.Option("--all", help="Every attack there is.")] = False,
    model: Base = None,
    device: Device = None,
    images: Annotated[int, typer.Option("--images", min=1, help="Pictures that decide.")] = 20,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Denoising steps of a picture.")] = 20,
    guidance: Guidance = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")] = 0,
    controls: Controlled = True,
    clip: Clip = None,
    judge_name: JudgeName = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Run attacks again whose results are there.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Try to bring the forgotten concept back, and say how often that succeeds, beside the rate before and controls.

    Writes attack-LABEL.json and attack-LABEL.png into the run; the label is the name if none is given. An attack that
    is there already, made with the same parameters, seed, judge and files on the same edit, is not run again: an
    interrupted command goes on where it was.
    """
    del debug
    wanted = _wanted(names or [], every=every)
    from aizheimer import api
    from aizheimer.attacks.base import AttackSettings
    from aizheimer.attacks.load import load_attacks
    from aizheimer.attacks.run import load_judge

    chosen = load_attacks(wanted, overrides or ())
    settings = AttackSettings(images=images, steps=steps, guidance=guidance, seed=seed)
    edit = api.load_edit(run)
    backbone = api.load_base(run, model, device=device)
    target = edit.provenance.concept.to_concept()
    judge = load_judge(target, world=backbone.world, clip=clip, judge=judge_name)
    work = _Work(
        run=run, backbone=backbone, edit=edit, target=target, judge=judge, settings=settings, controls=controls
    )
    work.all(chosen, overwrite=overwrite)
    results = list(work.results.values())
    if as_json:
        found = {result.called: result.model_dump(mode="json") for result in results}
        streams.print_json({"run": str(run), "attacks": found, "skipped": work.skipped})
    else:
        _print(results, run)


def _wanted(names: list[str], *, every: bool) -> list[str]:
    from aizheimer._registry import ATTACKS

    if every and names:
        raise InputError("Got --all and --attack; choose one.")
    if not every and not names:
        raise InputError("Got no attack; name one with --attack, as 'aizheimer ls attacks' lists them, or take --all.")
    return list(ATTACKS) if every else names


@dataclass(kw_only=True)
class _Work:
    """The attacks of one command on one run folder."""

    run: Path
    backbone: Backbone
    edit: Edit
    target: Concept
    judge: Judge
    settings: AttackSettings
    controls: bool
    results: dict[str, AttackResult] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def all(self, attacks: Sequence[LoadedAttack], *, overwrite: bool) -> None:
        """Run attacks, keeping each as soon as it is done; one that means nothing here is skipped if it has company."""
        from aizheimer.attacks.base import NotApplicable
        from aizheimer.cli.live import progress_bar

        with progress_bar() as advance:
            for one in attacks:
                if not overwrite and (found := self.finished(one)) is not None:
                    streams.say(f"{one.label} is there already; --overwrite runs it again")
                    self.results[one.label] = found
                    continue
                try:
                    with on_interrupt(f"What was finished is in {self.run}; the same command goes on from there."):
                        self.results[one.label] = self.made(one, advance)
                except NotApplicable as error:
                    if len(attacks) == 1:
                        raise
                    self.skipped[one.label] = str(error)
                    streams.say(f"skipped    {error}")

    def finished(self, loaded: LoadedAttack) -> AttackResult | None:
        """Return the result that is there already with its picture, if this very attack on this very edit made it."""
        from aizheimer.attacks.base import Subject
        from aizheimer.attacks.resume import finished

        subject = Subject(
            backbone=self.backbone, edit=self.edit, concept=self.target, judge=self.judge, settings=self.settings
        )
        file, picture = (_file(self.run, loaded.label, suffix) for suffix in ("json", "png"))
        found = finished(file, loaded.attack, subject=subject, controls=self.controls, say=streams.say)
        if found is not None and not picture.is_file():
            streams.say(f"{file.name} is measured again: its picture is not there")
            return None
        return found

    def made(self, loaded: LoadedAttack, advance: StageProgress) -> AttackResult:
        """Run one attack and write what it found; the result last, so that it stands for all."""
        from aizheimer.attacks.run import run_attack
        from aizheimer.reports.attacks import save_attack_picture

        done = run_attack(
            loaded.attack, backbone=self.backbone, edit=self.edit, concept=self.target, judge=self.judge,
            settings=self.settings, controls=self.controls, progress=advance,
        )  # fmt: skip
        done = replace(done, result=done.result.model_copy(update={"label": loaded.label}))
        save_attack_picture(done, _file(self.run, loaded.label, "png"))
        done.result.save(_file(self.run, loaded.label, "json"))
        return done.result


def _file(run: Path, name: str, suffix: str) -> Path:
    from aizheimer.proof.findings import ATTACK

    return run / f"{ATTACK}{name}.{suffix}"


def _print(results: Sequence[AttackResult], run: Path) -> None:
    from aizheimer.reports.attacks import attack_table

    if not results:
        return
    streams.print_rich(attack_table(results))
    for result in results:
        streams.print_result(f"picture    {_file(run, result.called, 'png')}")
