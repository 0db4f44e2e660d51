"""All that was found about one edit: the files of its run folder, read and checked against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pydantic import ValidationError

from aizheimer._records import parse_json
from aizheimer.attacks.results import AttackResult
from aizheimer.edits.io import load_edit
from aizheimer.edits.parts import exaggerated, forgotten, recorded_parts
from aizheimer.edits.provenance import Provenance
from aizheimer.edits.storage import RECORD
from aizheimer.errors import DataError, RunFolderError
from aizheimer.evaluation.results import EvaluationResult
from aizheimer.evaluation.suite import SuiteResult

EVALUATION = "evaluation.json"
SUITE, ATTACK = "suite-", "attack-"


Result: TypeAlias = EvaluationResult | SuiteResult | AttackResult
T = TypeVar("T", bound=Result)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a run folder says of its edit; what was not measured is None or not there.

    Args:
        folder: The run folder.
        provenance: Where the edit comes from; None in a folder without an edit.
        edit_sha256: Hash of ``edit.safetensors``, as ``edit.json`` states it.
        hook: What acts while pictures are drawn, ``{"name": ..., "settings": ...}``; None for changes of weights.
        evaluation: UA, IRA, CRA and flags.
        suites: By the name of the file: ``suite-<name>.json``.
        attacks: The same of ``attack-<name>.json``.
    """

    folder: Path
    provenance: Provenance | None = None
    edit_sha256: str = ""
    hook: Mapping[str, Any] | None = None
    evaluation: EvaluationResult | None = None
    suites: Mapping[str, SuiteResult] = field(default_factory=dict)
    attacks: Mapping[str, AttackResult] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the run is called: its folder."""
        return self.folder.resolve().name

    @property
    def target(self) -> str:
        """The concept, by the edit or by whatever was measured."""
        if self.provenance is not None:
            return self.provenance.concept.target
        return next((result.target for result in self.files().values()), "")

    @cached_property
    def parts(self) -> list[dict[str, Any]]:
        """What the edit is recorded to be made of, see `recorded_parts`; nothing in a folder without an edit.

        Raises:
            EditError: If a sum's list is damaged.
        """
        return recorded_parts(self.provenance) if self.provenance is not None else []

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """The other concepts that the edit forgets or exaggerates: every result in the folder is about the target."""
        own = self.target.strip().casefold()
        words = dict.fromkeys((*forgotten(self.parts), *exaggerated(self.parts)))
        return tuple(word for word in words if word.strip().casefold() != own)

    @property
    def method(self) -> str:
        """What made the edit, "" if that is not known."""
        return self.provenance.method if self.provenance is not None else ""

    @cached_property
    def edit(self) -> str | None:
        """`Edit.digest` of what the folder holds; of one without an edit, what its evaluation names.

        Raises:
            EditError: If the edit's files are damaged.
        """
        if self.provenance is not None:
            return load_edit(self.folder).digest
        return self.evaluation.edit if self.evaluation is not None else None

    def files(self) -> dict[str, Result]:
        """Return every result by the name of its file."""
        return {
            **({EVALUATION: self.evaluation} if self.evaluation is not None else {}),
            **{f"{SUITE}{name}.json": suite for name, suite in self.suites.items()},
            **{f"{ATTACK}{name}.json": attack for name, attack in self.attacks.items()},
        }


def read_findings(folder: str | Path) -> Findings:
    """Read everything that a run folder holds about its edit.

    Args:
        folder: As written by ``aizheimer forget``, then ``evaluate`` and ``attack``. A folder without an edit is
            accepted if it holds an evaluation.

    Returns:
        The findings; files that are not there are left out.

    Raises:
        RunFolderError: If there is neither an edit nor an evaluation.
        DataError: If a file is damaged, or was measured for another target than the edit's: it is of an older run.
            Whether it is of this very edit is left to `refuse_other_edits`, which must read the tensors.
    """
    folder = Path(folder)
    evaluation = EvaluationResult.load(folder / EVALUATION) if (folder / EVALUATION).is_file() else None
    if not (folder / RECORD).is_file() and evaluation is None:
        raise RunFolderError(f"{folder} holds neither an edit nor an evaluation; give the folder of a finished run")
    provenance, sha256, hook = _read_record(folder / RECORD) if (folder / RECORD).is_file() else (None, "", None)
    found = Findings(
        folder=folder,
        provenance=provenance,
        edit_sha256=sha256,
        hook=hook,
        evaluation=evaluation,
        suites=_read_all(folder, SUITE, SuiteResult.load),
        attacks=_read_all(folder, ATTACK, AttackResult.load),
    )
    _check_targets(found)
    return found


def _read_all(folder: Path, prefix: str, load: Callable[[Path], T]) -> dict[str, T]:
    files = sorted(folder.glob(f"{prefix}*.json"), key=lambda path: path.stem)  # "relearn" before "relearn-full"
    return {path.stem.removeprefix(prefix): load(path) for path in files}


def _read_record(path: Path) -> tuple[Provenance, str, Mapping[str, Any] | None]:
    """Read the record alone: the tensors may be large, and only ``verify`` must look at them."""
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
        return Provenance.model_validate(record["provenance"]), str(record["sha256"]), record.get("hook")
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise DataError(f"{path} is damaged; make the edit again") from error


def _check_targets(found: Findings) -> None:
    for file, result in found.files().items():
        if result.target.strip().casefold() != found.target.strip().casefold():
            raise DataError(
                f"{found.folder / file} was measured for '{result.target}', the run is about '{found.target}'; "
                "measure again, or delete the file"
            )


def measured_edit(result: Result) -> str | None:
    """Return the digest of the edit that a result is of; empty for the unedited model, None if its file is too old."""
    if isinstance(result, SuiteResult):
        return result.made_from.get("edit", "") if result.made_from else None
    return result.edit


def refuse_other_edits(found: Findings) -> None:
    """Refuse results of another edit than the folder's, which has the same target and may be anything else.

    Raises:
        DataError: If a file names another edit; what does not say which is let through.
        EditError: If the edit's files are damaged.
    """
    stated = {file: name for file, result in found.files().items() if (name := measured_edit(result)) is not None}
    for file, name in stated.items():
        if found.edit is not None and name != found.edit:
            raise DataError(
                f"{found.folder / file} was measured on {f'edit {name}' if name else 'the unedited model'}, "
                f"the run holds edit {found.edit}; measure again, or delete the file"
            )


def refuse_unproven(found: Findings) -> None:
    """Refuse results that are not known to be of the folder's edit: nothing can be vouched for by them.

    Raises:
        DataError: If a file names another edit, or does not say which.
        EditError: If the edit's files are damaged.
    """
    for file, result in found.files().items():
        if measured_edit(result) is None:
            raise DataError(
                f"{found.folder / file} does not say which edit was measured: it was written by an older version; "
                "evaluate again, or delete the file"
            )
    refuse_other_edits(found)
