"""Which method works on which kind of model: what every method declares of its family, and what the tests run over."""

from __future__ import annotations

from typing import Any

from aizheimer.cli import streams


def method_matrix() -> dict[str, dict[str, dict[str, Any]]]:
    """Return, by method and kind of model, whether it works there, with which settings, and why not if it does not.

    A kind has a column of its own and no declaration of its own: a method works there if it does on the family. That
    it does is tested in each column.
    """
    from aizheimer._registry import METHODS
    from aizheimer.backbones.families import kinds

    infos = {name: METHODS.get(name).info for name in METHODS}
    return {
        name: {
            kind: {
                "works": of.family in info.families,
                "settings": list(info.families.get(of.family, ())),
                "why": info.refusal(of.family),
            }
            for kind, of in kinds().items()
        }
        for name, info in infos.items()
    }


def print_matrix(*, as_json: bool) -> None:
    """Print the matrix, and below it what a cell cannot hold: settings, and reasons."""
    from aizheimer.backbones.families import kinds

    titles, found = {name: kind.title for name, kind in kinds().items()}, method_matrix()
    if as_json:
        streams.print_json({"families": titles, "methods": found})
        return
    rows = [["", *titles]]
    rows += [[name, *(_mark(cell) for cell in cells.values())] for name, cells in found.items()]
    streams.print_result(streams.columns(rows))
    streams.print_result("")
    for name, title in titles.items():
        streams.print_result(f"  {name}: {title}")
    streams.print_result("")
    for line in _notes(found):
        streams.print_result(f"  {line}")


def _mark(cell: dict[str, Any]) -> str:
    if not cell["works"]:
        return "not applicable"
    return "works*" if cell["settings"] else "works"


def _notes(found: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Return one line for each method and each thing to say of it, naming the kinds of model."""
    notes: dict[tuple[str, str], list[str]] = {}
    for name, cells in found.items():
        for kind, cell in cells.items():
            said = f"works with {', '.join(cell['settings'])}" if cell["settings"] else cell["why"]
            if said:
                notes.setdefault((name, said), []).append(kind)
    return [f"{name} on {', '.join(where)}: {said}" for (name, said), where in notes.items()]
