"""Make an edit smaller: leave layers out, and the rest as products of thin matrices; and count what that takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from aizheimer.edits.edit import Edit
from aizheimer.edits.low_rank import is_matrix, thin_edit
from aizheimer.errors import EditError


def layers_of(edit: Edit) -> dict[str, list[str]]:
    """Return the tensors of an edit by the layer that they belong to, ``"<part>.<module>"``, in the edit's order."""
    found: dict[str, list[str]] = {}
    for name in edit.deltas:
        found.setdefault(name.rpartition(".")[0], []).append(name)
    return found


def shrunk(edit: Edit, networks: Mapping[str, nn.Module], *, rank: int | None, without: Collection[str] = ()) -> Edit:
    r"""Return an edit with fewer layers, and in those the best change of at most so many dimensions.

    Each kept matrix becomes :math:`\sum_{i \le r} \sigma_i u_i v_i^\top` of its own singular values; biases and norms
    stay whole. Its provenance is the edit's.

    Args:
        edit: Changes of weights, without a hook.
        networks: Of the base, by part.
        rank: r, 1 or more; None keeps every matrix as it is.
        without: Layers that are left out, by the names of `layers_of`.

    Raises:
        EditError: If the edit has a hook, a layer is none of its own, nothing would be left, or the rank is below 1.
    """
    if edit.hook is not None:
        raise EditError(
            f"an edit of the method {edit.provenance.method} acts while pictures are drawn (hook {edit.hook.name!r}); "
            "only changes of weights can be made smaller"
        )
    own = layers_of(edit)
    if unknown := [layer for layer in without if layer not in own]:
        raise EditError(f"the edit changes no layer '{unknown[0]}'; it changes {', '.join(own)}")
    kept = {name: edit.deltas[name] for layer in own if layer not in set(without) for name in own[layer]}
    if not kept:
        raise EditError("nothing of the edit would be left; leave fewer layers out")
    if rank is None:
        return Edit(kept, edit.provenance)
    matrices = {name: delta for name, delta in kept.items() if is_matrix(name, networks)}
    if not matrices:
        return Edit(kept, edit.provenance)
    alone = edit.provenance.model_copy(update={"strength": 1.0})
    thin = thin_edit(Edit(matrices, alone), networks, rank=rank)
    products = {f"{change.module}.weight": change.product for change in thin.changes}
    return Edit({name: products.get(name, delta) for name, delta in kept.items()}, edit.provenance)


def size_in_numbers(
    edit: Edit, networks: Mapping[str, nn.Module], *, rank: int | None, without: Collection[str] = ()
) -> int:
    """Return how many numbers an edit needs: two thin factors for each kept matrix, where these are the smaller.

    Args:
        edit: The edit as it is before anything is cut.
        networks: Of the base, by part.
        rank: Columns of the factors; None counts every matrix whole.
        without: Layers that are left out.
    """
    own, total = layers_of(edit), 0
    for layer in own.keys() - set(without):
        for name in own[layer]:
            delta = edit.deltas[name]
            whole = delta.numel()
            if rank is not None and is_matrix(name, networks):
                sides = delta.shape[0] + delta[0].numel()
                whole = min(whole, rank * sides)
            total += whole
    return total
