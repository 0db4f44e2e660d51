"""A model card for an edit that is given to others, as the Hugging Face hub reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from aizheimer._files import write_text
from aizheimer._records import flat
from aizheimer.attacks.results import AttackResult
from aizheimer.edits.parts import doing, exaggerated, forgotten, listing, named, told
from aizheimer.evaluation.suite import SuiteResult
from aizheimer.proof.certificate import NotTried, certify
from aizheimer.proof.findings import Findings
from aizheimer.proof.verdict import Verdict
from aizheimer.reports.attacks import notes, spent
from aizheimer.reports.table import markdown_table
from aizheimer.reports.wording import distance_interval, interval, judge_errors, measured_by, number, percent

_CELLS = str.maketrans({"|": "\\|", "\n": " ", "<": "&lt;", ">": "&gt;", "`": "'"})
"""What would end a cell, or be read as markup, where words came from outside."""


def model_card(
    found: Findings, *, licence: str = "", verdict: Verdict | None = None, base: str = "", repository: str = ""
) -> str:
    """Return the card as markdown with the hub's metadata at its head.

    It says what the edit forgets, how to use it, what was measured with its intervals, what attacks brought back, what
    was not tried and what the numbers do not say.

    Args:
        found: What the run folder holds.
        licence: Of the base, as the hub names it: ``"openrail"``, ``"mit"``; an edit is under its base's. Where it is
            not given the card says that it is not stated.
        verdict: What a gate said of the edit; where there is none the card says that.
        base: The base's id on the hub; "" for any other, which nobody else can load by its name.
        repository: Where the edit can be pulled from, ``"owner/name"``; "" if it is not on the hub.

    Raises:
        InputError: If the folder holds no edit.
    """
    stated = certify(found)
    parts = [
        f"# {_text(_title(found))}\n",
        f"An edit that makes a text-to-image model {_text(doing(found.parts))}, made with the method "
        f"{_text(stated.method)} of aizheimer on {_text(stated.model_name) or 'a model without a name'}. It is "
        f"{_text(stated.acts)}.\n",
        *_made_of(found),
        *_usage(base, repository),
        *_evaluation(found),
        *_suites(found.suites),
        *_attacks(found.attacks),
        *_gate(verdict),
        "## What was not tried\n",
        *([f"- {_called(item)}" for item in stated.not_tried] or ["Everything that this version knows."]),
        "\n## What this does not say\n",
        *(f"- {limit}" for limit in stated.limits),
        "\n## Provenance\n",
        f"- edit, SHA-256: `{stated.edit_sha256}`",
        f"- base, hash of the denoiser: `{stated.base_fingerprint}`",
        *([f"- base, hash of the text encoder: `{stated.text_fingerprint}`"] if stated.text_fingerprint else []),
        f"- made: {stated.created}",
        f"- licence of the base: {_text(licence) or 'not stated'}; an edit is under the licence of its base",
    ]
    return (
        f"---\n{yaml.safe_dump(_metadata(found, licence, base), sort_keys=False, allow_unicode=True)}---\n\n"
        + "\n".join(parts)
        + "\n"
    )


def write_model_card(
    path: Path,
    found: Findings,
    *,
    licence: str = "",
    verdict: Verdict | None = None,
    base: str = "",
    repository: str = "",
) -> Path:
    """Write the card, all of it or nothing; arguments as of `model_card`."""
    write_text(path, model_card(found, licence=licence, verdict=verdict, base=base, repository=repository))
    return path


def _metadata(found: Findings, licence: str, base: str) -> dict[str, Any]:
    """Return what the hub files the card under; results only where they were measured."""
    metadata: dict[str, Any] = {
        "library_name": "aizheimer",
        "pipeline_tag": "text-to-image",
        "tags": ["concept-unlearning", "diffusion", found.method],
        **({"license": licence} if licence else {}),
        **({"base_model": base} if base else {}),
    }
    metrics = _metrics(found)
    if not metrics:
        return metadata
    # Attacks alone do not name the world whose prompts they asked: the edit's base does.
    model = found.evaluation.model_name if found.evaluation is not None else _base_name(found)
    dataset = {"type": model, "name": f"prompts of {model}"}
    task = {"type": "text-to-image"}
    metadata["model-index"] = [
        {"name": found.name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}
    ]
    return metadata


def _metrics(found: Findings) -> list[dict[str, Any]]:
    """Return the figures that the hub shows: of the evaluation, and of every attack, which may have been run alone."""
    result = found.evaluation
    metrics = [
        {"type": name, "name": name.upper(), "value": round(metric.value, 4)}
        for name in ("ua", "ira", "cra")
        if result is not None and (metric := getattr(result, name)) is not None
    ]
    return metrics + [
        {"type": "asr", "name": f"ASR {name}", "value": round(attack.asr.value, 4)}
        for name, attack in found.attacks.items()
    ]


def _base_name(found: Findings) -> str:
    name = found.provenance.base_name if found.provenance is not None else ""
    return name or "a model without a name"


def _called(item: NotTried) -> str:
    """Return what was not tried in words; an evaluation has no other name."""
    return item.kind if item.name == item.kind else f"{item.kind} {item.name}"


def _title(found: Findings) -> str:
    words = {"forgotten": forgotten(found.parts), "exaggerated": exaggerated(found.parts)}
    return ", ".join(f"{listing(about)} {done}" for done, about in words.items() if about) or "Nothing forgotten"


def _made_of(found: Findings) -> Iterator[str]:
    """List the parts of a sum, and of an edit that is about several concepts or not at strength 1."""
    if len(found.parts) == 1 and not found.unmeasured and found.parts[0]["strength"] == 1:
        return
    yield "## What it is made of\n"
    yield from (f"- {told(part)} {_text(named(part))}" for part in found.parts)
    if not found.parts:
        yield "- nothing: every part was taken away"
    yield ""


def _usage(base: str, repository: str) -> Iterator[str]:
    """Say how to get the edit and draw with it, in words that work on any machine."""
    pull = f"aizheimer pull {repository or 'OWNER/NAME'} --out edit"
    loaded = base or "PATH OR ID OF THE BASE"
    yield "## Use\n"
    yield f"```console\n$ pip install aizheimer\n$ {pull}\n```\n"
    yield "```python\nimport aizheimer\n"
    yield f'backbone = aizheimer.load_model("{loaded}")\nedit = aizheimer.load_edit("edit")'
    yield 'with edit.applied(backbone.pipe):\n    image = backbone.pipe("a prompt").images[0]\n```\n'


def _evaluation(found: Findings) -> Iterator[str]:
    result = found.evaluation
    yield "## What was measured\n"
    if result is None:
        yield "Nothing: the edit was not evaluated.\n"
        return
    count, steps = len(result.images), result.settings.steps
    yield f"{count} pictures by each model with the same prompts and seeds, {steps} steps.\n"
    yield markdown_table(result)
    yield from (f"- {_text(warning)}" for warning in result.warnings)


def _suites(suites: Mapping[str, SuiteResult]) -> Iterator[str]:
    for name, suite in suites.items():
        yield f"### {_text(name)}\n"
        yield "| | edited | interval | unedited | of |\n|---|---:|---:|---:|---:|"
        for figure, metric in suite.figures.items():
            cells = percent(metric.value), interval(metric), percent(metric.original), f"{metric.n} {metric.unit}"
            yield f"| {_text(figure)} | {' | '.join(cells)} |"
        for _, name, share in judge_errors(suite.calibration):
            yield f"| {name} | | {interval(share)} | {percent(share.value)} | {share.n} images |"
        for name, found in suite.distances.items():
            cells = number(found.value), distance_interval(found), number(found.original), f"{found.n} images"
            yield f"| {_text(name)} | {' | '.join(cells)} |"
        yield ""
        yield from (
            f"- {_text(name)}: a distance {_text(measured_by(found))}" for name, found in suite.distances.items()
        )
        yield from (f"- {_text(warning)}" for warning in suite.warnings)


def _attacks(attacks: Mapping[str, AttackResult]) -> Iterator[str]:
    if not attacks:
        return
    yield "## Attempts to bring it back\n"
    yield "The share of pictures that show the target: without the attack, and with it or without (ASR).\n"
    headings = "before | ASR | interval | on the unedited model | there, from a neighbour | random words | of"
    yield f"| attack | access | {headings} | took |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|---|"
    for name, attack in attacks.items():
        control = "not run" if attack.unedited is None else percent(attack.unedited.value)
        near = (
            "" if attack.neighbour is None else f"{percent(attack.neighbour.value)} ({_text(attack.neighbour_words)})"
        )
        random = "" if attack.random is None else percent(attack.random.value)
        rates = percent(attack.before.value), percent(attack.asr.value), interval(attack.asr), control, near, random
        yield f"| {_text(name)} | {attack.access} | {' | '.join(rates)} | {attack.asr.n} | {spent(attack)} |"
    yield ""
    for name, attack in attacks.items():
        budget = ", ".join(f"{key} {value}" for key, value in flat(attack.parameters) if value is not None)
        yield f"- {_text(name)}: budget {_text(budget) or 'none'}"
        yield from (f"- {_text(name)}: {_text(warning)}" for warning in attack.warnings)
    yield from (f"- {_text(line)}" for line in notes(list(attacks.values())))


def _gate(verdict: Verdict | None) -> Iterator[str]:
    """Say which gate the edit was held against, and every line of it."""
    if verdict is None:
        yield "## Gate\n"
        yield "The edit was not held against a gate: nobody has said what would be enough.\n"
        return
    yield f"## Gate “{_text(verdict.gate_name)}”: {'passed' if verdict.passed else 'NOT passed'}\n"
    for line in verdict.lines:
        yield f"- {'holds' if line.passed else 'fails'}: {_text(line.text)}"
    yield ""


def _text(words: str) -> str:
    return words.translate(_CELLS)
