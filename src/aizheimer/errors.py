"""Everything that aizheimer raises on purpose.

    AizheimerError                  exit 1: it did not work
    ├── InputError                  exit 2: change what you typed
    │   ├── ConceptError            the words: empty, not in the prompt, kept and forgotten at once
    │   ├── RecipeError             method, recipe or parameter
    │   ├── SelectorError           layers or parameters that match nothing
    │   ├── ModelError              the model folder
    │   ├── DataError               the images
    │   ├── RunFolderError          the output folder
    │   └── EditError               a saved edit: corrupt, or made for another base
    ├── TrainingError               exit 1: lower what the message names
    ├── StorageError                exit 1: make room, then resume
    ├── ProcessError                exit 1: another process of the command is gone; start it again, with --resume
    ├── ToldError                   the main process's error, in the others, with its exit code
    ├── JudgeError                  exit 1: a judge failed on a picture, which never counts as "not found"
    ├── MissingDependencyError      exit 1: install what the message names
    └── GateError                   exit 3: the edit is there, a requested gate is not met

Every message is one line that says what was got, what was wanted and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class AizheimerError(Exception):
    """Base of all errors raised on purpose; ``exit_code`` is the command line's."""

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        """Return the message as one line, whatever was quoted in it."""
        return " ".join(super().__str__().split())


class InputError(AizheimerError):
    """Something the caller gave cannot be used."""

    exit_code: ClassVar[int] = 2


class ConceptError(InputError):
    """The concept's words cannot be used as given."""


class RecipeError(InputError):
    """An unknown method or recipe, or parameters that do not validate."""


class SelectorError(InputError):
    """A layer or parameter selection that is unknown or empty."""


class ModelError(InputError):
    """The model folder or id cannot be loaded as a supported pipeline."""


class DataError(InputError):
    """The concept's images cannot be read."""


class RunFolderError(InputError):
    """The output folder cannot be used as asked."""


class EditError(InputError):
    """A saved edit is corrupt, incomplete or made for another base."""


class TrainingError(AizheimerError):
    """Training had to stop; the last good state was kept."""


class StorageError(AizheimerError):
    """The disk refused a write; nothing is half-written."""


class ProcessError(AizheimerError):
    """Another process of the same command has ended; what was written so far is kept."""


class ToldError(AizheimerError):
    """The main process failed and told the others, who end with it and need not say it again."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


class JudgeError(AizheimerError):
    """A judge failed on a picture; counting that as "not found" would flatter the edit."""


class MissingDependencyError(AizheimerError):
    """An optional package is not installed."""


class GateError(AizheimerError):
    """A requested threshold is not met."""

    exit_code: ClassVar[int] = 3


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest of ``options``, or an empty string.

    Example:
        >>> did_you_mean("aizheimr", ["aizheimer", "esd"])
        " Did you mean 'aizheimer'?"
    """
    near = difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
