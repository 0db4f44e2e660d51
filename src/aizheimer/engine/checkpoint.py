"""A training run on disk: one safetensors file, replaced in one rename, so it is never half a state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from aizheimer._processes import processes
from aizheimer._records import flat
from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import RunFolderError

FILE_NAME = "checkpoint.safetensors"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything a resumed run needs to go on as if it had not stopped.

    Args:
        step: Steps done.
        tensors: Parameters, best state and optimiser state by prefixed name.
        state: The loop's numbers, as JSON.
        identity: What must be the same for the continuation to make sense.
    """

    step: int
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors below ``prefix/``, without it."""
        head = f"{prefix}/"
        return {name.removeprefix(head): tensor for name, tensor in self.tensors.items() if name.startswith(head)}

    def save(self, run: RunFolder) -> None:
        """Write the checkpoint, atomically."""
        document = {"format": _FORMAT, "step": self.step, "state": self.state, "identity": self.identity}
        run.write_tensors(FILE_NAME, self.tensors, metadata={"aizheimer": json.dumps(document)})


def load_checkpoint(run: RunFolder, *, identity: Mapping[str, Any]) -> Checkpoint | None:
    """Read the run's checkpoint, or return None if it was stopped before its first one.

    Raises:
        RunFolderError: If the file is damaged, or its run was started with something else: the message names what.
    """
    path = run.file(FILE_NAME)
    if not path.exists():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            document = json.loads((file.metadata() or {})["aizheimer"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if document["format"] != _FORMAT:
            raise KeyError(f"format {document['format']}")
        found = Checkpoint(
            step=document["step"], tensors=tensors, state=document["state"], identity=document["identity"]
        )
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged ({error}); start again with --overwrite") from error
    _check_identity(found.identity, json.loads(json.dumps(identity)), run)
    return found


def load_everywhere(run: RunFolder, *, identity: Mapping[str, Any]) -> Checkpoint | None:
    """Read the run's checkpoint in the main process and hand it to all others; see `load_checkpoint`."""
    team = processes()
    found = team.on_main(lambda: load_checkpoint(run, identity=identity))
    if team.count == 1:
        return found
    document = team.tell(
        None if found is None else {"step": found.step, "state": found.state, "identity": found.identity}
    )
    if document is None:
        return None
    return Checkpoint(tensors=team.tell_tensors(found.tensors if found is not None else None), **document)


def _check_identity(was: Mapping[str, Any], now: Mapping[str, Any], run: RunFolder) -> None:
    old, new = dict(flat(was)), dict(flat(now))
    changed = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    if changed:
        pairs = "; ".join(f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in changed[:3])
        raise RunFolderError(f"cannot resume {run.path}: {pairs}; resume with what it was started with, or --overwrite")
