"""What every suite does on its way: check names against the judge, refuse repetitions, draw, and look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aizheimer._names import folded
from aizheimer.concepts.concept import Concept
from aizheimer.detectors.base import Judge, find_class, see
from aizheimer.errors import InputError, did_you_mean
from aizheimer.evaluation.evaluate import ImagePairs
from aizheimer.evaluation.functional.effective import LEFT_OUT, ineffective, ineffective_words
from aizheimer.evaluation.generate import StageProgress, jobs_in_turn, staged
from aizheimer.evaluation.plan import PlannedImage, Role
from aizheimer.evaluation.suite import Scene

Labels = list[str | None]


@dataclass(frozen=True)
class Seen:
    """What one judge saw in the pictures of a plan, without the edit and with it."""

    original: Labels
    edited: Labels

    def at(self, rows: Sequence[int]) -> Seen:
        """Return some rows."""
        return Seen([self.original[i] for i in rows], [self.edited[i] for i in rows])


@dataclass(frozen=True)
class Counted:
    """Which of the target's pictures UA counts.

    Attributes:
        rows: (n,) bool.
        table: The prompts on which the unedited model does not show the target, with the share of pictures that do.
        warnings: How many those are and whether they count.
        words: What UA's protocol says of it.
    """

    rows: np.ndarray
    table: list[dict[str, Any]]
    warnings: list[str]
    words: str

    @classmethod
    def of(cls, prompts: Sequence[str], gone: np.ndarray, *, effective_only: bool) -> Counted:
        """Find the prompts on which the unedited model shows the target.

        Args:
            prompts: (n,) of the target's pictures.
            gone: (n,) 1.0 where the unedited model's picture does not show it.
            effective_only: Count the pictures of those prompts alone.
        """
        failing = ineffective(prompts, 1 - gone)
        rows = np.array([not effective_only or prompt not in failing for prompt in prompts], dtype=bool)
        warnings = ineffective_words(len(failing), len(set(prompts)), left_out=effective_only)
        if not rows.any():
            warnings.append("not measured: UA, for the unedited model shows the target on none of its prompts")
        return cls(
            rows=rows,
            table=[{"prompt": prompt, "shown": share} for prompt, share in failing.items()],
            warnings=warnings,
            words=LEFT_OUT if effective_only else "",
        )


def same_name(name: str) -> str:
    """Return what two spellings of a name share: "Van_Gogh" and "van gogh" are one."""
    return folded(name.replace("_", " "))


def require_classes(judge: Judge, names: Sequence[str], *, suite: str) -> None:
    """Refuse a judge that could never give the right answer.

    Raises:
        InputError: With the names it lacks; the pictures are not drawn then.
    """
    known = {same_name(name) for name in judge.classes}
    lacking = [name for name in dict.fromkeys(names) if same_name(name) not in known]
    if lacking:
        shown = ", ".join(map(repr, lacking[:3])) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
        hint = did_you_mean(lacking[0], judge.classes)
        raise InputError(
            f"suite {suite}: {judge.name} has {len(judge.classes)} classes, none of them {shown};"
            f" give the judge that belongs to the suite.{hint}"
        )


def target_class(judge: Judge, concept: Concept, *, suite: str) -> str:
    """Return the judge's spelling of the target.

    Raises:
        InputError: If it has no such class.
    """
    require_classes(judge, [concept.target], suite=suite)
    found = find_class(judge, concept.target)
    wanted = same_name(concept.target)
    return found or next(name for name in judge.classes if same_name(name) == wanted)


def spelled_as(labels: Sequence[str | None], names: Sequence[str]) -> Labels:
    """Return a judge's answers in the spelling of ``names``; answers that are none of them stay."""
    spelling = {same_name(name): name for name in names}
    return [None if label is None else spelling.get(same_name(label), label) for label in labels]


def without_repetitions(values: Sequence[object], *, what: str, suite: str) -> None:
    """Refuse a list in which something stands twice: it would count twice.

    Raises:
        InputError: Naming what is repeated.
    """
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise InputError(f"suite {suite}: {what}: got {twice[0]!r} more than once; name each once")


def pictures(
    prompts: Sequence[str], concept: Concept, *, role: Role, count: int, seed: int
) -> list[PlannedImage]:  # fmt: skip
    """Return ``count`` pictures of prompts that ask for a concept: each prompt in turn, then the next seed."""
    names = {"style": concept.target} if concept.kind == "style" else {"object": concept.target}
    return [PlannedImage(role, job.prompt, job.seed, **names) for job in jobs_in_turn(prompts, count=count, seed=seed)]


def look(judge: Judge, pairs: ImagePairs) -> Seen:
    """Show all pictures to a judge."""
    return Seen(see(judge, pairs.original).labels, see(judge, pairs.edited).labels)


def draw(scene: Scene, plan: Sequence[PlannedImage], progress: StageProgress | None, *, stage: str) -> ImagePairs:
    """Draw a plan without the edit and with it, and tell how far it is."""
    return scene.pairs(plan, progress=staged(progress, stage))
