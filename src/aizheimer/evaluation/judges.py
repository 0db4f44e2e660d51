"""The judges of one evaluation: one for objects, one for styles, and a score of picture against words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aizheimer.concepts.concept import Concept
from aizheimer.concepts.world import World
from aizheimer.detectors.base import Judge, read_json
from aizheimer.detectors.classifier import ImageJudge
from aizheimer.detectors.clip_score import CLIPScore
from aizheimer.detectors.clip_zero_shot import ZeroShotJudge
from aizheimer.detectors.identity import IdentityJudge
from aizheimer.detectors.nudenet import NudeNetDetector, NudityJudge
from aizheimer.detectors.weights import weights_of
from aizheimer.evaluation.reuse import contents_of, digest_of

NUDENET, FACES = "nudenet", "faces:"
"""A judge's name that is no folder, and what stands before a folder whose judge is shown faces alone."""

CAPTIONS = {"object": "a photo of {label}", "style": "a {label} picture"}
"""What a CLIP is asked to choose among."""


WEIGHTS = "weights of the "
"""How the entries of ``made_from`` begin that name a judge's weights."""

_TITLES = {"object": "object judge", "style": "style judge", "clip": "CLIP"}


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

    def made_from(self) -> dict[str, str]:
        """Return who looks, as results keep it: names and classes in one digest, and what weights each one tells.

        A name is not enough: two folders called "clip" may hold two networks.
        """
        there = {name: judge for name in _TITLES if (judge := getattr(self, name)) is not None}
        looking = {name: [judge.name, getattr(judge, "classes", ())] for name, judge in there.items()}
        told = {f"{WEIGHTS}{_TITLES[name]}": weights_of(judge) for name, judge in there.items()}
        return {"judges": digest_of(looking), **{key: weights for key, weights in told.items() if weights}}


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
            object=self.object or _zero_shot(self.clip, labels, CAPTIONS["object"]),
            style=self.style or _zero_shot(self.clip, self.world.styles, CAPTIONS["style"]),
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


def judges_for(
    concept: Concept, *, world: World, clip: str | Path | None = None, judge: Judge | str | Path | None = None
) -> Judges:
    """Load the judges of a world, with one of the caller's own for the target's kind.

    Args:
        concept: The target.
        world: See `load_judges`.
        clip: See `load_judges`.
        judge: Who names the target's kind in place of the world's judge: a judge, or what `named_judge` loads.

    Raises:
        ModelError: If a folder is there but cannot be loaded.
        InputError: If CLIP has nothing to choose among.
        MissingDependencyError: If NudeNet is asked for and not installed.
    """
    found = load_judges(world, clip_folder=clip, extra=(concept.target,))
    if judge is None:
        return found
    own: Any = named_judge(judge, concept, world=world) if isinstance(judge, str | Path) else judge
    return replace(found, **{concept.kind: own})


def named_judge(name: str | Path, concept: Concept, *, world: World) -> Judge:
    """Load a judge by what a user calls it; whether it knows the target is for those to check who ask it.

    Args:
        name: ``"nudenet"``; a folder with an image classifier of transformers, or with a CLIP, which chooses among the
            target and the world's words; or ``"faces:"`` before the folder, to show it each picture's largest face.
        concept: The target.
        world: Of the model.

    Returns:
        The judge; a folder's has a digest of what is in the folder in its name, so that no result of another is kept.

    Raises:
        ModelError: If the folder is missing or holds neither.
        InputError: If CLIP has nothing to choose among.
        MissingDependencyError: If NudeNet is asked for and not installed.
    """
    if str(name) == NUDENET:
        return NudityJudge.load()
    if str(name).startswith(FACES):
        folder = Path(str(name).removeprefix(FACES))
        return IdentityJudge(NudeNetDetector.load(), _of_folder(folder, concept, world=world))
    return _of_folder(Path(name), concept, world=world)


def _of_folder(folder: Path, concept: Concept, *, world: World) -> ImageJudge | ZeroShotJudge:
    wanted = "'nudenet', or a folder with an image classifier or a CLIP of transformers"
    kind = read_json(folder / "config.json", wanted=wanted).get("model_type")
    digest = contents_of({"": folder.resolve()})["content of "][:8]
    if kind != "clip":
        judge = ImageJudge.load(folder)
        return replace(judge, name=f"{judge.name} {digest}")
    clip = CLIPScore.load(folder)
    words = world.styles if concept.kind == "style" else [item.label for item in world.vocabulary]
    classes = tuple(dict.fromkeys([*words, concept.target]))
    return ZeroShotJudge(replace(clip, name=f"{clip.name} {digest}"), classes, template=CAPTIONS[concept.kind])


def _zero_shot(clip: CLIPScore | None, classes: tuple[str, ...], template: str) -> ZeroShotJudge | None:
    return ZeroShotJudge(clip, classes, template=template) if clip is not None and len(classes) > 1 else None
