"""Read an edit back."""

from __future__ import annotations

from pathlib import Path

from aizheimer.edits.edit import Edit
from aizheimer.edits.storage import read_edit


def load_edit(folder: str | Path) -> Edit:
    """Read an edit from a run folder.

    Args:
        folder: Where ``edit.safetensors`` and ``edit.json`` are.

    Raises:
        EditError: If there is none, or it is damaged.

    Example:
        >>> edit = load_edit("runs/santa-claus")  # doctest: +SKIP
    """
    return Edit(*read_edit(Path(folder)))
