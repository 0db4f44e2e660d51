"""Which method works on which family of models: what every method declares of itself, and what the tests run over."""

from __future__ import annotations

from typing import Any

from aizheimer.cli import streams


def method_matrix() -> dict[str, dict[str, dict[str, Any]]]:
    """Return, by method and family, whether it works there, with which settings, and why not where it does not."""
    from aizheimer._registry import METHODS
    from aizheimer.backbones.families import FAMILIES

    infos = {name: METHODS.get(name).info for name in METHODS}
    return {
        name: {
            family: {
                "works": family in info.families,
                "settings": list(info.families.get(family, ())),
                "why": info.refusal(family),
            }
            for family in FAMILIES
        }
        for name, info in infos.items()
    }


def print_matrix(*, as_json: bool) -> None:
    """Print the matrix, and below it what a cell cannot hold: settings, and reasons."""
    from aizheimer.backbones.families import FAMILIES

    found = method_matrix()
    if as_json:
        streams.print_json({"families": {name: info.title for name, info in FAMILIES.items()}, "methods": found})
        return
    rows = [["", *FAMILIES]]
    rows += [[name, *(_mark(cell) for cell in cells.values())] for name, cells in found.items()]
    streams.print_result(streams.columns(rows))
    streams.print_result("")
    for family, info in FAMILIES.items():
        streams.print_result(f"  {family}: {info.title}")
    streams.print_result("")
    for line in _notes(found):
        streams.print_result(f"  {line}")


def _mark(cell: dict[str, Any]) -> str:
    if not cell["works"]:
        return "not applicable"
    return "works*" if cell["settings"] else "works"


def _notes(found: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Return one line for each method and each thing to say of it, naming the families."""
    notes: dict[tuple[str, str], list[str]] = {}
    for name, cells in found.items():
        for family, cell in cells.items():
            said = f"works with {', '.join(cell['settings'])}" if cell["settings"] else cell["why"]
            if said:
                notes.setdefault((name, said), []).append(family)
    return [f"{name} on {', '.join(families)}: {said}" for (name, said), families in notes.items()]
