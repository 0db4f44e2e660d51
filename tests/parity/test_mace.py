"""MACE's three stages: both solves against least squares, the suppression loss by hand."""

import math

import pytest
import torch

from aizheimer.concepts import Concept
from aizheimer.data.rows import anchor_pairs, encode_rows
from aizheimer.edits.edit import Edit
from aizheimer.edits.provenance import ConceptRecord, Provenance
from aizheimer.engine.callbacks import Callbacks
from aizheimer.methods._suppression import attended, importance, suppress, suppression_loss
from aizheimer.methods.mace import MACE, answers, fuse
from aizheimer.modules.attention import attention_probe
from aizheimer.modules.maps import AttentionMap, mass
from aizheimer.modules.ridge import RidgeSums, projection_weights
from tests.optimum import check_change

SMALL = {"retain_neighbours": 2, "retain_others": 1, "retain_general": 1, "prior_prompts": 8, "lora": False}
SANTA = Concept("santa claus", anchor="old man", keep=("cat",))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def least_squares(weight, groups, ridge):
    """Minimise the sum of weight / n |W k - v|^2 + ridge |W - W0|^2 over groups of (keys, values, weight)."""
    left = [ridge**0.5 * torch.eye(weight.shape[1], dtype=torch.float64)]
    right = [ridge**0.5 * weight.T]
    for keys, values, factor in groups:
        left.append((factor / len(keys)) ** 0.5 * keys)
        right.append((factor / len(keys)) ** 0.5 * values)
    return torch.linalg.lstsq(torch.cat(left), torch.cat(right)).solution.T


@pytest.mark.parametrize("fidelity", ["paper", "repository"])
def test_stage_one_is_the_optimum(tiny_backbone, fidelity):
    heard = {}
    # All but the target's own prompts are everyday prompts: ten labels in three templates, and three general ones.
    options = SMALL | {"prior_prompts": 100, "prior_weight": 0.5, "retain_weight": 2.0, "fidelity": fidelity}
    edit = MACE(ridge=0.1, **options).unlearn(tiny_backbone, SANTA, callbacks=Callbacks(on_data=heard.update))
    world = tiny_backbone.world
    texts = [text for item in world.vocabulary[1:] for text in world.prompts_for(item.label)]
    everyday = encode_rows(tiny_backbone, [*texts, *world.general_prompts]).flatten(0, 1)
    kept = encode_rows(tiny_backbone, ["", *heard["retain_prompts"]]).flatten(0, 1)
    pairs = anchor_pairs(tiny_backbone, heard["forget_prompts"], concept=SANTA, policy="others")
    parameters = dict(tiny_backbone.denoiser.named_parameters())
    for name in heard["parameters"]:
        weight = parameters[name].detach().double()
        groups = [
            (pairs.keys, pairs.sources @ weight.T, 1.0),
            (everyday, everyday @ weight.T, 0.5 if fidelity == "paper" else 0.25),
            (kept, kept @ weight.T, 2.0),
        ]
        check_change(edit.deltas[f"unet.{name}"], least_squares(weight, groups, 0.1) - weight)


def test_stage_three_is_the_optimum():
    weight, update, rows, kept = random(4, 6), random(4, 6, seed=1), random(9, 6, seed=2), random(5, 6, seed=3)
    held = RidgeSums.keep(kept).mean().times(0.7)
    wanted = least_squares(weight, [(rows, rows @ (weight + update).T, 1.0), (kept, kept @ weight.T, 0.7)], 0.2)
    torch.testing.assert_close(
        fuse(weight, answers(weight, update, rows=rows), held=held, ridge=0.2), wanted, rtol=1e-6, atol=1e-9
    )
    torch.testing.assert_close(fuse(weight, answers(weight, 0 * update, rows=rows), held=held, ridge=0.2), weight)


def test_the_concepts_own_rows_are_not_asked_for(tiny_backbone):
    """Stage 1 alone: words around it follow the anchor, and the record says that no more was done."""
    edit = MACE(ridge=1e-6, prior_weight=0, retain_weight=0, **SMALL).unlearn(tiny_backbone, SANTA)
    assert edit.provenance.extra["stages"] == [1]
    assert edit.provenance.extra["residual"] < 0.6
    held = MACE(ridge=1e-6, prior_weight=100, **SMALL).unlearn(tiny_backbone, SANTA)
    assert held.provenance.extra["residual"] > edit.provenance.extra["residual"]
    assert held.provenance.extra["drift"] < edit.provenance.extra["drift"]


def test_timesteps_are_drawn_between_200_and_400():
    chances = importance(1000)
    assert chances.min() > 0
    assert chances[300].item() == pytest.approx(math.tanh(0.05 * 100 / 2))
    assert chances[200:400].sum() / chances.sum() > 0.8


def maps():
    """Two heads, three pixels, two tokens."""
    probabilities = torch.tensor([[[[0.1, 0.1], [0.3, 0.4], [0.0, 0.2]], [[0.1, 0.1], [0.1, 0.2], [0.2, 0.4]]]])
    return {"a": AttentionMap(probabilities, torch.ones(1, 2, dtype=torch.bool))}


def test_masks_and_loss_by_hand():
    # Mean over heads of the sum over tokens: 0.2, 0.5, 0.4; stretched: 0, 1, 2/3.
    seen = maps()
    assert attended(seen["a"], threshold=0.5).tolist() == [[False, True, True]]
    assert attended(seen["a"], threshold=0.9).tolist() == [[False, True, False]]
    masks = {"a": torch.tensor([[False, True, False]])}
    assert suppression_loss(seen, masks).item() == pytest.approx(math.sqrt(0.09 + 0.16 + 0.01 + 0.04))
    everything = math.sqrt(4 * 0.01 + 0.09 + 0.16 + 0.01 + 0.04 + 0.04 + 0.04 + 0.16)
    assert suppression_loss(seen, None).item() == pytest.approx(everything)


@pytest.mark.long
def test_suppression_lowers_attention_to_the_concept(tiny_backbone):
    """The trained updates, put into the layer, take attention off the concept's columns; the pipeline is untouched."""
    modules = tiny_backbone.attention_modules()
    layers = list(modules)
    weights = projection_weights(tiny_backbone.text_projections(layers, ("k", "v")))
    before = tiny_backbone.fingerprint()
    state = torch.get_rng_state()
    options = {"masked": True, "steps": 20, "lr": 0.03, "pictures": 2, "threshold": 0.3, "seed": 0}
    prompts = ["santa claus in noto style", "santa claus in flat style"]
    updates, again = (
        suppress(tiny_backbone, weights, layers=layers, prompts=prompts, concept="santa claus", **options)
        for _ in range(2)
    )
    assert tiny_backbone.fingerprint() == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(updates[name], again[name]) for name in updates)
    ranks = [int(torch.linalg.matrix_rank(update, rtol=1e-4)) for update in updates.values()]
    assert max(ranks) == 1  # none for a layer that nothing asked to move
    columns = tiny_backbone.token_columns(prompts, "santa claus", policy="concept")
    x_t = torch.randn(2, *tiny_backbone.latent_shape, generator=torch.Generator().manual_seed(1))
    record = Provenance(method="mace", concept=ConceptRecord(target="santa claus"), base_fingerprint=before)
    edit = Edit({f"unet.{name}": update.float() for name, update in updates.items()}, record)

    def attention():
        with torch.no_grad(), attention_probe(tiny_backbone.denoiser, layers, columns) as probe:
            tiny_backbone.predict(x_t, torch.tensor([300, 300]), tiny_backbone.encode_prompts(prompts))
            return sum(float(value) for value in mass(probe.maps).values())

    original = attention()
    with edit.applied(tiny_backbone.pipe):
        assert attention() < 0.9 * original


def test_all_three_stages(tiny_backbone):
    options = SMALL | {"lora": True, "lora_steps": 3, "lora_lr": 0.01, "lora_pictures": 1}
    edit = MACE(**options).unlearn(tiny_backbone, SANTA)
    without = MACE(**SMALL).unlearn(tiny_backbone, SANTA)
    assert edit.provenance.extra["stages"] == [1, 2, 3]
    name = next(name for name in edit.deltas if "to_k" in name)
    assert not torch.equal(edit.deltas[name], without.deltas[name])
