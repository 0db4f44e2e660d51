"""Where a search keeps its trials, so that it can be stopped and taken up again."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from aizheimer._files import atomic, storage_errors
from aizheimer._imports import require
from aizheimer.errors import RunFolderError

Study: TypeAlias = Any
"""An ``optuna.study.Study``; Optuna is optional, so its types are not imported."""

SQLITE = {".db", ".sqlite", ".sqlite3"}
_ASKED = "asked"


def optuna() -> ModuleType:
    """Return Optuna, quiet.

    Raises:
        MissingDependencyError: It is not installed.
    """
    package = require("optuna", extra="tune")
    package.logging.set_verbosity(package.logging.WARNING)
    return package


def open_study(
    file: Path, *, name: str, asked: Mapping[str, Any], resume: bool, seed: int, at_once: bool = False
) -> Study:
    """Return the search that a file keeps, or a new one in it.

    Args:
        file: A journal (one JSON record a line); SQLite if its name ends in .db, .sqlite or .sqlite3.
        name: The search's name in the file, which may hold several.
        asked: What the search is for; one that is taken up again must be for the same.
        resume: Take up the search that is there.
        seed: Of the sampler. The trials that are there already are counted in, so that none is repeated.
        at_once: Whether points are asked for while others are measured: the sampler then keeps away from those.

    Raises:
        RunFolderError: The file is something else, holds a search of that name and ``resume`` is off, or one that was
            for something else.
        StorageError: The disk is full.
    """
    package = optuna()
    with storage_errors(file):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            storage = _storage(file)
            there = {study.study_name for study in storage.get_all_studies()}
        except Exception as error:  # two libraries, and as many errors as a damaged file has bytes
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RunFolderError(f"{file} is no file of a search ({reason}); name another with --storage") from error
        if name in there and not resume:
            raise RunFolderError(f"{file} holds a search of {name} already; add --resume, or name another --storage")
        study = package.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
        before = study.user_attrs.get(_ASKED)
        if before is None:
            study.set_user_attr(_ASKED, dict(asked))
        elif changed := [key for key, value in asked.items() if before.get(key) != value]:
            raise RunFolderError(
                f"{file}: the search of {name} was for something else ({', '.join(changed)}); "
                "resume it with the same, or name another --storage"
            )
    states = package.trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
        study.tell(trial.number, state=states.FAIL)  # it was interrupted: nobody is measuring it
    seed += len(study.trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", package.exceptions.ExperimentalWarning)  # of constant_liar
        study.sampler = package.samplers.TPESampler(seed=seed, n_startup_trials=4, constant_liar=at_once)
    return study


def _storage(file: Path) -> Any:
    package = optuna()
    if file.suffix in SQLITE:
        return package.storages.RDBStorage(f"sqlite:///{file.resolve()}")
    if file.is_file():
        _repair(file)
    return package.storages.JournalStorage(package.storages.journal.JournalFileBackend(str(file)))


def _repair(file: Path) -> None:
    """Take off a last line that was torn when the search was killed: the journal's reader refuses it."""
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with atomic(file) as temporary:
            temporary.write_bytes(whole)
