"""A folder that describes one run and survives being killed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aizheimer import _files
from aizheimer._processes import is_main, main_only, processes
from aizheimer.errors import RunFolderError

RUN_FILES = ("recipe.yaml", "edit.safetensors", "edit.json", "history.jsonl", "env.json", "checkpoint.safetensors")
"""Files that make a folder a run; ``create(overwrite=True)`` replaces these and what was found about the run."""

PARTS = "parts"
"""Folder in a run where the runs of its concepts are, if each was forgotten alone."""

_REPORTS = ("*.png", "*.html", "evaluation*.json", "suite-*.json", "attack-*.json", "certificate.json")
_REPLACED = ".replaced"
"""Where a run that is being replaced waits until it is clear that there will be another."""


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its recipe, checkpoint, history and result.

    Every file is replaced atomically; the history grows by one line per event and its last line may be torn by a
    crash, which `history` tolerates. Of several processes only the main one writes.

    Args:
        path: The folder. Nothing is touched before `create`.
        resuming: Whether training should continue from the checkpoint in it; set by ``create(resume=True)``.
        is_new: Whether `create` made the folder.

    Example:
        >>> import tempfile
        >>> run = RunFolder(Path(tempfile.mkdtemp()) / "santa").create()
        >>> run.append_history({"event": "step", "step": 1})
        >>> run.history()
        [{'event': 'step', 'step': 1}]
    """

    path: Path
    resuming: bool = False
    is_new: bool = False

    def __post_init__(self) -> None:
        """Accept a plain string for the path."""
        object.__setattr__(self, "path", Path(self.path))

    def create(self, *, overwrite: bool = False, resume: bool = False) -> RunFolder:
        """Make the folder ready to be written and return it.

        Args:
            overwrite: Replace the run that is there (only files that a run writes). It is kept aside until `keep` or
                `undo` says what becomes of it.
            resume: Continue the run that is there.

        Returns:
            The folder, with ``resuming`` set when ``resume`` was asked, and ``is_new`` when it was not there before.

        Raises:
            RunFolderError: If both flags are given, the path is a file or cannot be written, it holds a run and
                neither flag is given, it holds other files, or there is nothing to resume.
            ToldError: In other processes than the main one, if it was refused there.
        """
        made = processes().on_main(lambda: self._created(overwrite=overwrite, resume=resume))
        return replace(self, resuming=resume) if made is None else made

    def _created(self, *, overwrite: bool, resume: bool) -> RunFolder:
        if overwrite and resume:
            raise RunFolderError(f"{self.path}: got --overwrite and --resume together; choose one")
        try:
            is_file = self.path.exists() and not self.path.is_dir()
        except OSError as error:  # a name that is longer than the file system allows
            raise RunFolderError(f"cannot use {self.path}: {error.strerror}; choose another folder") from error
        if is_file:
            raise RunFolderError(f"{self.path} is a file; give a folder for the run")
        self._recover()
        if resume and not self.holds_run():
            raise RunFolderError(f"{self.path} holds no run to resume; start it without --resume")
        if not resume:
            self._clear(overwrite)
        is_new = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise RunFolderError(f"cannot create {self.path}: {error}; choose another folder") from error
        if not os.access(self.path, os.W_OK):
            raise RunFolderError(f"{self.path} cannot be written; choose another folder or change its permissions")
        for leftover in self.path.glob(f".*{_files.TEMPORARY_SUFFIX}"):
            leftover.unlink(missing_ok=True)
        return replace(self, resuming=resume, is_new=is_new)

    @main_only
    def keep(self) -> None:
        """Let the run that was replaced go: there is another one now."""
        shutil.rmtree(self.path / _REPLACED, ignore_errors=True)

    @main_only
    def undo(self) -> None:
        """Bring back what was here before `create`: the run that was replaced, or no folder at all."""
        if self.is_new:
            shutil.rmtree(self.path)
        elif not self.resuming:
            for path in self._run_files():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            self._recover()

    def holds_run(self) -> bool:
        """Return whether any file of a run is in the folder."""
        return any((self.path / name).exists() for name in RUN_FILES)

    def file(self, name: str) -> Path:
        """Return the path of ``name`` inside the folder."""
        return self.path / name

    @main_only
    def write_json(self, name: str, value: Any) -> None:
        """Write ``value`` to ``name`` as JSON, atomically."""
        _files.write_json(self.file(name), value)

    @main_only
    def write_yaml(self, name: str, value: Any) -> None:
        """Write ``value`` to ``name`` as YAML, atomically."""
        _files.write_yaml(self.file(name), value)

    @main_only
    def write_tensors(
        self, name: str, tensors: Mapping[str, Any], *, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write tensors to ``name`` as safetensors, atomically."""
        _files.write_tensors(self.file(name), tensors, metadata=metadata)

    @main_only
    def append_history(self, row: Mapping[str, Any]) -> None:
        """Append one event to ``history.jsonl``."""
        _files.append_line(self.file("history.jsonl"), json.dumps(dict(row), ensure_ascii=False))

    def history(self) -> list[dict[str, Any]]:
        """Return the events so far; a last line torn by a crash is left out."""
        path = self.file("history.jsonl")
        rows: list[dict[str, Any]] = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def rewind_history(self, step: int) -> list[dict[str, Any]]:
        """Drop the events after ``step`` (they will happen again) and return those that stay."""
        rows = [row for row in self.history() if row.get("step", 0) <= step]
        if is_main():
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            _files.write_text(self.file("history.jsonl"), lines)
        return rows

    def _clear(self, overwrite: bool) -> None:
        """Remove an old run when that was asked; refuse a folder in use otherwise."""
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        if not self.holds_run():
            raise RunFolderError(f"{self.path} is not empty and holds no run; choose a new or an empty folder")
        if not overwrite:
            raise RunFolderError(
                f"{self.path} already holds a run; add --resume to continue it or --overwrite to replace it"
            )
        aside = self.path / _REPLACED
        aside.mkdir()
        for path in self._run_files():
            path.rename(aside / path.name)

    def _recover(self) -> None:
        """Settle what a crash left undecided: a run that was being replaced comes back unless another has begun."""
        aside = self.path / _REPLACED
        if not aside.is_dir():
            return
        if not self.holds_run():
            for path in aside.iterdir():
                path.rename(self.path / path.name)
        shutil.rmtree(aside)

    def _run_files(self) -> list[Path]:
        return [path for pattern in (*RUN_FILES, *_REPORTS, PARTS) for path in self.path.glob(pattern)]
