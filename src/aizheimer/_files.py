"""Write files so that a reader never sees half of one.

Every writer fills a temporary file in the target's own folder and renames it into place, so a crash, a full disk or
``kill -9`` leaves either the old file or the new one. A disk that refuses the bytes becomes a
[`StorageError`][aizheimer.errors.StorageError]. Formats are JSON, YAML and safetensors; nothing is ever pickled.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from aizheimer.errors import StorageError

TEMPORARY_SUFFIX = ".tmp"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_WORDS = ("StorageFull", "No space left", "QuotaExceeded", "FileTooLarge", "File too large")


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" on the way to ``path`` into a one-line `StorageError`; let other errors pass.

    safetensors reports a full disk as its own exception with the system's words inside, hence the look at the text.
    """
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in _FULL
        if full or any(word in str(error) for word in _FULL_WORDS):
            raise StorageError(f"no room to write {path}; free some space and go on with --resume") from error
        raise


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename it over ``path`` when the block ends without an error.

    Args:
        path: The file to create or replace. Missing parent folders are created.

    Yields:
        The temporary path to write to. It is gone afterwards, whatever happens.

    Raises:
        StorageError: If the disk is full.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:12]}{TEMPORARY_SUFFIX}"
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` and rename it to ``path`` when the block ends without an error.

    Args:
        path: The folder to create; there must be nothing but an empty folder. Missing parents are created.

    Yields:
        The temporary folder to fill. It is gone afterwards, whatever happens.

    Raises:
        StorageError: If the disk is full.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:12]}{TEMPORARY_SUFFIX}"
        temporary.mkdir()
        try:
            yield temporary
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, all of it or nothing."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` as indented JSON, all of it or nothing."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_yaml(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` as YAML with the keys in their own order, all of it or nothing."""
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110))


def write_tensors(path: Path, tensors: Mapping[str, Any], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors and a string-to-string header to one safetensors file, all of it or nothing."""
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(contiguous, str(temporary), metadata=dict(metadata or {}))
        temporary.chmod(mode)  # safetensors makes files that only their owner may read


def append_line(path: Path, text: str) -> None:
    """Append one line to ``path`` in a single write, so a crash can tear only the last line."""
    with storage_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(text.rstrip("\n") + "\n")
