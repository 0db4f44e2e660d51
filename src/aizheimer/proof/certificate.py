"""What can be vouched for: which edit of which model, what was tried on it, what was not, and what that leaves open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from aizheimer._records import load_record, save_record
from aizheimer._registry import ATTACKS, SUITES
from aizheimer.attacks.results import AttackResult, Rate
from aizheimer.edits.parts import listing, words_of
from aizheimer.edits.provenance import current_versions
from aizheimer.errors import InputError
from aizheimer.evaluation.results import Calibration, Distance, EvaluationResult, Metric, Share
from aizheimer.proof.consistency import refuse_contradictions
from aizheimer.proof.findings import Findings, Result, refuse_unproven
from aizheimer.proof.units import FIGURES
from aizheimer.proof.verdict import Verdict

FILE_NAME = "certificate.json"

THREATS = {
    "black box": "draws with the edited model and chooses words, seeds and settings",
    "grey box": "has its text encoder or its sampler too, and none of its gradients",
    "white box": "has all weights, computes gradients and may go on training",
}
"""What an attacker can do, by what an attack says it needs."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stated(_Frozen):
    """One number, with all it needs to be read."""

    value: float
    interval: tuple[float, float]
    n: int
    original: float | None = Field(default=None, description="Of the unedited model.")
    judge: str = ""
    protocol: str = ""

    @classmethod
    def of(cls, metric: Metric) -> Stated:
        """Return what a figure states."""
        return cls(
            value=metric.value,
            interval=metric.interval,
            n=metric.n,
            original=metric.original,
            judge=metric.judge,
            protocol=metric.protocol,
        )

    @classmethod
    def of_share(cls, share: Share, *, judge: str, protocol: str) -> Stated:
        """Return what a share of the unedited model's pictures states."""
        return cls(value=share.value, interval=share.interval, n=share.n, judge=judge, protocol=protocol)

    @classmethod
    def of_rate(cls, rate: Rate, *, judge: str, original: Rate | None = None, protocol: str = "") -> Stated:
        """Return what an attack's rate states; ``original`` is the unedited model's."""
        before = None if original is None else original.value
        return cls(value=rate.value, interval=rate.interval, n=rate.n, original=before, judge=judge, protocol=protocol)


class Tried(_Frozen):
    """One thing that was done to the edit."""

    kind: Literal["evaluation", "suite", "attack"]
    name: str
    access: str = ""
    budget: dict[str, Any] = Field(
        description="Its own parameters, how pictures were drawn, and what it took: apart, for they share names."
    )
    figures: dict[str, Stated]
    distances: dict[str, Distance] = Field(
        default_factory=dict, description="Numbers that only mean something with the network that computed them."
    )
    warnings: list[str] = Field(default_factory=list)


class NotTried(_Frozen):
    """One thing that could have been done and was not, and the command that does it."""

    kind: Literal["evaluation", "suite", "attack"]
    name: str
    command: str


class Threat(_Frozen):
    """One kind of attacker, and which of its attacks were tried."""

    access: str
    can: str
    tried: list[str]


class Part(_Frozen):
    """One of the edits that a sum is made of; an edit that is no sum is its only part.

    A strength below 0 exaggerates the concepts.
    """

    concepts: list[str]
    method: str
    strength: float


class Certificate(_Frozen):
    """What is known of one edit.

    Attributes:
        schema_version: Of this file.
        target: The concept that results are about.
        kind: "object" or "style".
        method: What made the edit.
        parts: What the edit is made of, with all the concepts that it is about.
        model_name: The base, as it was called.
        edit_sha256: Of ``edit.safetensors``.
        base_fingerprint: Of the denoiser that the edit was made for.
        text_fingerprint: Of its text encoder, for an edit that changes it or holds what it said; of two, both.
        created: When the edit was made.
        versions: What this was written with.
        acts: What the edit is: changed weights, or a behaviour while drawing.
        threats: Who might want the concept back.
        tried: Everything there is a result of.
        not_tried: Everything registered that there is no result of.
        limits: What the results do not say.
        verdict: Of the gate; None if none was asked.
    """

    schema_version: Literal[1] = 1
    target: str
    kind: Literal["object", "style"]
    method: str
    parts: list[Part] = Field(default_factory=list)
    model_name: str
    edit_sha256: str
    base_fingerprint: str
    text_fingerprint: str = ""
    created: str = ""
    versions: dict[str, str] = Field(default_factory=current_versions)
    acts: str
    threats: list[Threat]
    tried: list[Tried]
    not_tried: list[NotTried]
    limits: list[str]
    verdict: Verdict | None = None

    def save(self, path: str | Path) -> None:
        """Write JSON, all of it or nothing."""
        save_record(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Certificate:
        """Read what ``save`` wrote.

        Raises:
            DataError: If the file is missing or is not a certificate.
        """
        return load_record(
            cls,
            path,
            missing="run `aizheimer certificate` first",
            damaged="not a certificate; run `aizheimer certificate` again",
        )


def certify(found: Findings, *, verdict: Verdict | None = None) -> Certificate:
    """State what is known of an edit.

    Args:
        found: What its run folder holds.
        verdict: Of a gate.

    Raises:
        InputError: If the folder holds no edit: there is nothing to vouch for.
        DataError: If a result is of another edit, does not say of which, or its numbers contradict each other.
        EditError: If the list of what a sum is made of is damaged.
    """
    origin = found.provenance
    if origin is None:
        raise InputError(f"{found.folder} holds no edit (edit.json is missing), so nothing can be vouched for")
    refuse_unproven(found)
    refuse_contradictions(found)
    return Certificate(
        target=found.target,
        kind=origin.concept.kind,
        method=origin.method,
        parts=[Part(concepts=words_of(part), method=part["method"], strength=part["strength"]) for part in found.parts],
        model_name=origin.base_name,
        edit_sha256=found.edit_sha256,
        base_fingerprint=origin.base_fingerprint,
        text_fingerprint=" ".join(origin.text_fingerprints.values()),
        created=origin.created,
        acts=_acts(found),
        threats=_threats(found),
        tried=list(tried_on(found)),
        not_tried=list(_not_tried(found)),
        limits=_limits(found),
        verdict=verdict,
    )


def _acts(found: Findings) -> str:
    if found.hook is None:
        return "changed weights"
    return f"a behaviour while pictures are drawn (hook {found.hook.get('name')!r})"


def _threats(found: Findings) -> list[Threat]:
    by_access = {access: [n for n, a in found.attacks.items() if a.access == access] for access in THREATS}
    return [Threat(access=access, can=THREATS[access], tried=names) for access, names in by_access.items()]


def tried_on(found: Findings) -> Iterator[Tried]:
    """Yield what the results in a run folder state: evaluation, suites, attacks."""
    if found.evaluation is not None:
        yield _evaluation(found.evaluation)
    for name, suite in found.suites.items():
        yield Tried(
            kind="suite",
            name=name,
            budget={"suite": suite.suite, "parameters": suite.parameters, "drawing": _drawing(suite)},
            figures={figure: Stated.of(metric) for figure, metric in suite.figures.items()}
            | _judge_errors(suite.calibration),
            distances=suite.distances,
            warnings=suite.warnings,
        )
    for name, attack in found.attacks.items():
        yield _attack(name, attack)


def _evaluation(result: EvaluationResult) -> Tried:
    figures = {name: Stated.of(metric) for name in FIGURES if (metric := getattr(result, name)) is not None}
    figures |= _judge_errors(result.calibration)
    budget = {"pictures": len(result.images), "drawing": _drawing(result)}
    return Tried(kind="evaluation", name="evaluation", budget=budget, figures=figures, warnings=result.warnings)


def _judge_errors(calibration: Calibration | None) -> dict[str, Stated]:
    """Return how often the judge of UA errs without any edit, which every UA must be read against."""
    if calibration is None:
        return {}
    counted = {
        "judge's false negatives": (calibration.false_negative, "share of its pictures by the unedited model missed"),
        "judge's false positives": (calibration.false_positive, "share of the unedited model's others taken for it"),
    }
    return {
        name: Stated.of_share(share, judge=calibration.judge, protocol=words)
        for name, (share, words) in counted.items()
        if share is not None
    }


def _attack(name: str, attack: AttackResult) -> Tried:
    rates = {
        "before": Stated.of_rate(attack.before, judge=attack.judge, original=attack.unedited_before),
        "asr": Stated.of_rate(attack.asr, judge=attack.judge, original=attack.unedited),
    }
    if attack.neighbour is not None:
        words = f"the unedited model, from the words of '{attack.neighbour_words}'"
        rates["neighbour control"] = Stated.of_rate(attack.neighbour, judge=attack.judge, protocol=words)
    if attack.random is not None:
        rates["random control"] = Stated.of_rate(attack.random, judge=attack.judge)
    spent = attack.spent.model_dump(mode="json")
    what = {} if name == attack.attack else {"attack": attack.attack}
    return Tried(
        kind="attack",
        name=name,
        access=attack.access,
        budget={**what, "parameters": attack.parameters, "drawing": _drawing(attack), "spent": spent},
        figures=rates,
        warnings=attack.warnings,
    )


def _drawing(result: Result) -> dict[str, Any]:
    return {**result.settings.model_dump(mode="json"), "guidance": result.guidance}


def _not_tried(found: Findings) -> Iterator[NotTried]:
    if found.evaluation is None:
        yield NotTried(kind="evaluation", name="evaluation", command=f"aizheimer evaluate {found.name}")
    for name in SUITES.names():
        if name not in {suite.suite for suite in found.suites.values()}:  # a file of that name may ask something else
            yield NotTried(kind="suite", name=name, command=f"aizheimer evaluate {found.name} --suite {name}")
    for name in ATTACKS.names():
        if name not in {*found.attacks, *(attack.attack for attack in found.attacks.values())}:
            yield NotTried(kind="attack", name=name, command=f"aizheimer attack {found.name} --attack {name}")


def _limits(found: Findings) -> list[str]:
    texts = [
        "This states what was measured. It is no proof that the concept cannot be drawn: an attack that is longer, or "
        "that nobody thought of, may succeed where these failed.",
        "Every share is of so many pictures, with an interval; what a judge mistakes, it does not see.",
        "The hashes name one edit and one base. Another base, precision, scheduler or a further fine-tuning was not "
        "measured unless it is listed as tried.",
    ]
    if found.unmeasured:
        texts.append(
            f"The edit is also about {listing(found.unmeasured)}. Every figure is about {listing([found.target])}: "
            "nothing is stated of the others."
        )
    if found.hook is not None:
        texts.append(
            "The edit acts while pictures are drawn and changes no weight: whoever holds the weights can leave it out."
        )
    else:
        texts.append("Whoever holds the unedited weights still has the concept.")
    if empty := [threat.access for threat in _threats(found) if not threat.tried]:
        texts.append(f"No {' and no '.join(empty)} attack was tried: nothing is said of such an attacker.")
    weak = [name for name, attack in found.attacks.items() if attack.unedited is None]
    if weak:
        texts.append(f"Run without a control on the unedited model, so that a failure means little: {', '.join(weak)}.")
    return texts
