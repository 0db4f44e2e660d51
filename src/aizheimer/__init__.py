"""Make a text-to-image diffusion model forget a concept, and measure what it forgot and what it kept.

Example:
    >>> import aizheimer                                   # doctest: +SKIP
    >>> edit = aizheimer.forget(pipe, "Santa Claus")       # doctest: +SKIP
    >>> with edit.applied(pipe):                           # doctest: +SKIP
    ...     image = pipe("Santa Claus in noto style").images[0]

Names are imported when they are first used, so importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from aizheimer._version import __version__

if TYPE_CHECKING:
    from aizheimer.api import attack, evaluate, export, forget, import_edit, interference, load_model, stack
    from aizheimer.concepts.concept import Concept
    from aizheimer.edits.edit import Edit
    from aizheimer.edits.io import load_edit
    from aizheimer.errors import AizheimerError
    from aizheimer.tuning.search import tune
    from aizheimer.tuning.shrink import shrink

__all__ = [
    "AizheimerError",
    "Concept",
    "Edit",
    "__version__",
    "attack",
    "evaluate",
    "export",
    "forget",
    "import_edit",
    "interference",
    "load_edit",
    "load_model",
    "shrink",
    "stack",
    "tune",
]

_HOMES = {
    "AizheimerError": "aizheimer.errors",
    "Concept": "aizheimer.concepts.concept",
    "Edit": "aizheimer.edits.edit",
    "attack": "aizheimer.api",
    "evaluate": "aizheimer.api",
    "export": "aizheimer.api",
    "forget": "aizheimer.api",
    "import_edit": "aizheimer.api",
    "interference": "aizheimer.api",
    "load_edit": "aizheimer.edits.io",
    "load_model": "aizheimer.api",
    "shrink": "aizheimer.tuning.shrink",
    "stack": "aizheimer.api",
    "tune": "aizheimer.tuning.search",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'aizheimer' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
