"""How a search looks at an edit: on which model, for which concept, and by whose eyes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.edits.edit import Edit
from aizheimer.evaluation.evaluate import evaluate
from aizheimer.evaluation.generate import StageProgress
from aizheimer.evaluation.judges import Judges, load_judges
from aizheimer.evaluation.results import EvaluationResult
from aizheimer.evaluation.settings import EvaluationSettings


@dataclass(frozen=True, kw_only=True)
class Looking:
    """What all looks of a search have in common.

    Args:
        backbone: The base.
        concept: The target.
        judges: Who looks.
        progress: Called with (stage, done, total).
    """

    backbone: Backbone
    concept: Concept
    judges: Judges
    progress: StageProgress | None = None

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        concept: Concept,
        *,
        judges: Judges | None,
        clip: str | Path | None,
        progress: StageProgress | None = None,
    ) -> Looking:
        """Look with these judges, or with the model's own.

        Args:
            backbone: The base.
            concept: The target.
            judges: Who looks; None for the model's own.
            clip: Folder of a CLIP to judge with, for a model that brings no judges.
            progress: Called with (stage, done, total).

        Raises:
            ModelError: If a judge's folder cannot be loaded.
        """
        who = judges or load_judges(backbone.world, clip_folder=clip, extra=(concept.target,))
        return cls(backbone=backbone, concept=concept, judges=who, progress=progress)

    def at(self, edit: Edit | None, settings: EvaluationSettings, *, stage: str) -> EvaluationResult:
        """Return what the judges see of an edit; pictures that were drawn before are found in the cache.

        Args:
            edit: The edit; None looks at the unedited model alone.
            settings: At how many pictures, and from which noise.
            stage: What the drawing is called to ``progress``.
        """
        progress = self.progress
        return evaluate(
            self.backbone.pipe,
            edit,
            concept=self.concept,
            world=self.backbone.world,
            judges=self.judges,
            settings=settings,
            progress=None if progress is None else lambda done, total: progress(stage, done, total),
        )
