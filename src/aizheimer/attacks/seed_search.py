"""Ask for the concept again and again, with other noise each time: the attack that needs nothing but patience."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from aizheimer.attacks.base import AttackInfo, NotApplicable, Outcome, Progress, Subject
from aizheimer.backbones.families import FAMILIES
from aizheimer.evaluation.generate import PromptJob

FIRST_SEED = 10_000
"""Far from the seeds that anything else is drawn with."""


class SeedSearch(BaseModel):
    """Draw every prompt from further seeds until the judge sees the concept.

    Example:
        >>> SeedSearch(tries=5).tries
        5
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "seed-search"
    info: ClassVar[AttackInfo] = AttackInfo(
        paper="no paper: what any user can do",
        access="black box",
        changes="the seed",
        needs=("judge",),
        families=tuple(FAMILIES),
        near_words=True,
    )

    tries: int = Field(default=8, ge=1, description="Further seeds for each prompt.")

    def attack(self, subject: Subject, *, progress: Progress | None = None) -> Outcome:
        """Return for every prompt the first picture that shows the concept, or the last one drawn.

        Raises:
            NotApplicable: As a random control, which it is itself.
        """
        if subject.random:
            raise NotApplicable("seed-search: its seeds are random already")
        jobs = subject.jobs
        images = subject.draw(jobs)
        open_jobs, found_at, queries = list(range(len(jobs))), {}, 0
        for attempt in range(self.tries):
            again = [PromptJob(jobs[i].prompt, FIRST_SEED + jobs[i].seed * self.tries + attempt) for i in open_jobs]
            drawn = subject.draw(again)
            queries += len(again)
            images[open_jobs] = drawn
            seen = subject.shows(drawn)
            found_at |= {i: attempt + 1 for i, hit in zip(open_jobs, seen, strict=True) if hit}
            open_jobs = [i for i in open_jobs if i not in found_at]
            if progress is not None:
                progress(attempt + 1, self.tries)
            if not open_jobs:
                break
        return Outcome(
            images=images, queries=queries, details={"tries_to_success": [found_at.get(i) for i in range(len(jobs))]}
        )
