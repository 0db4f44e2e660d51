"""Look at every picture before it leaves the pipeline, and paint those that show the concept grey."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from aizheimer.backbones.base import backbone_for
from aizheimer.concepts.world import World
from aizheimer.detectors.base import Judge, find_class
from aizheimer.detectors.classifier import ImageJudge
from aizheimer.detectors.clip_zero_shot import ZeroShotJudge
from aizheimer.edits.hook import Patches
from aizheimer.errors import EditError, ModelError, did_you_mean

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

GREY = 128

TEMPLATES = {"object": "a photo of {label}", "style": "a {label} picture"}


@dataclass
class FilterCount:
    """How many pictures a filter has looked at, and how many it has blocked, since it was made or reset.

    Only drawn pictures count: one that comes from a cache was judged when it was drawn.
    """

    seen: int = 0
    blocked: int = 0

    @property
    def rate(self) -> float:
        """Share of pictures blocked; over benign prompts this is the benign blocking rate."""
        return self.blocked / self.seen if self.seen else 0.0

    def reset(self) -> None:
        """Start again from nothing."""
        self.seen = self.blocked = 0


@dataclass(frozen=True)
class JudgeFilterHook:
    """Paint the pictures grey in which a judge sees the concept.

    Not black: a picture whose numbers are none (NaN) is black, and must not pass for one that was blocked.

    A picture is blocked if the concept is the class the judge names or, with a threshold, if its probability is at
    least that. Any strength but 0 blocks wholly. Latents (``output_type="latent"``) are no pictures yet and pass.

    Args:
        target: The concept, as the judge spells it.
        kind: Which judge: ``"object"`` or ``"style"``.
        sha256: Of the judge's weights, so that no other judge is asked.
        folder: Where the judge is; empty for the world's own.
        classes: What a CLIP chooses among; empty for a trained judge.
        threshold: Probability from which on a picture is blocked; None blocks what the judge names.
        level: Of 255, the grey of blocked pictures.
        count: Pictures seen and blocked, wherever the hook is installed.
    """

    name: ClassVar[str] = "judge-filter"
    target: str
    kind: Literal["object", "style"]
    sha256: str
    folder: str = ""
    classes: tuple[str, ...] = ()
    threshold: float | None = None
    level: int = GREY
    count: FilterCount = field(default_factory=FilterCount, compare=False)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """None: the judge has its own folder."""
        return {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything but the count."""
        settings = {name: value for name, value in asdict(self).items() if name != "count"}
        return settings | {"classes": list(self.classes)}

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Return the hook with these settings, and nothing counted."""
        return cls(**{**settings, "classes": tuple(settings["classes"])})

    def install(self, pipe: StableDiffusionPipeline, *, strength: float) -> Patches:
        """Stand between the decoder and whoever asked for the picture."""
        folder = Path(self.folder) if self.folder else judge_folder(backbone_for(pipe).world, self.kind)
        if folder is None:
            raise EditError(f"this pipeline brings no judge of {self.kind}s; make the edit again with judge=<folder>")
        if judge_sha256(folder) != self.sha256:
            raise EditError(f"the judge in {folder} is not the one this edit was made with; make the edit again")
        patches, processor = Patches(), pipe.image_processor
        running = _Running(self, open_judge(folder, kind=self.kind, classes=self.classes), processor.postprocess)
        patches.put(processor, "postprocess", running.postprocess)
        return patches

    def blocks(self, judge: Judge, images: Tensor) -> list[bool]:
        """Return which pictures (batch, 3, height, width) in [-1, 1] show the concept."""
        seen = judge.judge(images)
        if self.threshold is None:
            return [label == self.target for label in seen.labels]
        return (seen.probabilities[:, judge.classes.index(self.target)] >= self.threshold).tolist()


@dataclass(eq=False)
class _Running:
    """The hook on one pipeline."""

    hook: JudgeFilterHook
    judge: Judge
    finish: Callable[..., Any]

    def postprocess(self, image: Tensor, output_type: str = "pil", do_denormalize: list[bool] | None = None) -> Any:
        if output_type == "latent":
            return self.finish(image, output_type=output_type, do_denormalize=do_denormalize)
        # What is not denormalised any more, because a safety checker took it out, is in [0, 1] already.
        raw = torch.tensor(do_denormalize if do_denormalize is not None else [True] * len(image), device=image.device)
        raw = raw[:, None, None, None]
        pixels = torch.where(raw, image, 2 * image - 1).nan_to_num(-1.0).clamp(-1, 1)
        blocked = self.hook.blocks(self.judge, pixels)
        self.hook.count.seen += len(blocked)
        self.hook.count.blocked += sum(blocked)
        if any(blocked):
            share = self.hook.level / 255
            grey = torch.where(raw, 2 * share - 1, share).to(image)
            image = torch.where(torch.tensor(blocked, device=image.device)[:, None, None, None], grey, image)
        return self.finish(image, output_type=output_type, do_denormalize=do_denormalize)


def judge_folder(world: World, kind: str) -> Path | None:
    """Return the folder of a world's judge of that kind, else of its CLIP, else None."""
    return world.judge_folder(kind) or world.judge_folder("clip")


def open_judge(folder: Path, *, kind: str, classes: tuple[str, ...] = ()) -> Judge:
    """Load a trained judge, or, if there are classes to choose among, a CLIP.

    Raises:
        ModelError: If the folder holds neither.
    """
    return ZeroShotJudge.load(folder, classes, template=TEMPLATES[kind]) if classes else ImageJudge.load(folder)


def own_class(judge: Judge, target: str) -> str:
    """Return the judge's spelling of the target.

    Raises:
        ModelError: If it has no such class.
    """
    found = find_class(judge, target)
    if found is None:
        near = did_you_mean(target, judge.classes)
        raise ModelError(f"{judge.name}: got {target!r}, which it cannot see.{near} Give another judge, or a CLIP")
    return found


def judge_sha256(folder: Path) -> str:
    """Return the hash of the weights in a judge's folder.

    Raises:
        ModelError: If there are none.
    """
    path = folder / "model.safetensors"
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{folder}: no judge there ({error.strerror}); give the folder of one") from error
