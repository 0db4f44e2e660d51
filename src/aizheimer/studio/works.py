"""What the studio's jobs do: the package's own functions, with a visitor's form and folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aizheimer import _files
from aizheimer.errors import EditError, InputError
from aizheimer.studio.forms import AttackForm, EvaluateForm, ExportForm, StackForm, TryForm, in_page_words
from aizheimer.studio.jobs import Desk, Work
from aizheimer.studio.shelf import Shelf
from aizheimer.studio.visitors import Visitor

if TYPE_CHECKING:
    from aizheimer.backbones.base import Backbone
    from aizheimer.edits.edit import Edit

TRY_STEPS = 20
RECORD = "studio.json"
"""What the studio remembers of a run: the name of its model on the shelf."""


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Where one visitor's jobs work.

    Args:
        shelf: The models.
        visitor: Whose folder is written to, and read from.
    """

    shelf: Shelf
    visitor: Visitor

    def backbone(self, name: str, desk: Desk) -> Backbone:
        """Return a model, and say so if it must be loaded."""
        if not self.shelf.is_loaded(name):
            desk.progress("loading the model", 0, 0)
        return self.shelf.backbone(name)

    def model_of(self, run: Path) -> str:
        """Return the name of the model that a run is for.

        Raises:
            InputError: The studio offers that model no longer.
        """
        return self.shelf.check(str(json.loads((run / RECORD).read_text("utf-8"))["model"]))

    def opened(self, name: str, desk: Desk) -> tuple[Path, Backbone, Edit]:
        """Return an edit's folder, its base and itself."""
        from aizheimer import api

        run = self.visitor.run(name)
        return run, self.backbone(self.model_of(run), desk), api.load_edit(run)


def remember(run: Path, model: str) -> None:
    """Write down which model of the shelf a run is for."""
    _files.write_json(run / RECORD, {"model": model})


def try_work(form: TryForm, shop: Workshop) -> Work:
    """Draw a prompt with both models; with words, show where they look when they read these."""

    def work(desk: Desk) -> Mapping[str, Any]:
        from aizheimer.evaluation.generate import PromptJob, generate
        from aizheimer.studio.sheet import save_picture

        _, backbone, edit = shop.opened(form.run, desk)
        scaled = edit.scale(form.strength)
        told = {"prompt": form.prompt, "seed": form.seed, "strength": form.strength, "run": form.run}
        if form.words:
            return {**told, **_attention(form, backbone, scaled, desk=desk, visitor=shop.visitor)}
        options: dict[str, Any] = {"steps": TRY_STEPS, "guidance": backbone.world.guidance}
        jobs = [PromptJob(form.prompt, form.seed)]
        desk.progress("drawing without the edit", 0, 2)
        before = generate(backbone.pipe, jobs, **options)[0]
        desk.progress("drawing with the edit", 1, 2)
        with scaled.applied(backbone.pipe):
            after = generate(backbone.pipe, jobs, **options)[0]
        names = [save_picture(image, shop.visitor, edge=512) for image in (before, after)]
        return {**told, "before": names[0], "after": names[1]}

    return work


def _attention(
    form: TryForm, backbone: Backbone, edit: Edit, *, desk: Desk, visitor: Visitor
) -> dict[str, Any]:  # fmt: skip
    from aizheimer.reports.heatmaps import overlay, word_heatmaps
    from aizheimer.reports.pictures import save_png

    desk.progress("reading attention without the edit", 0, 2)
    before, original = word_heatmaps(backbone, form.prompt, words=form.words, seed=form.seed)
    desk.progress("reading attention with the edit", 1, 2)
    with edit.applied(backbone.pipe):
        after, edited = word_heatmaps(backbone, form.prompt, words=form.words, seed=form.seed)
    found = []
    for word, old, new in zip(form.words, before, after, strict=True):
        peak = float(max(old.max(), new.max()))
        names = [
            save_png(overlay(image, heat, peak=peak), visitor.new_picture()).name
            for image, heat in ((original, old), (edited, new))
        ]
        mass = [float(old.mean()), float(new.mean())]
        found.append({"word": word, "before": names[0], "after": names[1], "mass": mass})
    return {"maps": found}


def evaluate_work(form: EvaluateForm, shop: Workshop) -> Work:
    """Measure an edit, and write the figures into its run."""

    def work(desk: Desk) -> Mapping[str, Any]:
        from aizheimer import api
        from aizheimer.reports.table import rows
        from aizheimer.reports.wording import headline, percent

        run, backbone, edit = shop.opened(form.run, desk)
        result = api.evaluate(
            backbone,
            edit,
            samples=form.samples,
            progress=lambda done, total: desk.progress("drawing and judging", done, total),
        )
        result.save(run / "evaluation.json")
        figures = [vars(row) for row in rows(result)]
        near = [
            {"label": one.label, "edited": percent(one.edited), "original": percent(one.original)}
            for one in result.neighbours
        ]
        return {
            "run": form.run,
            "headline": headline(result),
            "figures": figures,
            "neighbours": near,
            "warnings": list(result.warnings),
        }

    return work


def attack_work(form: AttackForm, shop: Workshop) -> Work:
    """Try to bring the concept back, and write what was found into the run."""

    def work(desk: Desk) -> Mapping[str, Any]:
        from aizheimer import api
        from aizheimer.attacks.base import AttackSettings
        from aizheimer.proof.findings import ATTACK
        from aizheimer.reports.attacks import HEADINGS, attack_rows, notes, save_attack_picture

        run, backbone, edit = shop.opened(form.run, desk)
        done = api.attack(
            backbone,
            edit,
            attack=form.attack,
            settings=AttackSettings(images=form.images),
            controls=form.controls,
            progress=desk.progress,
        )
        picture = save_attack_picture(done, run / f"{ATTACK}{form.attack}.png")
        shown = shutil.copyfile(picture, shop.visitor.new_picture())
        done.result.save(run / f"{ATTACK}{form.attack}.json")
        (row,) = attack_rows([done.result])
        warnings = [*done.result.warnings, *notes([done.result])]
        return {
            "run": form.run,
            "attack": row[0],
            "figures": dict(zip(HEADINGS, row[1:], strict=True)),
            "picture": shown.name,
            "warnings": warnings,
        }

    return work


def stack_work(form: StackForm, shop: Workshop) -> Work:
    """Add edits of one model, each with its strength, as another edit."""

    def work(desk: Desk) -> Mapping[str, Any]:
        from aizheimer import api
        from aizheimer.edits.compose import parts_of
        from aizheimer.edits.parts import doing

        parts = [(name, strength) for name, strength in form.parts if strength != 0]
        if not parts:
            raise InputError("got no edit to add; move one slider away from 0.")
        runs = [shop.visitor.run(name) for name, _ in parts]
        models = {shop.model_of(run) for run in runs}
        if len(models) > 1:
            raise InputError(f"these edits are for several models ({', '.join(sorted(models))}); take those of one.")
        (model,) = models
        backbone = shop.backbone(model, desk)
        desk.progress("adding", 0, 0)
        edits = [api.load_edit(run).scale(strength) for run, (_, strength) in zip(runs, parts, strict=True)]
        out = shop.visitor.new_run(" ".join(name for name, _ in parts))
        total = api.stack(edits, out=out, model=backbone)
        remember(out, model)
        return {"run": out.name, "does": doing(parts_of(total)), "parts": [list(part) for part in parts]}

    return work


def export_work(form: ExportForm, shop: Workshop) -> Work:
    """Write an edit as a file that other programs load; a folder is packed into one."""

    def work(desk: Desk) -> Mapping[str, Any]:
        from aizheimer import api
        from aizheimer.edits.export import FORMATS, format_named
        from aizheimer.edits.low_rank import EXACT

        kind = FORMATS[format_named(form.format)]
        _, backbone, edit = shop.opened(form.run, desk)
        desk.progress("writing", 0, 0)
        out = shop.visitor.new_file("exports", f"{form.run} {form.format}", "" if kind.folder else ".safetensors")
        options: dict[str, Any] = {"format": form.format, "model": backbone, "rank": form.rank}
        options |= {"partial": form.partial, "ungated": form.ungated}
        try:
            exported = api.export(edit.scale(form.strength), out=out, **options)
        except EditError as error:
            raise EditError(in_page_words(str(error))) from error
        file = exported.path
        if kind.folder:
            file = Path(shutil.make_archive(str(out), "zip", out))
            shutil.rmtree(out)
        return {
            "run": form.run,
            "file": file.name,
            "bytes": file.stat().st_size,
            "format": form.format,
            "error": exported.error,
            "exact": exported.error <= EXACT,
            "left_out": len(exported.left_out),
            "summary": kind.summary,
            "load": exported.load.replace("FILE", f'"{file.name}"').replace("FOLDER", f'"{out.name}"'),
        }

    return work
