"""What two runs must have in common before a number of one may stand beside a number of the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aizheimer._records import flat
from aizheimer.errors import InputError
from aizheimer.evaluation.distances import MUST_AGREE
from aizheimer.evaluation.judges import WEIGHTS
from aizheimer.evaluation.results import EvaluationResult, Metric
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.evaluation.suite import SuiteResult
from aizheimer.proof.findings import Findings, Result

SHOWN = 3
"""Differences named in an error."""

_DRAWN = ("steps", "seed", "precision", "effective_only", "level")
_SIZES = ("target_images", "neighbours", "neighbour_images", "others", "other_images")


def protocol_of(found: Findings) -> dict[str, Any]:
    """Return everything that decides what the numbers of a run mean, by dotted name.

    That is the target, the model and its weights, the pictures (prompts, seeds, steps, guidance, precision), who
    judged and with which weights, and of every suite and attack its parameters, which hold a feature extractor where
    there is one, and what is in the files that they name.
    ``batch_size`` and ``bootstrap`` are left out: they change no picture and no mean.
    """
    protocol: dict[str, Any] = {"target": found.target}
    if found.provenance is not None:
        protocol["base model's weights"] = found.provenance.base_fingerprint
    if found.evaluation is not None:
        protocol |= _of_evaluation(found.evaluation)
    for name, suite in found.suites.items():
        own = {"parameters": suite.parameters, **_of_settings(suite.settings), "guidance": suite.guidance}
        if suite.parameters.get("effective_only"):
            own["prompts left out"] = [row["prompt"] for row in suite.tables.get("ineffective", ())]
        own |= {"model": suite.model_name, **_judges(suite.figures), **_distances(suite), **_made_from(suite)}
        protocol |= {f"suite {name}: {key}": value for key, value in flat(own)}
    for name, attack in found.attacks.items():
        own = {"parameters": attack.parameters, "judge": attack.judge, "guidance": attack.guidance}
        own |= attack.settings.model_dump(exclude={"batch_size", "guidance"}) | _made_from(attack)
        protocol |= {f"attack {name}: {key}": value for key, value in flat(own)}
    return protocol


def refuse_mixed(runs: Sequence[Findings]) -> None:
    """Refuse runs whose numbers mean different things.

    What only one of two runs has (a suite that was not run on the other) is no difference: it is an empty cell.

    Args:
        runs: Two or more.

    Raises:
        InputError: One line that names what differs, and between which runs.
    """
    seen: dict[str, tuple[Findings, Any]] = {}
    for run in runs:
        own = protocol_of(run)
        for other in dict.fromkeys(other.folder for other, _ in seen.values()):
            values = {name: value for name, (found, value) in seen.items() if found.folder == other and name in own}
            if differing := [name for name, value in values.items() if own[name] != value]:
                raise InputError(_refusal(other, run.folder, {n: (values[n], own[n]) for n in differing}))
        seen = {name: (run, value) for name, value in own.items()} | seen


def weights_unsaid(runs: Sequence[Findings]) -> dict[Path, str]:
    """Return the runs whose files do not say which weights judged where another run's do, with a line that says so.

    Files of before the weights were written could not be compared with any other if they were refused for it.
    """
    says = [{file for file, result in run.files().items() if _says_weights(result)} for run in runs]
    told = set().union(*says)
    found = {}
    for run, own in zip(runs, says, strict=True):
        if silent := [file for file in run.files() if file in told - own]:
            files = " and ".join(silent)
            found[run.folder] = f"{files}: written by an older version, does not say which weights judged"
    return found


def _says_weights(result: Result) -> bool:
    return any(name.startswith(WEIGHTS) for name in result.made_from)


def _refusal(first: Path, second: Path, differing: Mapping[str, tuple[Any, Any]]) -> str:
    pairs = list(differing.items())[:SHOWN]
    named = "; ".join(f"{name} ({_short(a)} and {_short(b)})" for name, (a, b) in pairs)
    more = f"; and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
    return (
        f"{first} and {second} were not measured alike, so that their numbers must not stand in one table: "
        f"{named}{more}. Measure them alike, or leave the suite or attack out with --without."
    )


def _of_evaluation(result: EvaluationResult) -> dict[str, Any]:
    sizes = result.settings.model_dump(include=set(_SIZES))
    judges = _judges({name: metric for name in ("ua", "ira", "cra") if (metric := getattr(result, name)) is not None})
    own = {"model": result.model_name, "guidance": result.guidance, **_of_settings(result.settings), **sizes, **judges}
    own |= _made_from(result)
    if result.settings.effective_only:
        own["prompts left out"] = sorted(result.ineffective)
    return {**own, "prompts and seeds": [(image.role, image.prompt, image.seed) for image in result.images]}


def _of_settings(settings: EvaluationSettings) -> dict[str, Any]:
    return settings.model_dump(include=set(_DRAWN))


def _judges(figures: Mapping[str, Metric]) -> dict[str, str]:
    return {f"judge of {name}": metric.judge for name, metric in figures.items()}


def _made_from(result: Result) -> dict[str, str]:
    """Return all that a result was made from but the edit, which is what the runs may differ in."""
    return {name: value for name, value in result.made_from.items() if name != "edit"}


def _distances(suite: SuiteResult) -> dict[str, Any]:
    """Return what numbers such as FID depend on: extractor, weights, n, reference; not the numbers themselves."""
    return {name: distance.model_dump(include=set(MUST_AGREE)) for name, distance in suite.distances.items()}


def _short(value: Any) -> str:
    """Name a value in an error; a list of pictures is named by how many there are."""
    return f"{len(value)} pictures" if isinstance(value, list) and len(str(value)) > 40 else repr(value)
