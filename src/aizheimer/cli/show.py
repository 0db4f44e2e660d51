"""``aizheimer show``: what an edit is and where it came from, or the parameters of a method, a recipe or an attack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aizheimer.cli import streams
from aizheimer.cli.options import Debug, Json

if TYPE_CHECKING:
    from aizheimer.edits.edit import Edit


def show(
    what: Annotated[str, typer.Argument(metavar="RUN|METHOD|RECIPE|ATTACK", help="A run folder, or a name.")],
    *,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print what an edit changes, on which base and how; or the parameters of a method, a recipe or an attack."""
    del debug
    from aizheimer._registry import ATTACKS, METHODS
    from aizheimer.cli.method_page import show_attack, show_method
    from aizheimer.errors import EditError, did_you_mean
    from aizheimer.recipes.load import list_recipes

    if Path(what).exists():
        _show_edit(Path(what), as_json=as_json)
    elif what in ATTACKS:
        show_attack(ATTACKS.get(what), as_json=as_json)
    elif what in METHODS or what in list_recipes():
        show_method(what, as_json=as_json)
    else:
        hint = did_you_mean(what, [*METHODS.names(), *list_recipes(), *ATTACKS.names()])
        raise EditError(
            f"'{what}' is neither a run folder nor a method, recipe or attack.{hint} 'aizheimer ls' lists them"
        )


def _show_edit(run: Path, *, as_json: bool) -> None:
    from aizheimer.edits.compose import parts_of, targets_of
    from aizheimer.edits.io import load_edit

    edit = load_edit(run)
    provenance = edit.provenance.model_dump(mode="json")
    if as_json:
        hook = None if edit.hook is None else {"name": edit.hook.name, "settings": dict(edit.hook.settings)}
        size = {"tensors": len(edit.deltas), "bytes": edit.size_bytes, "is_noop": edit.is_noop}
        kind = {"mergeable": edit.mergeable, "hook": hook}
        made = {"targets": list(targets_of(edit)), "parts": parts_of(edit)}
        streams.print_json({**provenance, **made, **size, **kind, "names": sorted(edit.deltas)})
        return
    import yaml

    streams.print_result(streams.pairs(_summary(edit), indent=""))
    _print_parts(edit)
    for title in ("recipe", "versions"):
        streams.print_result(title)
        for line in yaml.safe_dump(provenance[title], sort_keys=False, allow_unicode=True).splitlines():
            streams.print_result(f"  {line}")


def _print_parts(edit: Edit) -> None:
    """List what a sum is made of; an edit that is none has said it all with its method and strength."""
    from aizheimer.edits.compose import parts_of
    from aizheimer.edits.parts import MERGE, STACK, told, words_of

    if edit.provenance.method not in {STACK, MERGE}:
        return
    rows = [
        [told(part), ", ".join(words_of(part)), part["method"], f"strength {part['strength']:g}"]
        for part in parts_of(edit)
    ]
    streams.print_result("parts")
    streams.print_result(streams.columns(rows or [["nothing"]]))


def changes(edit: Edit) -> str:
    """Say what an edit changes: weights, how pictures are drawn, or nothing."""
    of_text = [name.partition(".")[0] for name in edit.deltas if name.startswith("text_encoder")]
    where = f" ({len(of_text)} of the text encoder{'s' * (len(set(of_text)) > 1)})" if of_text else ""
    words = [f"{len(edit.deltas)} tensors{where}"] if edit.deltas or edit.hook is None else []
    words += [f"how pictures are drawn ({edit.hook.name})"] if edit.hook is not None else []
    words += [f"{edit.size_bytes / 1e6:.2f} MB"] if edit.size_bytes or edit.hook is None else []
    return ", ".join(words) + (", nothing" if edit.is_noop else "")


def _summary(edit: Edit) -> dict[str, Any]:
    from aizheimer.edits.parts import exaggerated, forgotten, recorded_parts

    record = edit.provenance
    base = f"{record.base_name or 'unnamed'} ({record.base_fingerprint})"
    parts = recorded_parts(record)
    found = {
        "concept": f"{record.concept.target} ({record.concept.kind})",
        "forgets": ", ".join(forgotten(parts)) or "-",
        **({"exaggerates": ", ".join(words)} if (words := exaggerated(parts)) else {}),
        "anchor": record.concept.anchor or "-",
        "keep": ", ".join(record.concept.keep) or "-",
        "method": record.method,
        "base": base,
        **record.text_fingerprints,
        "changes": changes(edit),
        "strength": record.strength,
        "seed": record.seed,
        "created": record.created,
    }
    # What else a method found worth keeping; lists and tables are in edit.json.
    measured = {name: value for name, value in record.extra.items() if isinstance(value, str | int | float)}
    found |= {
        name: f"{value:.4g}" if isinstance(value, float) else value for name, value in measured.items() if value != ""
    }
    return found | record.printed
