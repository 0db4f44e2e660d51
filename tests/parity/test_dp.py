"""DP: exact on the target and on what is retained."""

import torch

from aizheimer.concepts import Concept
from aizheimer.data.rows import prompt_rows
from aizheimer.methods.dp import DP

SMALL = {"retain_neighbours": 3, "retain_others": 2, "retain_general": 1}
SANTA = Concept("santa claus", anchor="old man", keep=("cat",))


def test_it_is_exact_on_both_sides(tiny_backbone):
    """One safe row: the target's values become its shadow on the anchor's; retained rows answer as before."""
    edit = DP(**SMALL).unlearn(tiny_backbone, SANTA)
    assert edit.provenance.extra["drift"] < 1e-10
    assert edit.provenance.extra["residual"] < 1e-8
    target, anchor, cat = prompt_rows(tiny_backbone, ["santa claus", "old man", "cat"], policy="last")
    proxy = (target @ anchor) / (anchor @ anchor) * anchor
    parameters = dict(tiny_backbone.denoiser.named_parameters())
    assert len(edit.deltas) == 2 * len(tiny_backbone.attention_modules())
    for name, delta in edit.deltas.items():
        weight = parameters[name.removeprefix("unet.")].detach().double()
        torch.testing.assert_close((weight + delta.double()) @ target, weight @ proxy, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close((weight + delta.double()) @ cat, weight @ cat, rtol=1e-4, atol=1e-5)


def test_more_safe_words_span_more(tiny_backbone):
    """The shadow on a larger subspace is nearer to the target, so less changes."""
    one = DP(retain_neighbours=2, retain_others=0, retain_general=0)
    sizes = [
        sum(float(delta.norm()) for delta in method.unlearn(tiny_backbone, SANTA).deltas.values())
        for method in (one, one.model_copy(update={"safe": ("woman", "dog", "tree")}))
    ]
    assert sizes[1] < sizes[0]


def test_without_safe_words_the_worlds_general_prompts_are_safe(tiny_backbone):
    edit = DP(**SMALL).unlearn(tiny_backbone, Concept("santa claus"))
    assert edit.provenance.extra["residual"] < 1e-8


def test_templates_that_say_the_same_do_no_harm(tiny_backbone):
    """The encoder is causal: "santa claus in ... style" has one last sub-token, whatever the style."""
    bare, all_of_them = (DP(prompts=prompts, **SMALL).unlearn(tiny_backbone, SANTA) for prompts in ("bare", "both"))
    for name, delta in bare.deltas.items():
        torch.testing.assert_close(all_of_them.deltas[name], delta, rtol=1e-2, atol=1e-3)


def test_a_limited_rank_leaks_and_says_so(tiny_backbone):
    edit = DP(retain_rank=2, **SMALL).unlearn(tiny_backbone, SANTA)
    assert edit.provenance.extra["retained_rank"] == 2
    assert edit.provenance.extra["leakage"] > 0.1
    assert edit.provenance.extra["drift"] > 1e-4
