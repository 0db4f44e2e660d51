"""Does it still hold: hashes, figures, the certificate, and a sample of the pictures drawn again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aizheimer._records import flat
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.fingerprints import module_fingerprint
from aizheimer.detectors.base import see
from aizheimer.edits.apply import NAMES
from aizheimer.edits.io import load_edit
from aizheimer.edits.provenance import Provenance
from aizheimer.edits.storage import TENSORS
from aizheimer.errors import InputError
from aizheimer.evaluation.evaluate import ImagePairs, draw_pairs
from aizheimer.evaluation.judges import WEIGHTS, Judges
from aizheimer.evaluation.results import EvaluationResult, ImageRecord
from aizheimer.proof.certificate import Certificate, tried_on
from aizheimer.proof.check import check
from aizheimer.proof.consistency import contradictions
from aizheimer.proof.findings import Findings, measured_edit
from aizheimer.proof.redrawn_attacks import drawn_again
from aizheimer.proof.units import FIGURES, units_of
from aizheimer.proof.verdict import Verdict

SHOWN = 3
"""Differences named in a line."""


@dataclass(frozen=True, kw_only=True)
class VerifiedLine:
    """One thing that was checked.

    Args:
        name: What it is.
        stated: What the run folder says.
        found: What was found now.
        passed: Whether both agree.
    """

    name: str
    stated: str
    found: str
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a run folder states, and whether it is so.

    Args:
        lines: Everything that was checked.
        sample: What was drawn again, in words.
    """

    lines: Sequence[VerifiedLine]
    sample: str

    @property
    def passed(self) -> bool:
        """Whether everything agrees."""
        return all(line.passed for line in self.lines)

    @property
    def summary(self) -> str:
        """One line: what does not agree."""
        failed = [f"{line.name}: stated {line.stated}, found {line.found}" for line in self.lines if not line.passed]
        return f"{len(failed)} of {len(self.lines)} do not agree: {'; '.join(failed)}" if failed else "all agree"


def verify(
    found: Findings,
    *,
    backbone: Backbone,
    judges: Judges,
    certificate: Certificate | None = None,
    samples: int = 12,
    tolerance: float = 0.1,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Check a run folder against its edit, its base, its own pictures and its certificate.

    The sample is drawn again without the cache, with the edit and without, and shown to the judges again; so is one of
    the pictures that each attack started from. Suites and attacks are not run again. Kernels of
    another machine may move a pixel by a level or two and a judge's answer with it, hence the tolerance.

    Args:
        found: The run folder's files.
        backbone: The base model.
        judges: Who looks again.
        certificate: What was stated, if it was.
        samples: Pictures to draw again, about as many of each role as the evaluation has.
        tolerance: Greatest share of the sample in which an answer may differ.
        seed: Of the choice of the sample.
        progress: Called with (pictures done, pictures in all).

    Raises:
        InputError: As of `verifiable`.
    """
    origin, result = verifiable(found)
    hashes = _hashes(found, backbone, certificate)
    if all(line.passed for line in hashes):
        hashes += _edits(found)
    same = all(line.passed for line in hashes)
    consistent = _consistent(found)
    lines = [*hashes, *_figures(result), *consistent]
    if certificate is not None:
        lines += _certified(found, certificate)
        # No gate looks at what is not of this edit, or contradicts itself.
        if certificate.verdict is not None and same and all(line.passed for line in consistent):
            lines.append(_judged_again(found, certificate.verdict))
    if not same:
        return Verification(lines=lines, sample="nothing was drawn again: this is another edit or another base")
    edit = load_edit(found.folder)
    chosen = sample_of(result.images, samples=samples, seed=seed)
    stated = [result.images[i] for i in chosen]
    pairs = draw_pairs(
        backbone.pipe, edit, plan=stated, settings=result.settings, guidance=result.guidance,
        cache_dir=False, progress=progress,
    )  # fmt: skip
    lines += [*_judges(result, judges), *_seen_again(stated, pairs, judges=judges, tolerance=tolerance)]
    again = drawn_again(
        found.attacks, backbone=backbone, edit=edit, concept=origin.concept.to_concept(), judges=judges,
        samples=samples, seed=seed, progress=progress,
    )  # fmt: skip
    lines += [_agreement(name, before, now, tolerance=tolerance) for name, before, now in again]
    text = f"{len(chosen)} of {len(result.images)} pictures, of every role, chosen with seed {seed}, without the cache"
    return Verification(lines=lines, sample=text)


def verifiable(found: Findings) -> tuple[Provenance, EvaluationResult]:
    """Return where the edit comes from and its evaluation, both of which a check needs.

    Raises:
        InputError: If there is no edit or no evaluation to verify.
    """
    if found.provenance is None or found.evaluation is None:
        raise InputError(f"{found.folder} needs an edit and an evaluation to verify; run `aizheimer evaluate` first")
    return found.provenance, found.evaluation


def sample_of(images: Sequence[ImageRecord], *, samples: int, seed: int) -> list[int]:
    """Return which pictures to draw again: at random from each role, in proportion, at least one of each.

    Args:
        images: Of an evaluation.
        samples: About how many.
        seed: Of the choice.
    """
    rng = np.random.default_rng(seed)
    by_role: dict[str, list[int]] = {}
    for i, image in enumerate(images):
        by_role.setdefault(image.role, []).append(i)
    chosen: list[int] = []
    for rows in by_role.values():
        count = min(len(rows), max(1, round(samples * len(rows) / len(images))))
        chosen += rng.permutation(rows)[:count].tolist()
    return sorted(chosen)


def _hashes(found: Findings, backbone: Backbone, certificate: Certificate | None) -> list[VerifiedLine]:
    origin = found.provenance
    if origin is None:
        return []
    now = _sha256(found.folder / TENSORS)
    lines = [
        _same("edit.safetensors, SHA-256", found.edit_sha256[:16], now[:16]),
        _same("base model, hash of the denoiser", origin.base_fingerprint, backbone.fingerprint()),
    ]
    for part, known in origin.text_fingerprints.items():
        now_text = module_fingerprint(backbone.networks[part]) if part in backbone.networks else "none"  # type: ignore[index]
        lines.append(_same(f"base model, hash of the {NAMES[part]}", known, now_text))
    if certificate is not None:
        lines.append(_same("certificate's edit", certificate.edit_sha256[:16], now[:16]))
        lines.append(_same("certificate's base", certificate.base_fingerprint, origin.base_fingerprint))
    return lines


def _sha256(path: Path) -> str:
    if not path.is_file():
        return "no file"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _edits(found: Findings) -> list[VerifiedLine]:
    """Compare the edit that each result names with the one in the folder."""
    named = {file: measured_edit(result) for file, result in found.files().items()}
    return [
        _same(f"{file}, its edit", "none" if edit is None else edit, found.edit or "") for file, edit in named.items()
    ]


def _figures(result: EvaluationResult) -> list[VerifiedLine]:
    """Count every figure again from the judges' answers that were kept."""
    lines = []
    figures = {name: metric for name in FIGURES if (metric := getattr(result, name)) is not None}
    for name, metric in figures.items():
        units = units_of(result, name)
        again = "another value" if units is None else f"{float(units[1].mean()):.4f}"
        lines.append(_same(f"{name.upper()}, counted again", f"{metric.value:.4f}", again))
    return lines


def _consistent(found: Findings) -> list[VerifiedLine]:
    """Say of every file whether its numbers can be: inside their intervals, and what kept answers add up to."""
    wrong = {file: next(contradictions(result), "") for file, result in found.files().items()}
    return [
        VerifiedLine(name=f"{file}, its numbers", stated="no contradiction", found=reason or "none", passed=not reason)
        for file, reason in wrong.items()
    ]


def _judges(result: EvaluationResult, judges: Judges) -> list[VerifiedLine]:
    """Compare who judged with who looks again: the answers of two judges need not agree."""
    own, other = (judges.object, judges.style) if result.kind == "object" else (judges.style, judges.object)
    pairs = [("UA", result.ua, own), ("CRA", result.cra, other)]
    now = judges.made_from()
    weights = {name: stated for name, stated in result.made_from.items() if name.startswith(WEIGHTS)}
    return [
        _same(
            f"judge of {figure} (another is given with --judge or --clip)",
            metric.judge,
            judge.name if judge else "none",
        )
        for figure, metric, judge in pairs
        if metric is not None
    ] + [_same(name, stated, now.get(name, "none")) for name, stated in weights.items()]


def _seen_again(
    stated: Sequence[ImageRecord], pairs: ImagePairs, *, judges: Judges, tolerance: float
) -> list[VerifiedLine]:
    """Compare what was kept of pictures with the same pictures drawn again, and with what the judges see in those."""
    unchanged = [image.unchanged for image in stated]
    lines = [
        _agreement("pictures that the edit left unchanged", unchanged, list(pairs.unchanged()), tolerance=tolerance)
    ]
    for name in ("object", "style"):
        judge = getattr(judges, name)
        for side in ("original", "edited"):
            before = [getattr(image, f"{side}_{name}") for image in stated]
            if judge is None or not any(before):
                continue
            again = see(judge, getattr(pairs, side)).labels
            lines.append(_agreement(f"{name}s seen, {side} model", before, again, tolerance=tolerance))
    return lines


def _certified(found: Findings, certificate: Certificate) -> list[VerifiedLine]:
    """Compare all that a certificate states as tried with the files that it was written from."""
    stated, now = ({(t.kind, t.name): t for t in tried} for tried in (certificate.tried, tried_on(found)))
    lines = []
    for key in {**stated, **now}:
        name = f"certificate's {' '.join(dict.fromkeys(key))}"
        if key in stated and key in now:
            lines.append(_alike(name, *(tried[key].model_dump(mode="json") for tried in (stated, now))))
        else:
            lines.append(_same(name, "tried" if key in stated else "not tried", "a file" if key in now else "no file"))
    return lines


def _judged_again(found: Findings, stated: Verdict) -> VerifiedLine:
    """Hold the files against the gate again that a certificate names."""
    again = check(found, stated.gate, gate_name=stated.gate_name)
    # Reasons name commands with the folder, which may have another name by now.
    told = (
        {line.rule: f"{'holds' if line.passed else 'fails'} ({line.found})" for line in v.lines}
        for v in (stated, again)
    )
    return _alike("certificate's verdict", *told)


def _alike(name: str, stated: Mapping[str, Any], now: Mapping[str, Any]) -> VerifiedLine:
    """Return the line of two records, which names what differs."""
    before, after = dict(flat(stated)), dict(flat(now))
    differing = [key for key in {**before, **after} if before.get(key) != after.get(key)][:SHOWN]
    if not differing:
        return VerifiedLine(name=name, stated=f"{len(before)} entries", found="the same", passed=True)
    texts = (", ".join(f"{key} {side.get(key, 'missing')}" for key in differing) for side in (before, after))
    return VerifiedLine(name=name, stated=next(texts), found=next(texts), passed=False)


def _same(name: str, stated: str, now: str) -> VerifiedLine:
    return VerifiedLine(name=name, stated=stated, found=now, passed=stated == now)


def _agreement(name: str, stated: Sequence[object], now: Sequence[object], *, tolerance: float) -> VerifiedLine:
    alike = sum(a == b for a, b in zip(stated, now, strict=True))
    passed = len(stated) - alike <= tolerance * len(stated)
    return VerifiedLine(name=name, stated=f"{len(stated)} answers", found=f"{alike} the same", passed=passed)
