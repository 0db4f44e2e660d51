"""Parameters given in Python, as the command line writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aizheimer._records import flat


def dotted(parameters: Mapping[str, Any]) -> list[str]:
    """Return nested parameters as the command line's words: {"training": {"steps": 1}} as ["training.steps=1"]."""
    words = [(name, str(value) if isinstance(value, Path) else value) for name, value in flat(parameters)]
    return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in words]
