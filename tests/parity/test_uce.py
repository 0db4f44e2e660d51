"""UCE's weights minimise its objective, found by least squares without its formula."""

import pytest
import torch

from aizheimer.concepts import Concept
from aizheimer.data.rows import anchor_pairs, encode_rows, prompt_rows
from aizheimer.engine.callbacks import Callbacks
from aizheimer.methods.uce import UCE
from tests.optimum import check_change

SMALL = {"retain_neighbours": 2, "retain_others": 1, "retain_general": 1}
SANTA = Concept("santa claus", anchor="old man", keep=("cat",))


def stacked(weight, groups, ridge):
    """Minimise the objective as one least-squares problem; groups are (keys, sources, weight)."""
    left = [ridge**0.5 * torch.eye(weight.shape[1], dtype=torch.float64)]
    right = [ridge**0.5 * weight.T]
    for keys, sources, factor in groups:
        left.append(factor**0.5 * keys)
        right.append(factor**0.5 * sources @ weight.T)
    return torch.linalg.lstsq(torch.cat(left), torch.cat(right)).solution.T


@pytest.mark.parametrize("rows", ["2023", "2025"])
def test_it_is_the_optimum_of_the_papers_objective(tiny_backbone, rows):
    heard = {}
    method = UCE(rows=rows, erase_scale=2.0, preserve_scale=0.3, ridge=0.5, **SMALL)
    edit = method.unlearn(tiny_backbone, SANTA, callbacks=Callbacks(on_data=heard.update))
    if rows == "2025":
        pairs = anchor_pairs(tiny_backbone, ["santa claus"], concept=SANTA, policy="last")
        labels = ["cat", *(name for name, _ in heard["neighbours"])]
        others = [p.split(" in ")[0] for p in heard["retain_prompts"]]
        texts = dict.fromkeys([*labels, *(p for p in others if not p.startswith("a "))])
        kept = prompt_rows(tiny_backbone, [*texts, "a picture"], policy="last")
    else:
        pairs = anchor_pairs(tiny_backbone, ["santa claus"], concept=SANTA, policy="last..end")
        kept = encode_rows(tiny_backbone, ["", *heard["retain_prompts"]]).flatten(0, 1)
    groups = [(pairs.keys, pairs.sources, 2.0), (kept, kept, 0.3)]
    parameters = dict(tiny_backbone.denoiser.named_parameters())
    assert len(edit.deltas) == 2 * len(tiny_backbone.attention_modules())
    for name in heard["parameters"]:
        weight = parameters[name].detach().double()
        check_change(edit.deltas[f"unet.{name}"], stacked(weight, groups, 0.5) - weight)


def test_several_anchors_are_averaged(tiny_backbone):
    """The value of two anchors is the mean of theirs: the edit is the mean of both edits, for the keys are the same."""
    one, two, both = (
        UCE(rows="2025", anchors=anchors, **SMALL).unlearn(tiny_backbone, Concept("santa claus"))
        for anchors in (("old man",), ("woman",), ("old man", "woman"))
    )
    for name, delta in both.deltas.items():
        check_change(delta, (one.deltas[name].double() + two.deltas[name].double()) / 2)
        assert not torch.allclose(one.deltas[name], two.deltas[name], atol=1e-4)


def test_nothing_to_erase_changes_nothing(tiny_backbone):
    assert UCE(erase_scale=0, **SMALL).unlearn(tiny_backbone, SANTA).is_noop


def test_the_target_answers_as_the_anchor(tiny_backbone):
    """With a small ridge and no weight on the others, the last row reads as the anchor's."""
    edit = UCE(rows="2025", ridge=1e-6, preserve_scale=0, **SMALL).unlearn(tiny_backbone, SANTA)
    assert edit.provenance.extra["residual"] < 1e-5
    mild = UCE(rows="2025", ridge=5.0, **SMALL).unlearn(tiny_backbone, SANTA)
    assert mild.provenance.extra["residual"] > 0.05


def test_the_encoders_scale_does_not_matter(tiny_backbone):
    """Text rows ten times as long: the same relative change of weights."""
    before = UCE(**SMALL).unlearn(tiny_backbone, SANTA)
    norm = tiny_backbone.pipe.text_encoder.final_layer_norm
    norm.weight.data.mul_(10)
    norm.bias.data.mul_(10)
    after = UCE(**SMALL).unlearn(tiny_backbone, SANTA)
    for name, delta in before.deltas.items():
        torch.testing.assert_close(after.deltas[name], delta, rtol=1e-3, atol=1e-5)


def test_only_the_parts_asked_for(tiny_backbone):
    edit = UCE(parts=("v",), layers="mid_block", **SMALL).unlearn(tiny_backbone, SANTA)
    assert [name.rsplit(".", 2)[-2] for name in edit.deltas] == ["to_v"]


def test_a_style(tiny_backbone):
    concept = Concept("noto", kind="style")
    edit = UCE(prompts="both", empty_anchor="auto", **SMALL).unlearn(tiny_backbone, concept)
    assert not edit.is_noop
