"""What the benchmarks of methods share: the embedded model drawn fast, and every figure of one edit.

Pictures are drawn by a compiled UNet where that is faster (a third, with AVX-512), in float32 unless asked otherwise:
bfloat16 takes half the time where the processor has AMX. The unedited model is drawn the same way, so that every pair
of figures is of one protocol. Hooks put themselves into the UNet's modules, which a compiled UNet would not notice:
edits that have one are drawn by a UNet that is not compiled.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import resource
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from aizheimer.api import load_model
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.families import prompt_families
from aizheimer.evaluation.evaluate import AppliedEdit, draw_pairs, evaluate
from aizheimer.evaluation.generate import PromptJob
from aizheimer.evaluation.interference import judged_right
from aizheimer.evaluation.judges import Judges, load_judges
from aizheimer.evaluation.results import EvaluationResult
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.evaluation.suite import Scene
from aizheimer.evaluation.suites.families import Families

METRICS = ("ua", "ira", "cra", "near")
GAINS_BY_COMPILING = torch.cuda.is_available() or torch.backends.cpu.get_cpu_capability() == "AVX512"
SETTINGS = EvaluationSettings()
SYNONYMS = Families(families=("synonyms",))
"""Which words are synonyms, and how they are asked, is the suite's to say."""

FULL_BATCH = 2 * SETTINGS.batch_size
"""Rows of the UNet's batch under guidance."""


class Judged(AppliedEdit, Protocol):
    """An edit, or what acts like one: other weights that come off again."""

    @property
    def hook(self) -> object | None:
        """What acts while pictures are drawn, if not weights alone."""
        ...


class Bench:
    """The embedded model with its judges, loaded once for many edits."""

    def __init__(self, *, compiled: bool = GAINS_BY_COMPILING, settings: EvaluationSettings = SETTINGS) -> None:
        self.plain = load_model("emoji")
        self.settings = settings
        self._compiled = compiled

    @functools.cached_property
    def judges(self) -> Judges:
        """The world's judges."""
        return load_judges(self.plain.world)

    @functools.cached_property
    def fast(self) -> Backbone:
        """The model with a compiled UNet, for edits of weights."""
        backbone = load_model("emoji")
        if self._compiled:
            compile_unet(backbone)
        return backbone

    def concept(self, target: str) -> Concept:
        """Return the target with its kind."""
        return Concept(target, kind=self.plain.world.kind_of(target))

    def backbone_for(self, edit: Judged) -> Backbone:
        """Return the fastest model that the edit acts on."""
        return self.fast if edit.hook is None else self.plain

    def figures(self, edit: Judged, target: str) -> tuple[dict[str, Any], Tensor]:
        """Measure one edit.

        Returns:
            UA, IRA, CRA, nearest, UA by synonyms, flags; and unit vectors of CLIP's image tower of the target pictures
            (2, n, dim), unedited and edited.
        """
        result = self.judged(edit, target)
        row = accuracies(result)
        if (synonyms := self._synonyms(edit, target)) is not None:
            row["synonyms"] = synonyms
        row |= {"no_op": result.no_op, "collapse": result.collapse, "unchanged_retain": result.unchanged_retain_share}
        row["broken_retain"] = result.broken_retain.model_dump(mode="json") if result.broken_retain else None
        row["precision"] = self.settings.precision
        return row, self._features(edit, result)

    def judged(self, edit: Judged, target: str) -> EvaluationResult:
        """Draw with an edit and without, and have the judges look."""
        backbone = self.backbone_for(edit)
        return evaluate(
            backbone.pipe,
            edit,
            concept=self.concept(target),
            world=backbone.world,
            judges=self.judges,
            settings=self.settings,
        )

    def right(
        self, backbone: Backbone, labels: Sequence[str], *, seeds: int, first_seed: int = 900
    ) -> dict[str, list[bool]]:
        """Return, by label, which of its pictures are judged to show it: all its prompts, each from so many seeds."""
        world, judge = self.plain.world, self.judges.object
        assert judge is not None, "the embedded model ships its judges"
        jobs = {
            label: [
                PromptJob(prompt, first_seed + seed) for prompt in world.prompts_for(label) for seed in range(seeds)
            ]
            for label in labels
        }
        return judged_right(backbone, jobs, judge, settings=self.settings)

    def _synonyms(self, edit: Judged, target: str) -> dict[str, Any] | None:
        """Return UA of the suite `families` under synonyms alone; None for a target that the world has none of."""
        backbone, concept = self.backbone_for(edit), self.concept(target)
        asked = {family.name: family.prompts for family in prompt_families(concept, backbone.world)}
        if not asked["synonyms"]:
            return None
        scene = Scene(backbone=backbone, edit=edit, concept=concept, judges=self.judges, settings=self.settings)
        found = SYNONYMS.run(scene).figures["ua.synonyms"]
        return found.model_dump(mode="json", include={"value", "original", "interval", "n", "protocol"})

    def _features(self, edit: Judged, result: EvaluationResult) -> Tensor:
        """Return what CLIP's image tower sees in the target pictures, which the cache still has."""
        backbone = self.backbone_for(edit)
        plan = [image for image in result.images if image.role == "target"]
        pairs = draw_pairs(backbone.pipe, edit, plan=plan, settings=self.settings, guidance=result.guidance)
        clip = self.judges.clip
        assert clip is not None, "the embedded model ships a CLIP"
        return torch.stack([clip.embed_images(pairs.original), clip.embed_images(pairs.edited)])


def accuracies(result: EvaluationResult) -> dict[str, Any]:
    """Return the metrics that an evaluation has: value, the unedited model's, interval, number of pictures."""
    return {
        name: {"value": m.value, "original": m.original, "interval": list(m.interval), "n": m.n}
        for name in METRICS
        if (m := getattr(result, name)) is not None
    }


def add_judging_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how edits are judged, which `judging` reads."""
    parser.add_argument("--samples", type=int, help="pictures drawn to judge an edit; by default an evaluation's own")
    parser.add_argument("--eager", action="store_true", help="do not compile the UNet")


def judging(args: argparse.Namespace) -> dict[str, Any]:
    """Return what a `Bench` takes from these options."""
    settings = SETTINGS if args.samples is None else EvaluationSettings.sized(args.samples)
    return {"settings": settings, "compiled": GAINS_BY_COMPILING and not args.eager}


def compile_unet(backbone: Backbone) -> None:
    """Draw through a compiled UNet, for batches filled up to one size so that it is compiled once."""
    unet: Any = backbone.denoiser
    eager = unet.forward
    compiled = torch.compile(eager, dynamic=False)
    unet.to(memory_format=torch.channels_last)

    def forward(sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, **keywords: Any) -> Any:
        rows = len(sample)
        if rows > FULL_BATCH or torch.is_grad_enabled() or keywords.get("return_dict", True):
            return eager(sample, timestep, encoder_hidden_states, **keywords)
        missing = FULL_BATCH - rows
        sample = F.pad(sample, (0, 0, 0, 0, 0, 0, 0, missing)).contiguous(memory_format=torch.channels_last)
        states = F.pad(encoder_hidden_states, (0, 0, 0, 0, 0, missing))
        return (compiled(sample, timestep, states, **keywords)[0][:rows],)

    unet.forward = forward


def reference_seconds(backbone: Backbone, passes: int = 5) -> float:
    """Return the median time of one UNet pass over sixteen latents: what a second is worth on this machine."""
    unet: Any = backbone.denoiser
    latents = torch.randn(16, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    states, times = torch.randn(16, 32, unet.config.cross_attention_dim), []
    with torch.no_grad():
        for _ in range(passes + 1):
            started = time.perf_counter()
            unet(latents, 500, states)
            times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


class PeakMemory:
    """Resident memory over what it was when this was made, in MB; the process's peak where that cannot be reset."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._before = self._status("VmRSS")

    def megabytes(self) -> float:
        """Return the peak since then."""
        return max(0.0, self._status("VmHWM") - self._before)

    @staticmethod
    def _status(name: str) -> float:
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
        except OSError:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


class Rows:
    """The rows of a result file: each is kept as soon as it is measured, and not measured again.

    Args:
        path: The file; rows that it holds are read.
        key: Names of the figures that tell rows apart.
    """

    def __init__(self, path: Path, *, key: Sequence[str]) -> None:
        self.path, self.key = path, tuple(key)
        self.rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []

    def find(self, **key: Any) -> dict[str, Any] | None:
        """Return the row with this key, or None if it is still to be measured."""
        return next((row for row in self.rows if all(row[name] == key[name] for name in self.key)), None)

    def add(self, row: dict[str, Any], **content: Any) -> None:
        """Keep a row, with what else the file should say."""
        self.rows.append(row)
        write_json(self.path, {**content, "torch": torch.__version__, "rows": self.rows})


def write_json(path: Path, content: Any) -> None:
    """Replace the file at once."""
    replace_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Replace the file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def bench_rows(folder: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return some columns of what ``aizheimer bench`` measured; None where a row has not one."""
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: row.get(name) for name in columns} for row in map(json.loads, lines)]
