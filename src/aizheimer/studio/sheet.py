"""A few pictures of the same prompts and seeds, before and now, drawn while a model forgets."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aizheimer.evaluation.generate import PromptJob, generate
from aizheimer.reports.pictures import enlarge, save_png
from aizheimer.studio.visitors import Visitor

if TYPE_CHECKING:
    from aizheimer.backbones.base import Backbone
    from aizheimer.concepts.concept import Concept
    from aizheimer.edits.edit import Edit

EDGE = 256
STEPS = 12
PATIENCE = 4.0
"""A sheet is drawn anew when this many times its own cost have gone by."""


@dataclass
class SampleSheet:
    """Draws the sheet, and keeps its newest state in the visitor's pictures.

    Args:
        backbone: The model that is being edited in place.
        jobs: What is drawn, the same every time.
        before: Names of the unedited model's pictures.
        files: Where the newest pictures are.
        cost: Seconds that the last drawing took.
        drawn: When it ended.
    """

    backbone: Backbone
    jobs: list[PromptJob]
    before: list[str]
    files: list[Path]
    cost: float = 0.0
    drawn: float = 0.0

    @classmethod
    def begin(cls, backbone: Backbone, concept: Concept, *, visitor: Visitor, progress: Any) -> SampleSheet:
        """Draw what the model draws before it forgets: the concept twice, and what should stay.

        Args:
            backbone: The unedited model.
            concept: The target; the first of what it keeps are shown.
            visitor: Whose pictures they are.
            progress: Called with (done, total).
        """
        jobs = sheet_jobs(backbone, concept)
        scale = backbone.world.guidance
        images = generate(backbone.pipe, jobs, steps=STEPS, guidance=scale, batch_size=2, progress=progress)
        files = [visitor.new_picture() for _ in jobs]
        before = [save_picture(image, visitor) for image in images]
        return cls(backbone, jobs, before, files)

    @property
    def is_due(self) -> bool:
        """Whether drawing it again would not slow the training down by much."""
        return time.monotonic() - self.drawn >= PATIENCE * self.cost

    def draw(self, step: int, edit: Edit | None = None) -> dict[str, Any]:
        """Draw the model as it is, or with an edit, and return what the page shows: JSON values."""
        started = time.monotonic()
        scale = self.backbone.world.guidance
        with torch.no_grad(), _at_hand(self.backbone):
            if edit is None:
                images = generate(self.backbone.pipe, self.jobs, steps=STEPS, guidance=scale, cache_dir=False)
            else:
                with edit.applied(self.backbone.pipe):
                    images = generate(self.backbone.pipe, self.jobs, steps=STEPS, guidance=scale)
        for image, file in zip(images, self.files, strict=True):
            save_png(enlarge(image, edge=EDGE), file)
        self.drawn = time.monotonic()
        self.cost = self.drawn - started
        return self.shown([file.name for file in self.files], step)

    def shown(self, now: Sequence[str], step: int) -> dict[str, Any]:
        """Return the sheet as JSON values: its prompts, its pictures, and the step they are of."""
        return {"prompts": [job.prompt for job in self.jobs], "before": self.before, "now": list(now), "step": step}


def sheet_jobs(backbone: Backbone, concept: Concept, *, each: int = 2) -> list[PromptJob]:
    """Return what a sheet shows: prompts of the target, and of the first concepts that it keeps."""
    world = backbone.world
    prompts = world.prompts(concept)
    own = prompts[:: max(1, len(prompts) // each)][:each]
    kept = [word for word in concept.keep if world.kind_of(word) == concept.kind][:each]
    others = [world.prompts(type(concept)(word, kind=concept.kind))[0] for word in kept]
    general = [prompt for prompt in world.general_prompts if prompt not in own][: each - len(others)]
    return [PromptJob(prompt, seed) for seed, prompt in enumerate(dict.fromkeys([*own, *others, *general]))]


@contextlib.contextmanager
def _at_hand(backbone: Backbone) -> Iterator[None]:
    """Have all networks beside the denoiser, from where training may have parked them."""
    homes = [(net, next(net.parameters()).device) for net in backbone.components.values()]
    moved = [(net, home) for net, home in homes if home != backbone.device]
    try:
        for net, _ in moved:
            net.to(backbone.device)
        yield
    finally:
        for net, device in moved:
            net.to(device)


def save_picture(image: np.ndarray, visitor: Visitor, *, edge: int = EDGE) -> str:
    """Save a drawn picture, uint8 (height, width, 3), among the visitor's, and return its name."""
    return save_png(enlarge(image, edge=edge), visitor.new_picture()).name
