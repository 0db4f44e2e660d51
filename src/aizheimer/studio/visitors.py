"""Who is at the page, and which files are theirs."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from aizheimer._names import dashed
from aizheimer.errors import InputError, RunFolderError

COOKIE = "aizheimer-visitor"
RUNS_EACH = 40
"""Edits that one visitor may keep."""
PICTURES_EACH = 400
"""Pictures that are kept of one visitor; older ones go."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,98}[a-z0-9])?")
_VISITORS = "visitors"


def new_token() -> str:
    """Return a visitor's secret: 256 random bits, as it stands in the cookie."""
    return secrets.token_urlsafe(32)


def is_token(text: str | None) -> bool:
    """Whether a text can be a visitor's secret.

    Example:
        >>> is_token(new_token()), is_token("../../etc"), is_token(None)
        (True, False, False)
    """
    return text is not None and _TOKEN.fullmatch(text) is not None


@dataclass(frozen=True)
class Visitor:
    """One browser, and the folder that holds what is its own.

    Args:
        id: Names it on the server: the hash of its secret, so that who can list the folders cannot be anybody.
        folder: Where its files are.
    """

    id: str
    folder: Path

    @classmethod
    def of(cls, token: str | None, *, root: Path) -> Visitor:
        """Return the visitor of a secret; nothing is written yet.

        Raises:
            InputError: It is no secret of ours, as when the browser takes no cookies.
        """
        if token is None or not is_token(token):
            raise InputError("the browser sent no visitor's cookie; allow cookies for this page and load it again.")
        name = hashlib.sha256(token.encode()).hexdigest()[:32]
        return cls(name, root.resolve() / _VISITORS / name)

    @property
    def runs(self) -> Path:
        """Where the edits are, a run folder each."""
        return self.folder / "runs"

    def names(self) -> list[str]:
        """Return the names of the edits, the newest first."""
        found = [file.parent for file in self.runs.glob("*/edit.json")]
        return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]

    def run(self, name: str) -> Path:
        """Return the run folder of an edit.

        Raises:
            InputError: There is none of that name.
        """
        path = inside(self.runs, name)
        if not (path / "edit.json").is_file():
            raise InputError(f"there is no edit '{name[:60]}'; choose one of the list.")
        return path

    def new_run(self, words: str) -> Path:
        """Return a folder for another run, which is not there yet.

        Args:
            words: What it is about; its name is made of them.

        Raises:
            InputError: There are too many.
        """
        if self.runs.is_dir() and len(list(self.runs.iterdir())) >= RUNS_EACH:
            raise InputError(f"you keep {RUNS_EACH} edits already; delete one first.")
        return self._new(self.runs, words)

    def new_file(self, folder: str, words: str, suffix: str = "") -> Path:
        """Return a file in one of the visitor's folders, which is not there yet; the folder is."""
        place = inside(self.folder, folder)
        place.mkdir(parents=True, exist_ok=True)
        return self._new(place, words, suffix)

    def new_picture(self) -> Path:
        """Return a picture's file, which is not there yet; makes room for it."""
        place = self.folder / "pictures"
        place.mkdir(parents=True, exist_ok=True)
        files = sorted(place.glob("*.png"), key=lambda path: path.stat().st_mtime)
        for old in files[: max(0, len(files) - PICTURES_EACH + 1)]:
            old.unlink(missing_ok=True)
        return place / f"{secrets.token_hex(12)}.png"

    def file(self, folder: str, name: str) -> Path:
        """Return a file of the visitor's that is there.

        Raises:
            InputError: There is none.
        """
        path = inside(inside(self.folder, folder), name)
        if not path.is_file():
            raise InputError(f"there is no file '{name[:60]}'.")
        return path

    def owns(self, path: str | Path) -> bool:
        """Whether a path, links followed, is within the visitor's folder."""
        try:
            return Path(path).resolve().is_relative_to(self.folder.resolve())
        except (OSError, ValueError):  # a null byte, a loop of links
            return False

    def delete(self, name: str) -> None:
        """Delete an edit.

        Raises:
            InputError: There is none of that name.
        """
        shutil.rmtree(self.run(name))

    def _new(self, place: Path, words: str, suffix: str = "") -> Path:
        plain = dashed(words.encode("ascii", "ignore").decode())[:48].strip("-") or "concept"
        tries = (plain, *(f"{plain}-{number}" for number in range(2, 10_000)))
        return next(place / f"{name}{suffix}" for name in tries if not (place / f"{name}{suffix}").exists())


def inside(folder: Path, name: str) -> Path:
    """Return the place of a name in a folder.

    Raises:
        RunFolderError: The name is more than a name, or a link leads out of the folder.

    Example:
        >>> inside(Path("/srv/runs"), "../../etc/passwd")
        Traceback (most recent call last):
        aizheimer.errors.RunFolderError: ...
    """
    if _NAME.fullmatch(name) is None or ".." in name:
        raise RunFolderError(f"{name[:60]!r} is no name of a file; wanted small letters, digits, dots and dashes.")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RunFolderError(f"{name!r} leads out of its folder; delete the link.")
    return path
