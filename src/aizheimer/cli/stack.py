"""``aizheimer stack`` and ``aizheimer diff``: reckon with edits of one base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aizheimer.cli import streams
from aizheimer.cli.options import Debug, Json, Overwrite, Run
from aizheimer.errors import InputError

if TYPE_CHECKING:
    from aizheimer.edits.commuting import OrderedPair
    from aizheimer.edits.edit import Edit

TENSORS = 10
"""Most tensors that a difference lists."""


def stack(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN[@STRENGTH]...", help="Run folders, each with its strength: runs/cat@0.5")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The run folder of the sum.")],
    minus: Annotated[
        list[str] | None,
        typer.Option("--minus", metavar="RUN[@STRENGTH]", help="Take this edit away: its concept is drawn again."),
    ] = None,
    check_order: Annotated[
        bool, typer.Option("--check-order/--no-check-order", help="Draw in both orders what may not commute.")
    ] = True,
    overwrite: Overwrite = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Add edits of one base into one edit, or take some away again.

    Changes of weights add up in whatever order. Edits that act while pictures are drawn are put on in the order given,
    and every two of which one does are drawn in both orders, to say how far apart these are. What is taken away must be
    in the sum; what remains of it is listed, with a warning if it is below 0, which exaggerates the concept.
    """
    del debug
    from aizheimer import api
    from aizheimer.edits.commuting import order_check

    words = list(runs)
    edits = [_scaled(word) for word in words]
    away = [_scaled(word) for word in minus or ()]
    base = api.load_base(_split(words[0])[0])
    pairs = order_check(edits, base) if check_order and any(edit.hook is not None for edit in edits) else []
    total = api.stack(edits, without=away, out=out, model=base, overwrite=overwrite)
    if as_json:
        rows = [
            {"first": words[p.first], "second": words[p.second], "apart": p.apart, "commutes": p.commutes}
            for p in pairs
            if p.measured
        ]
        streams.print_json({"run": str(out), "parts": _parts(total), "order": rows})
        return
    from aizheimer.edits.parts import named, told

    for part in _parts(total):
        streams.print_result(f"{told(part):<10} {named(part)}")
    if not _parts(total):
        streams.print_result(f"{'forgets':<10} nothing")
    _print_order(pairs, words)
    streams.print_result(f"{'edit':<10} {out / 'edit.safetensors'}")


def diff(
    first: Run,
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another run folder on the same base.")],
    *,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say how two edits of one base differ: sizes, angle, distance, and the tensors that are farthest apart."""
    del debug
    from aizheimer import api
    from aizheimer.edits.compose import diff as compare

    found = compare(api.load_edit(first), api.load_edit(second))
    if as_json:
        streams.print_json(
            {
                "shared": found.shared,
                "only": list(found.only),
                "norms": list(found.norms),
                "cosine": found.cosine,
                "apart": found.apart,
                "same_behaviour": found.same_behaviour,
                "tensors": dict(found.tensors),
            }
        )
        return
    lines = {
        "tensors": f"{found.shared} changed by both, {found.only[0]} by the first only, {found.only[1]} by the second",
        "norm": f"{found.norms[0]:.4g} and {found.norms[1]:.4g}",
        "cosine": f"{found.cosine:.4f}",
        "apart": f"{found.apart:.2%} of the larger",
        "behaviour": "the same" if found.same_behaviour else "another",
    }
    streams.print_result(streams.pairs(lines, indent=""))
    rows = [[name, f"{apart:.2%}"] for name, apart in list(found.tensors.items())[:TENSORS] if apart > 0]
    if rows:
        streams.print_result("farthest apart")
        streams.print_result(streams.columns(rows))


def _split(word: str) -> tuple[Path, float]:
    """Read "runs/cat@0.5".

    Raises:
        InputError: For a strength that is no number.
    """
    folder, mark, strength = word.rpartition("@")
    if not mark or Path(word).is_dir():
        return Path(word), 1.0
    try:
        value = float(strength)
    except ValueError:
        raise InputError(f"got '{word}', wanted RUN or RUN@STRENGTH, such as runs/cat@0.5.") from None
    if abs(value) == float("inf") or value != value:
        raise InputError(f"got '{word}', wanted a strength that is a number, such as runs/cat@0.5.")
    return Path(folder), value


def _scaled(word: str) -> Edit:
    from aizheimer import api

    folder, strength = _split(word)
    edit = api.load_edit(folder)
    return edit if strength == 1.0 else edit.scale(strength)


def _parts(edit: Edit) -> list[dict]:
    from aizheimer.edits.compose import parts_of

    return parts_of(edit)


def _print_order(pairs: list[OrderedPair], words: list[str]) -> None:
    for pair in pairs:
        if pair.measured:
            verdict = "in either order" if pair.commutes else "THE ORDER MATTERS:"
            streams.print_result(
                f"{'order':<10} {words[pair.first]} and {words[pair.second]}: {verdict} ({pair.apart:.2%} apart)"
            )
