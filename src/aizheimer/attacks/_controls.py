"""What gives an attack's rate a meaning: the same attack where it must succeed, where it must not, and chance."""

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
from aizheimer.evaluation.plan import nearest_candidates
from aizheimer.evaluation.reuse import digest_of


@contextlib.contextmanager
def edited(subject: Subject) -> Iterator[None]:
    """Put the subject's edit on the pipeline, if it has one."""
    if subject.edit is None:
        yield
        return
    with subject.edit.applied(subject.backbone.pipe):
        yield


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlRates:
    """What the controls of an attack reached; None where one was not run or means nothing.

    Args:
        unedited: The same attack on the unedited model.
        random: The same size of change, by chance.
        neighbour: The same attack on the unedited model from the words of the nearest other concept.
        neighbour_words: That concept; "" without this control.
    """

    unedited: Rate | None = None
    random: Rate | None = None
    neighbour: Rate | None = None
    neighbour_words: str = ""


def control_rates(
    attack: Attack, subject: Subject, *, controls: Controls, progress: StageProgress | None
) -> ControlRates:
    """Run an attack's controls.

    Those on the unedited model depend on no edit: they are measured once, kept in the cache, and found there by every
    edit that is attacked the same way after.
    """
    if not controls:
        return ControlRates()
    plain = dataclasses.replace(subject, edit=None)
    unedited = None if subject.edit is None else _kept(attack, plain, "unedited", progress)
    words = _nearest(plain) if attack.info.near_words else ""
    neighbour = _kept(attack, dataclasses.replace(plain, instead=words), words, progress) if words else None
    made = ControlRates(unedited=unedited, neighbour=neighbour, neighbour_words=words)
    if controls == "unedited":
        return made
    with edited(subject), contextlib.suppress(NotApplicable):
        random = _rate(attack, dataclasses.replace(subject, random=True), "random", progress)
        return dataclasses.replace(made, random=random)
    return made


def _nearest(plain: Subject) -> str:
    """Return the nearest other concept of the target's kind in the unedited model's eyes; "" if the world has none."""
    backbone = plain.backbone
    found = nearest_candidates(plain.concept, backbone.world, embed=backbone.embed_concepts, count=1)
    return found[0][0] if found else ""


def _rate(attack: Attack, subject: Subject, name: str, progress: StageProgress | None) -> Rate:
    images = attack.attack(subject, progress=staged(progress, f"{attack.name}, {name}")).images
    return Rate.of(subject.shows(images), seed=subject.settings.seed)


def _kept(attack: Attack, plain: Subject, name: str, progress: StageProgress | None) -> Rate:
    """Return a rate on the unedited model, from the cache if it is there."""
    asked = asked_of(attack, plain) | ({"instead": plain.instead} if plain.instead else {})
    kept = default_cache_dir() / "controls" / f"{digest_of(asked)}.json"
    if (found := _read(kept)) is not None:
        return found
    rate = _rate(attack, plain, name, progress)
    kept.parent.mkdir(parents=True, exist_ok=True)
    _files.write_json(kept, rate.model_dump(mode="json"))
    return rate


def _read(file: Path) -> Rate | None:
    """Return a rate that was kept; None if there is none or its file is damaged, so that it is measured again."""
    try:
        return Rate.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
