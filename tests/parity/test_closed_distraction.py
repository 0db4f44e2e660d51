"""Closed-form distraction against the least-squares problem that it states, with rows that an attack found."""

import pytest
import torch

from aizheimer._seeding import generator_for
from aizheimer.concepts.concept import Concept
from aizheimer.data.latents import rollout
from aizheimer.data.rows import anchor_pairs, encode_rows, row_scale
from aizheimer.engine.callbacks import Callbacks
from aizheimer.methods._closed_distraction import ClosedDistraction
from aizheimer.methods._revival import revivable, revived, undoing
from tests.optimum import check_change

SANTA = Concept("santa claus", anchor="man")
SMALL = {"prompts": "bare", "retain_neighbours": 2, "retain_others": 2, "retain_general": 1, "prior": 0.0}


def brute_force(weight, erased, kept, ridge, *, firmness=1.0):
    """Return the weights that minimise the three sums of squares, by one stacked least-squares problem."""
    slack = (firmness * ridge) ** 0.5
    left, right = [slack * torch.eye(weight.shape[1], dtype=torch.float64)], [slack * weight.T]
    for keys, sources, factor in [*((*pair, 1.0) for pair in erased), (kept, kept, firmness)]:
        left.append((factor / len(keys)) ** 0.5 * keys)
        right.append((factor / len(keys)) ** 0.5 * sources @ weight.T)
    return torch.linalg.lstsq(torch.cat(left), torch.cat(right)).solution.T


def queries_of(backbone, layers, *, pictures, steps):
    """Return the second moment of each head's queries while the model begins to draw the concept, by layer."""
    sums, counts, handles = {}, {}, []
    for layer in layers:
        module = backbone.denoiser.get_submodule(layer)

        def heard(module, inputs, output, layer=layer, heads=module.heads):
            rows = output.double().flatten(0, 1).unflatten(1, (heads, -1)).transpose(0, 1)
            sums[layer] = sums.get(layer, 0) + rows.transpose(1, 2) @ rows
            counts[layer] = counts.get(layer, 0) + rows.shape[1]

        handles.append(module.to_q.register_forward_hook(heard))
    rollout(
        backbone,
        backbone.condition(["santa claus"]),
        null_embedding=backbone.condition([""]),
        prompt_index=torch.zeros(pictures, dtype=torch.long),
        steps=steps,
        guidance=backbone.world.guidance,
        generator=generator_for(0, "queries"),
    )
    for handle in handles:
        handle.remove()
    return {layer: sums[layer] / counts[layer] for layer in layers}


def nearest_keys(weight, moment, *, pairs, kept, ridge, firmness):
    """Return one head's keys W' that minimise the docstring's sum, all their entries in one least-squares problem.

    E (q . v)^2 = |C^(1/2) v|^2, and the entries of A D B', row by row, are (A x B) times those of D.
    """
    size, dim = weight.shape
    values, basis = torch.linalg.eigh(moment)
    root, same = basis @ values.clamp(min=0).sqrt().diag() @ basis.T, torch.eye(size, dtype=torch.float64)
    held = (firmness * values.mean()).sqrt()
    gap = root @ weight @ (pairs.sources - pairs.keys).T / len(pairs.keys) ** 0.5
    text = torch.linalg.qr(kept).R.contiguous() / len(kept) ** 0.5  # |R d| = |kept d|, in fewer rows
    left = [
        torch.kron(root, pairs.keys / len(pairs.keys) ** 0.5),
        held * torch.kron(same, text),
        held * ridge**0.5 * torch.eye(size * dim, dtype=torch.float64),
    ]
    right = torch.cat([gap.flatten(), torch.zeros(sum(map(len, left[1:])), dtype=torch.float64)])
    return weight + torch.linalg.lstsq(torch.cat(left), right[:, None]).solution.reshape(size, dim)


@pytest.mark.parametrize("residual", [None, 0.6])
def test_keys_are_measured_by_the_queries_of_their_own_heads(tiny_backbone, residual):
    """The method as it comes, with its default metric: keys and values are the two optima."""
    heard, drawn = {}, {"pictures": 2, "picture_steps": 2}
    method = ClosedDistraction(residual=residual, layers="mid_block|down_blocks.1", **SMALL, **drawn)
    assert method.metric == "queries"
    edit = method.unlearn(tiny_backbone, SANTA, callbacks=Callbacks(on_data=heard.update))
    scale, firmness = row_scale(tiny_backbone), edit.provenance.extra["firmness"]
    assert (firmness == 1) == (residual is None)
    pairs = anchor_pairs(
        tiny_backbone, ["santa claus"], concept=SANTA, policy=("concept", "others"), empty="auto", scale=scale
    )
    kept = encode_rows(tiny_backbone, ["", *heard["retain_prompts"]], scale=scale).flatten(0, 1)
    moments = queries_of(tiny_backbone, heard["layers"], pictures=2, steps=2)
    parameters = dict(tiny_backbone.denoiser.named_parameters())
    assert len(heard["parameters"]) == 4
    for name in heard["parameters"]:
        weight = parameters[name].detach().double()
        layer, part, _ = name.rsplit(".", 2)
        if part == "to_k":
            heads = zip(weight.chunk(len(moments[layer])), moments[layer], strict=True)
            options = {"pairs": pairs, "kept": kept, "ridge": 0.01, "firmness": firmness}
            wanted = torch.cat([nearest_keys(own, moment, **options) for own, moment in heads])
        else:
            wanted = brute_force(weight, [(pairs.keys, pairs.sources)], kept, 0.01, firmness=firmness)
        check_change(edit.deltas[f"unet.{name}"], wanted - weight)


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_rows_that_bring_the_concept_back_are_solved_for_with_its_own(tiny_backbone, rounds):
    heard = {}
    method = ClosedDistraction(metric="identity", residual=None, rounds=rounds, **SMALL)
    edit = method.unlearn(tiny_backbone, SANTA, callbacks=Callbacks(on_data=heard.update))
    scale = row_scale(tiny_backbone)
    pairs = anchor_pairs(
        tiny_backbone, ["santa claus"], concept=SANTA, policy=("concept", "others"), empty="auto", scale=scale
    )
    kept = encode_rows(tiny_backbone, ["", *heard["retain_prompts"]], scale=scale).flatten(0, 1)
    parameters = dict(tiny_backbone.denoiser.named_parameters())
    original = {name: parameters[name].detach().double() for name in heard["parameters"]}
    erased = [(pairs.keys, pairs.sources)]

    def solved():
        return {name: brute_force(weight, erased, kept, 0.01) for name, weight in original.items()}

    edited, attacks = solved(), []
    for _ in range(rounds):
        found = pairs.keys @ undoing(edited, original, damping=0.01).T
        attacks.append(revived(edited, original, found=found, pairs=pairs))
        erased.append((found, pairs.sources))
        edited = solved()
    for name, weight in original.items():
        check_change(edit.deltas[f"unet.{name}"], edited[name] - weight)
    assert edit.provenance.extra.get("revived", []) == pytest.approx(attacks)


def test_a_round_leaves_the_attack_less_to_find(tiny_backbone):
    method = ClosedDistraction(metric="identity", rounds=2, **SMALL)
    first, second = method.unlearn(tiny_backbone, SANTA).provenance.extra["revived"]
    assert first > second


def test_a_firmer_ridge_leaves_less_to_a_shift_of_the_embedding(tiny_backbone):
    """At the same residual; and the record says what the worst shifts of the rows bring back, by the weights alone."""
    options = {"metric": "identity", "residual": 0.5, **SMALL}
    edits = [ClosedDistraction(ridge=ridge, **options).unlearn(tiny_backbone, SANTA) for ridge in (0.01, 1.0)]
    loose, firm = (edit.provenance.extra for edit in edits)
    assert firm["residual"] == pytest.approx(loose["residual"], abs=0.02)
    assert firm["revivable"] < loose["revivable"] - 0.05
    pairs = anchor_pairs(
        tiny_backbone, ["santa claus"], concept=SANTA, policy=("concept", "others"), empty="auto",
        scale=row_scale(tiny_backbone),
    )  # fmt: skip
    parameters = dict(tiny_backbone.denoiser.named_parameters())
    names = [name.removeprefix("unet.") for name in edits[0].deltas]
    original = {name: parameters[name].detach().double() for name in names}
    edited = {name: weight + edits[0].deltas[f"unet.{name}"].double() for name, weight in original.items()}
    assert loose["revivable"] == pytest.approx(revivable(edited, original, pairs=pairs, radius=0.1), abs=1e-4)
