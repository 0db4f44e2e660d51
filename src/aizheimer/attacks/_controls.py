"""What gives an attack's rate a meaning: the same attack where it must succeed, and chance of the same size."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from aizheimer import _files
from aizheimer.attacks.base import Attack, Controls, NotApplicable, Subject
from aizheimer.attacks.results import Rate
from aizheimer.attacks.resume import asked_of
from aizheimer.evaluation.generate import StageProgress, staged
from aizheimer.evaluation.image_cache import default_cache_dir
from aizheimer.evaluation.reuse import digest_of


@contextlib.contextmanager
def edited(subject: Subject) -> Iterator[None]:
    """Put the subject's edit on the pipeline, if it has one."""
    if subject.edit is None:
        yield
        return
    with subject.edit.applied(subject.backbone.pipe):
        yield


def control_rates(
    attack: Attack, subject: Subject, *, controls: Controls, progress: StageProgress | None
) -> tuple[Rate | None, Rate | None]:
    """Return the attack's rate on the unedited model, unless that is the subject, and that of its random control.

    The first depends on no edit: it is measured once, kept in the cache, and found there by every edit that is attacked
    the same way after.
    """
    if not controls:
        return None, None
    unedited = None if subject.edit is None else _unedited(attack, subject, progress)
    if controls == "unedited":
        return unedited, None
    with edited(subject), contextlib.suppress(NotApplicable):
        return unedited, _rate(attack, dataclasses.replace(subject, random=True), "random", progress)
    return unedited, None


def _rate(attack: Attack, subject: Subject, name: str, progress: StageProgress | None) -> Rate:
    images = attack.attack(subject, progress=staged(progress, f"{attack.name}, {name}")).images
    return Rate.of(subject.shows(images), seed=subject.settings.seed)


def _unedited(attack: Attack, subject: Subject, progress: StageProgress | None) -> Rate:
    plain = dataclasses.replace(subject, edit=None)
    kept = default_cache_dir() / "controls" / f"{digest_of(asked_of(attack, plain))}.json"
    if (found := _read(kept)) is not None:
        return found
    rate = _rate(attack, plain, "unedited", progress)
    kept.parent.mkdir(parents=True, exist_ok=True)
    _files.write_json(kept, rate.model_dump(mode="json"))
    return rate


def _read(file: Path) -> Rate | None:
    """Return a rate that was kept; None if there is none or its file is damaged, so that it is measured again."""
    try:
        return Rate.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
