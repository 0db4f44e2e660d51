"""The one place that decides whether an attack's result is there already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aizheimer.attacks.base import Attack, Controls, Subject
from aizheimer.attacks.results import AttackResult
from aizheimer.detectors.weights import weights_of
from aizheimer.evaluation.judges import WEIGHTS
from aizheimer.evaluation.reuse import Say, contents_of, digest_of, found_before


def asked_of(attack: Attack, subject: Subject) -> dict[str, Any]:
    """Return what decides an attack's rates, by field of its result and as JSON values."""
    # An edit's digest names its base too, and hashing a large base takes seconds.
    base = {"base": subject.backbone.fingerprint()} if subject.edit is None else {}
    weights = weights_of(subject.judge)  # only a judge of the caller's own may tell none
    return {
        "attack": attack.name,
        "parameters": attack.model_dump(mode="json"),
        "target": subject.concept.target,
        "kind": subject.concept.kind,
        "edit": "" if subject.edit is None else subject.edit.digest,
        "judge": subject.judge.name,
        "settings": subject.settings.model_dump(mode="json"),
        "guidance": subject.guidance,
        "made_from": {
            **base,
            "classes of the judge": digest_of(list(subject.judge.classes)),
            **({f"{WEIGHTS}judge": weights} if weights else {}),
            **contents_of(attack.model_dump()),
        },
    }


def finished(file: Path, attack: Attack, *, subject: Subject, controls: Controls, say: Say) -> AttackResult | None:
    """Return the result that is there already, if this very attack on this very edit made it.

    Args:
        file: Where it is kept.
        attack: With its parameters; files and folders that they name must hold what they held then.
        subject: The model, the edit, the judge and how pictures are drawn.
        controls: Which controls must be there too.
        say: Told in one line why it is measured again, if it is.
    """

    def lacks(found: AttackResult) -> str:
        if controls and found.unedited is None:
            return "it was made without its controls"
        return "it was made without its random control" if controls is True and found.controls != controls else ""

    return found_before(file, AttackResult.load, asked=lambda: asked_of(attack, subject), say=say, lacks=lacks)
