"""Edits on disk: ``edit.safetensors`` holds the changes, ``edit.json`` says where they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from aizheimer import _files
from aizheimer.edits.provenance import Provenance
from aizheimer.errors import EditError

TENSORS = "edit.safetensors"
RECORD = "edit.json"
_FORMAT = 1


def save_edit(deltas: Mapping[str, Tensor], provenance: Provenance, folder: Path) -> Path:
    """Write an edit, each file atomically; the record holds the hash of the tensors, so halves of two never pass."""
    _files.write_tensors(folder / TENSORS, deltas, metadata={"format": "aizheimer edit"})
    record = {"format": _FORMAT, "sha256": _sha256(folder / TENSORS), "provenance": provenance.model_dump(mode="json")}
    _files.write_json(folder / RECORD, record)
    return folder


def read_edit(folder: Path) -> tuple[dict[str, Tensor], Provenance]:
    """Read what `save_edit` wrote.

    Raises:
        EditError: If a file is missing, damaged, or not of the other one.
    """
    folder = Path(folder)
    for name in (RECORD, TENSORS):
        if not (folder / name).is_file():
            raise EditError(f"{folder} holds no edit ({name} is missing); give the folder of a finished run")
    record = _read_record(folder / RECORD)
    if record.get("format") != _FORMAT:
        raise EditError(f"{folder / RECORD} has format {record.get('format')!r}, wanted {_FORMAT}; upgrade aizheimer")
    try:
        provenance = Provenance.model_validate(record.get("provenance"))
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, problem["loc"])) or "provenance" for problem in error.errors())
        raise EditError(f"{folder / RECORD} is damaged (wrong or missing: {fields}); make the edit again") from error
    if _sha256(folder / TENSORS) != record.get("sha256"):
        raise EditError(f"{folder / TENSORS} is damaged or of another edit than {RECORD}; make the edit again")
    try:
        return load_file(str(folder / TENSORS)), provenance
    except (SafetensorError, OSError) as error:
        raise EditError(f"{folder / TENSORS} is not a safetensors file ({error}); make the edit again") from error


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EditError(f"{path} is damaged ({error}); make the edit again") from error
    if not isinstance(record, dict):
        raise EditError(f"{path} is damaged (not a record); make the edit again")
    return record


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
