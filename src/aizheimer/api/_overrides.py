"""Parameters given in Python, as the command line writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def dotted(parameters: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return nested parameters as the command line's words: {"training": {"steps": 1}} as ["training.steps=1"]."""
    words = []
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            words += dotted(value, f"{prefix}{name}.")
        else:
            text = str(value) if isinstance(value, Path) else value
            words.append(f"{prefix}{name}={json.dumps(text, ensure_ascii=False)}")
    return words
