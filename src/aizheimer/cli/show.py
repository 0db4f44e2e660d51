"""``aizheimer show``: what an edit is and where it came from, or what a method's parameters are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aizheimer.cli import streams
from aizheimer.cli.options import Debug, Json

if TYPE_CHECKING:
    from aizheimer.edits.edit import Edit


def show(
    what: Annotated[str, typer.Argument(metavar="RUN|METHOD", help="A run folder, or the name of a method.")],
    *,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print what an edit changes, for which base it was made and how; or a method's parameters."""
    del debug
    from aizheimer._registry import METHODS
    from aizheimer.cli.method_page import show_method

    if what in METHODS and not Path(what).is_dir():
        show_method(METHODS.get(what), as_json=as_json)
    else:
        _show_edit(Path(what), as_json=as_json)


def _show_edit(run: Path, *, as_json: bool) -> None:
    from aizheimer.edits.io import load_edit

    edit = load_edit(run)
    provenance = edit.provenance.model_dump(mode="json")
    size = {"tensors": len(edit.deltas), "bytes": edit.size_bytes, "is_noop": edit.is_noop}
    if as_json:
        streams.print_json({**provenance, **size, "names": sorted(edit.deltas)})
        return
    import yaml

    streams.print_result(streams.pairs(_summary(edit), indent=""))
    for title in ("recipe", "versions"):
        streams.print_result(title)
        for line in yaml.safe_dump(provenance[title], sort_keys=False, allow_unicode=True).splitlines():
            streams.print_result(f"  {line}")


def _summary(edit: Edit) -> dict[str, Any]:
    record = edit.provenance
    base = f"{record.base_name or 'unnamed'} ({record.base_fingerprint})"
    of_text = sum(name.startswith("text_encoder.") for name in edit.deltas)
    where = f" ({of_text} of the text encoder)" if of_text else ""
    nothing = ", nothing" if edit.is_noop else ""
    found = {
        "concept": f"{record.concept.target} ({record.concept.kind})",
        "anchor": record.concept.anchor or "-",
        "keep": ", ".join(record.concept.keep) or "-",
        "method": record.method,
        "base": base,
        **({"text_encoder": record.text_fingerprint} if record.text_fingerprint else {}),
        "changes": f"{len(edit.deltas)} tensors{where}, {edit.size_bytes / 1e6:.2f} MB{nothing}",
        "strength": record.strength,
        "seed": record.seed,
        "created": record.created,
    }
    shown = ("stopped", "step", "attention_mass", "mass_ratio", "retention_drift")
    return found | {name: record.extra[name] for name in shown if name in record.extra}
