"""Edits on disk: ``edit.safetensors`` holds the tensors, ``edit.json`` says where they come from.

An edit with a hook is format 2: the record names the hook and its settings, and its tensors are those whose name begins
with ``hook.``. All others are format 1, as they always were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from aizheimer import _files
from aizheimer._records import parse_json
from aizheimer.edits.hook import Hook, hook_named
from aizheimer.edits.provenance import Provenance
from aizheimer.errors import EditError

TENSORS = "edit.safetensors"
RECORD = "edit.json"
_FORMATS = (1, 2)
_HOOK = "hook."


def save_edit(deltas: Mapping[str, Tensor], provenance: Provenance, *, hook: Hook | None, folder: Path) -> Path:
    """Write an edit, each file atomically; the record holds the hash of the tensors, so halves of two never pass."""
    tensors = dict(deltas)
    record: dict[str, Any] = {"format": 1}
    if hook is not None:
        tensors |= {_HOOK + name: tensor for name, tensor in hook.tensors.items()}
        record = {"format": 2, "hook": {"name": hook.name, "settings": dict(hook.settings)}}
    _files.write_tensors(folder / TENSORS, tensors, metadata={"format": "aizheimer edit"})
    record |= {"sha256": _sha256(folder / TENSORS), "provenance": provenance.model_dump(mode="json")}
    _files.write_json(folder / RECORD, record)
    return folder


def read_edit(folder: Path) -> tuple[dict[str, Tensor], Provenance, Hook | None]:
    """Read what `save_edit` wrote.

    Raises:
        EditError: If a file is missing, damaged, or not of the other one; or its hook is unknown here.
    """
    folder = Path(folder)
    for name in (RECORD, TENSORS):
        if not (folder / name).is_file():
            raise EditError(f"{folder} holds no edit ({name} is missing); give the folder of a finished run")
    record = _read_record(folder / RECORD)
    if record.get("format") not in _FORMATS:
        wanted = " or ".join(map(str, _FORMATS))
        raise EditError(f"{folder / RECORD} has format {record.get('format')!r}, wanted {wanted}; upgrade aizheimer")
    try:
        provenance = Provenance.model_validate(record.get("provenance"))
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, problem["loc"])) or "provenance" for problem in error.errors())
        raise EditError(f"{folder / RECORD} is damaged (wrong or missing: {fields}); make the edit again") from error
    deltas, hook = _split(_read_tensors(folder, record), record.get("hook"), path=folder / RECORD)
    return deltas, provenance, hook


def _split(tensors: dict[str, Tensor], record: Any, *, path: Path) -> tuple[dict[str, Tensor], Hook | None]:
    """Tell the hook's tensors from the changes of weights, and make the hook of them."""
    if record is None:
        return tensors, None
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
        raise EditError(f"{path} is damaged (wrong or missing: hook); make the edit again")
    own = {name.removeprefix(_HOOK): tensor for name, tensor in tensors.items() if name.startswith(_HOOK)}
    deltas = {name: tensor for name, tensor in tensors.items() if not name.startswith(_HOOK)}
    return deltas, hook_named(str(record.get("name")), own, record["settings"])


def _read_tensors(folder: Path, record: dict[str, Any]) -> dict[str, Tensor]:
    if _sha256(folder / TENSORS) != record.get("sha256"):
        raise EditError(f"{folder / TENSORS} is damaged or of another edit than {RECORD}; make the edit again")
    try:
        return load_file(str(folder / TENSORS))
    except (SafetensorError, OSError) as error:
        raise EditError(f"{folder / TENSORS} is not a safetensors file ({error}); make the edit again") from error


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EditError(f"{path} is damaged ({error}); make the edit again") from error
    if not isinstance(record, dict):
        raise EditError(f"{path} is damaged (not a record); make the edit again")
    return record


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
