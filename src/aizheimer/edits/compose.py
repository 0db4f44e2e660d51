r"""Reckon with edits of one base: add them, take one away, average them, and say how two differ.

Changes of weights add up: :math:`W' = W + \sum_i s_i \Delta_i`, in whatever order. Behaviours are put on one after the
other; whether their order matters is measured by `aizheimer.edits.commuting`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aizheimer.edits.edit import Edit
from aizheimer.edits.hook import Hook, describe
from aizheimer.edits.hooks.stacked import flat_parts, hook_of, without
from aizheimer.edits.parts import LISTED, MERGE, STACK, forgotten, less, named, recorded_parts, words_of
from aizheimer.edits.provenance import TEXT_FIELDS, ConceptRecord, Provenance
from aizheimer.errors import EditError

_ROUNDING = 2.0**-22
"""What is left of a sum in float32, once a summand is taken away, when nothing should be."""
_LEFT_OVER = 1e-3
"""The same of all tensors together, over what was taken away last, once every summand is."""


def scale(edit: Edit, factor: float) -> Edit:
    """Return the edit at ``factor`` times its strength; -1 exaggerates the concept as much as 1 forgets it."""
    return edit.scale(factor)


def stack(*edits: Edit) -> Edit:
    r"""Return one edit that does what all of them do: :math:`\sum_i s_i \Delta_i`, and every behaviour in turn.

    Args:
        *edits: Of one base, each at its own strength. The first one's concept is what figures are by default about.

    Returns:
        The sum, at strength 1; its provenance lists its parts.

    Raises:
        EditError: If there is none, or they are of several bases.

    Example:
        >>> both = stack(load_edit("runs/cat"), load_edit("runs/dog").scale(0.5))  # doctest: +SKIP
    """
    first = _one_base(edits)
    parts = [part for edit in edits for part in flat_parts(edit.hook, edit.provenance.strength)]
    listed = [record for edit in edits for record in parts_of(edit) if record["strength"] != 0]
    keep = tuple(dict.fromkeys(word for edit in edits for word in edit.provenance.concept.keep))
    targets = {words.casefold() for record in listed for words in words_of(record)}
    concept = first.concept.model_copy(update={"keep": tuple(word for word in keep if word.casefold() not in targets)})
    provenance = _derived(edits, concept=concept, method=STACK, parts=listed)
    return Edit(_sum([(edit.provenance.strength, edit.deltas) for edit in edits]), provenance, hook_of(parts))


def subtract(edit: Edit, part: Edit) -> Edit:
    """Return an edit without one of its parts: what that part forgot is drawn again.

    Strengths are subtracted: 0.5 of a part that is in at 1 leaves 0.5 of it, and 1 of a part that is in at 0.5 leaves
    -0.5, which exaggerates its concept. The record lists what is left, and a warning says it of a part below 0, and
    where nothing is left at all.

    Args:
        edit: A stack, or any edit of the same base.
        part: What to take away: the very edit that was put in, at its strength or another one. A behaviour comes off at
            the strength it was put in with, only.

    Raises:
        EditError: If the bases differ, or ``part`` is not in ``edit``.
    """
    _one_base([edit, part])
    listed = less(parts_of(edit), parts_of(part))
    left = _behaviours_without(edit, part)
    whole, away = (_sum([(one.provenance.strength, one.deltas)]) for one in (edit, part))
    deltas = _difference(whole, away)
    if not listed:
        deltas = _nothing(deltas, away)
    total = Edit(
        deltas,
        _derived([edit, part], concept=_concept(listed, edit), method=STACK, parts=listed),
        hook_of(left),
    )
    if total.is_noop:
        warnings.warn("nothing is left: this edit changes nothing", stacklevel=2)
    before = parts_of(edit)
    for record in listed:
        if record["strength"] < 0 and record not in before:
            warnings.warn(f"more was taken away than was there: what is left exaggerates {named(record)}", stacklevel=2)
    return total


def merge(*edits: Edit, weights: Sequence[float] | None = None) -> Edit:
    r"""Return the weighted mean of edits, :math:`\sum_i w_i s_i \Delta_i`: of several seeds of one concept, say.

    Args:
        *edits: Changes of weights on one base.
        weights: :math:`w_i`; equal ones that add up to 1 by default.

    Raises:
        EditError: If one has a behaviour, the bases differ, or there is another number of weights than of edits.
    """
    _one_base(edits)
    shares = [1 / len(edits)] * len(edits) if weights is None else list(weights)
    if len(shares) != len(edits):
        raise EditError(f"weights: got {len(shares)} for {len(edits)} edits; give one for each")
    for edit in edits:
        if edit.hook is not None:
            raise EditError(
                f"an edit of the method {edit.provenance.method} acts while pictures are drawn (hook "
                f"{edit.hook.name!r}), which has no mean; stack such edits"
            )
    scaled = [edit.scale(share) for edit, share in zip(edits, shares, strict=True)]
    listed = [record for edit in scaled for record in parts_of(edit) if record["strength"] != 0]
    provenance = _derived(scaled, concept=edits[0].provenance.concept, method=MERGE, parts=listed)
    return Edit(_sum([(edit.provenance.strength, edit.deltas) for edit in scaled]), provenance)


@dataclass(frozen=True, kw_only=True)
class EditDiff:
    r"""How two edits of one base differ.

    Args:
        shared: Tensors that both change.
        only: Tensors that only the first, and only the second, changes.
        norms: :math:`\lVert s\Delta \rVert` of each, over all tensors.
        cosine: Of the two as vectors over all tensors; 0 if one changes no weights.
        apart: :math:`\lVert s_a\Delta_a - s_b\Delta_b \rVert` over the larger norm: 0 for equal ones.
        tensors: The same distance by tensor, the farthest first.
        same_behaviour: Whether both have the same hooks at the same strengths.
    """

    shared: int
    only: tuple[int, int]
    norms: tuple[float, float]
    cosine: float
    apart: float
    tensors: Mapping[str, float]
    same_behaviour: bool


def diff(first: Edit, second: Edit) -> EditDiff:
    """Compare two edits of one base, tensor by tensor.

    Raises:
        EditError: If the bases differ.
    """
    _one_base([first, second])
    a, b = (_sum([(edit.provenance.strength, edit.deltas)]) for edit in (first, second))
    names = sorted(a.keys() | b.keys())
    norms = tuple(sum(_squared(tensor) for tensor in one.values()) ** 0.5 for one in (a, b))
    product = sum(float((a[name].double() * b[name].double()).sum()) for name in a.keys() & b.keys())
    gaps = {name: _gap(a.get(name), b.get(name)) for name in names}
    largest = max(norms)
    rows = {name: gap / (max(_norm(a.get(name)), _norm(b.get(name))) or 1.0) for name, gap in gaps.items()}
    hooks = [[describe(*part) for part in flat_parts(edit.hook, edit.provenance.strength)] for edit in (first, second)]
    return EditDiff(
        shared=len(a.keys() & b.keys()),
        only=(len(a.keys() - b.keys()), len(b.keys() - a.keys())),
        norms=(norms[0], norms[1]),
        cosine=product / (norms[0] * norms[1]) if min(norms) > 0 else 0.0,
        apart=sum(gap**2 for gap in gaps.values()) ** 0.5 / largest if largest > 0 else 0.0,
        tensors=dict(sorted(rows.items(), key=lambda item: -item[1])),
        same_behaviour=hooks[0] == hooks[1],
    )


def parts_of(edit: Edit) -> list[dict[str, Any]]:
    """Return what an edit is made of: concept, method, strength and digest of each part, itself if it is no stack.

    A part's digest is that of its edit at strength 1, so that it is found again at whatever strength.
    """
    origin = edit.provenance
    if origin.method in {STACK, MERGE}:
        return recorded_parts(origin)
    return recorded_parts(origin, digest=edit.scale_to(1.0).digest)


def targets_of(edit: Edit) -> tuple[str, ...]:
    """Return every concept that an edit forgets: of a sum, those of parts above 0; else its own, at any strength."""
    parts = parts_of(edit)
    return forgotten(parts) if edit.provenance.method in {STACK, MERGE} else tuple(words_of(parts[0]))


def _one_base(edits: Sequence[Edit]) -> Provenance:
    """Return the first one's provenance.

    Raises:
        EditError: If there is no edit, or another one was made for another base.
    """
    if not edits:
        raise EditError("got no edit to reckon with; give one or more")
    first = edits[0].provenance
    for number, edit in enumerate(edits, 1):
        own = edit.provenance
        if own.base_fingerprint != first.base_fingerprint:
            raise EditError(
                f"edit {number} ('{own.concept.target}') was made for {own.base_name or 'an unnamed base'} "
                f"({own.base_fingerprint}), the first for {first.base_name or 'an unnamed base'} "
                f"({first.base_fingerprint}); take edits of one base"
            )
    for name in TEXT_FIELDS.values():
        texts = {getattr(edit.provenance, name) for edit in edits} - {""}
        if len(texts) > 1:
            raise EditError(f"these edits were made for {len(texts)} text encoders; take edits of one base")
    return first


def _derived(
    edits: Sequence[Edit], *, concept: ConceptRecord, method: str, parts: Sequence[Mapping[str, Any]]
) -> Provenance:
    first = edits[0].provenance
    texts: dict[str, Any] = {}
    for edit in edits:
        texts = {TEXT_FIELDS[part]: one for part, one in edit.provenance.text_fingerprints.items()} | texts
    return Provenance(
        method=method,
        concept=concept,
        base_fingerprint=first.base_fingerprint,
        **texts,
        base_name=first.base_name,
        extra={LISTED: [dict(part) for part in parts]},
    )


def _behaviours_without(edit: Edit, part: Edit) -> list[tuple[Hook, float]]:
    """Return the behaviours of an edit without those of a part.

    Raises:
        EditError: If one is not there at that strength: two behaviours are not the sum of their strengths.
    """
    own, theirs = (flat_parts(one.hook, one.provenance.strength) for one in (edit, part))
    left = without(own, theirs)
    if left is None:
        digests = {record["digest"] for record in parts_of(part)}
        there = ", ".join(f"{one['strength']:g}" for one in parts_of(edit) if one["digest"] in digests)
        raise EditError(
            f"the behaviour of {part.provenance.method} for '{part.provenance.concept.target}' is not in this edit at "
            f"strength {part.provenance.strength:g}, and comes off only as it was put on; take it away at strength "
            f"{there}"
        )
    return left


def _nothing(deltas: dict[str, Tensor], away: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return no changes, once every part is taken away: rounding alone has left some.

    Raises:
        EditError: If it was more than rounding: the record did not list all that was in the edit.
    """
    sizes = [sum(_squared(tensor) for tensor in one.values()) ** 0.5 for one in (deltas, away)]
    if sizes[0] > _LEFT_OVER * sizes[1]:
        raise EditError(
            "every part that this edit lists is taken away, and changes of weights are left: its record does not say "
            "all that is in it; add up the edits that should stay"
        )
    return {}


def _concept(listed: Sequence[Mapping[str, Any]], edit: Edit) -> ConceptRecord:
    """Return what an edit is about whose parts these are: what it was, or else the first that is forgotten."""
    own = edit.provenance.concept
    about = forgotten(listed)
    candidates = [part for part in listed if part["concept"] in about] or listed
    if not candidates or any(part["concept"] == own.target for part in candidates):
        return own
    first = candidates[0]
    kind, anchor = first.get("kind", "object"), first.get("anchor", "")
    return ConceptRecord(target=first["concept"], kind=kind, anchor=anchor, keep=own.keep)


def _sum(terms: Sequence[tuple[float, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """Return a weighted sum of changes, added in float64; what comes out as nothing is left out."""
    total: dict[str, Tensor] = {}
    for factor, deltas in terms:
        for name, delta in deltas.items():
            change = factor * delta.double()
            total[name] = total[name] + change if name in total else change
    return {name: change.float() for name, change in total.items() if bool(change.any())}


def _difference(whole: Mapping[str, Tensor], away: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``whole - away``; what only rounding has left is nothing."""
    left: dict[str, Tensor] = {}
    for name in [*whole, *(name for name in away if name not in whole)]:
        pair = [one.get(name) for one in (whole, away)]
        a, b = (torch.zeros_like(_given(pair)) if one is None else one for one in pair)
        rest = a.double() - b.double()
        rest[rest.abs() <= _ROUNDING * (a.abs() + b.abs()).double()] = 0
        if bool(rest.any()):
            left[name] = rest.float()
    return left


def _given(pair: Sequence[Tensor | None]) -> Tensor:
    return next(one for one in pair if one is not None)


def _gap(a: Tensor | None, b: Tensor | None) -> float:
    if a is None or b is None:
        return _norm(a) + _norm(b)
    return float((a.double() - b.double()).norm())


def _norm(tensor: Tensor | None) -> float:
    return 0.0 if tensor is None else _squared(tensor) ** 0.5


def _squared(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())
