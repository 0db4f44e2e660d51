"""Where output goes: results to stdout, everything said on the way to stderr; of several processes one speaks."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aizheimer._processes import is_main, main_only

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


@main_only
def print_result(text: str) -> None:
    """Print one piece of a result to stdout."""
    print(text, file=sys.stdout)


@main_only
def print_json(value: Any) -> None:
    """Print one JSON object, for machines, to stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str), file=sys.stdout)


@main_only
def print_rich(renderable: RenderableType) -> None:
    """Print a rich table or text to stdout; plain when stdout is a pipe."""
    from rich.console import Console

    Console(file=sys.stdout, soft_wrap=not sys.stdout.isatty(), highlight=False).print(renderable)


@main_only
def say(text: str) -> None:
    """Tell the user one line about what happens, on stderr."""
    print(text, file=sys.stderr, flush=True)


def progress_console() -> Console:
    """Return the rich console on stderr; what users typed is never read as markup there."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, markup=False, quiet=not is_main())


def columns(rows: Sequence[Sequence[str]], *, indent: str = "  ") -> str:
    """Return rows of words as left-aligned columns, the last of any width.

    Example:
        >>> print(columns([["a", "first"], ["long", "second"]]))
          a     first
          long  second
    """
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"{indent}{line}".rstrip() for line in lines)


def pairs(values: Mapping[str, Any], *, indent: str = "  ") -> str:
    """Return a mapping as two columns, names first."""
    return columns([[name, str(value)] for name, value in values.items()], indent=indent)
