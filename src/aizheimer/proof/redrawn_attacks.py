"""The pictures that every attack starts from, drawn again: what the edited model shows without being attacked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from aizheimer.attacks.base import Subject
from aizheimer.attacks.results import Answers, AttackResult
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.concept import Concept
from aizheimer.detectors.base import find_class
from aizheimer.edits.edit import Edit
from aizheimer.evaluation.judges import Judges

Progress = Callable[[int, int], None]


def drawn_again(
    attacks: Mapping[str, AttackResult],
    *,
    backbone: Backbone,
    edit: Edit,
    concept: Concept,
    judges: Judges,
    samples: int,
    seed: int,
    progress: Progress | None = None,
) -> Iterator[tuple[str, Sequence[bool], Sequence[bool]]]:
    """Draw a sample of the pictures before each attack again, without the cache, and ask the judge again.

    Attacks that were run alike start from the same pictures, which are drawn once. The attacks themselves are not run
    again: that would take as long as the first time.

    Args:
        attacks: By name; those of before answers were kept, and those that another judge scored, are left out.
        backbone: The base model.
        edit: What was attacked.
        concept: The target.
        judges: Who looks again.
        samples: Pictures of each attack.
        seed: Of the choice.
        progress: Called with (pictures done, pictures in all) of each drawing.

    Yields:
        What it is, the answers that were kept, and those of now.
    """
    judge = getattr(judges, concept.kind)
    if judge is None or find_class(judge, concept.target) is None:
        return
    seen: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, attack in attacks.items():
        if attack.answers is None or attack.judge != judge.name:
            continue
        settings = attack.settings.model_copy(update={"guidance": attack.guidance})
        chosen = np.sort(np.random.default_rng(seed).permutation(settings.images)[:samples])
        key = settings.model_dump_json(exclude={"batch_size"})
        if key not in seen:
            subject = Subject(backbone=backbone, edit=edit, concept=concept, judge=judge, settings=settings)
            seen[key] = _looked_at(subject, chosen, progress)
        for title, kept, now in zip(("edited", "unedited"), _sides(attack.answers), seen[key], strict=True):
            if kept is not None:
                yield f"target seen before {name}, {title} model", [kept[i] for i in chosen], now.tolist()


def _sides(answers: Answers) -> tuple[list[bool], list[bool] | None]:
    return answers.before, answers.original


def _looked_at(subject: Subject, chosen: np.ndarray, progress: Progress | None) -> tuple[np.ndarray, np.ndarray]:
    """Return where the judge sees the target in pictures of the edited and of the unedited model."""
    jobs = [subject.jobs[i] for i in chosen]
    plain = subject.shows(subject.draw(jobs, progress=progress))
    if subject.edit is None:
        return plain, plain
    with subject.edit.applied(subject.backbone.pipe):
        return subject.shows(subject.draw(jobs, progress=progress)), plain
