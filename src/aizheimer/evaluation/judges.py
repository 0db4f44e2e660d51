"""The judges of one evaluation: one for objects, one for styles, and a score of picture against words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aizheimer.concepts.world import World
from aizheimer.detectors.base import Judge
from aizheimer.detectors.classifier import ImageJudge
from aizheimer.detectors.clip_score import CLIPScore
from aizheimer.detectors.clip_zero_shot import ZeroShotJudge


@dataclass(frozen=True)
class Judges:
    """Who looks at the pictures; None leaves the figures that need it out.

    Attributes:
        object: Names the object shown.
        style: Names the style it is drawn in.
        clip: Scores a picture against its prompt.
    """

    object: Judge | None = None
    style: Judge | None = None
    clip: CLIPScore | None = None


@dataclass(frozen=True, kw_only=True)
class JudgeNetworks:
    """The networks of a world's judges, loaded once for many targets.

    Args:
        world: Whose words a zero-shot judge chooses among.
        object: The world's own judge of objects.
        style: The same of styles.
        clip: Scores pictures against words; judges what has no judge of its own.
    """

    world: World
    object: ImageJudge | None
    style: ImageJudge | None
    clip: CLIPScore | None

    @classmethod
    def load(cls, world: World, *, clip_folder: str | Path | None = None) -> JudgeNetworks:
        """Read what there is; the arguments and errors are those of `load_judges`."""
        objects, styles = world.judge_folder("object"), world.judge_folder("style")
        clip = Path(clip_folder) if clip_folder is not None else world.judge_folder("clip")
        return cls(
            world=world,
            object=ImageJudge.load(objects) if objects is not None else None,
            style=ImageJudge.load(styles) if styles is not None else None,
            clip=CLIPScore.load(clip) if clip is not None else None,
        )

    def judges(self, *, extra: tuple[str, ...] = ()) -> Judges:
        """Return the judges; ``extra`` are further object classes for a zero-shot judge."""
        labels = tuple(dict.fromkeys([*(item.label for item in self.world.vocabulary), *extra]))
        return Judges(
            object=self.object or _zero_shot(self.clip, labels, "a photo of {label}"),
            style=self.style or _zero_shot(self.clip, self.world.styles, "a {label} picture"),
            clip=self.clip,
        )


def load_judges(world: World, *, clip_folder: str | Path | None = None, extra: tuple[str, ...] = ()) -> Judges:
    """Load the judges that a world brings; where it brings none, let CLIP choose among the world's words.

    Args:
        world: Names its judge folders relative to world.json.
        clip_folder: A transformers CLIP to use in place of the world's own.
        extra: Further object classes for a zero-shot judge, such as a target the vocabulary lacks.

    Returns:
        The judges there are: with no trained judge and no CLIP, none.

    Raises:
        ModelError: If a folder is there but cannot be loaded.
    """
    return JudgeNetworks.load(world, clip_folder=clip_folder).judges(extra=extra)


def _zero_shot(clip: CLIPScore | None, classes: tuple[str, ...], template: str) -> ZeroShotJudge | None:
    return ZeroShotJudge(clip, classes, template=template) if clip is not None and len(classes) > 1 else None
