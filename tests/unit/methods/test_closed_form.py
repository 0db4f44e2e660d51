"""What all closed-form methods promise, beside the battery of every method."""

import pytest
import torch
from torch import nn

from aizheimer._registry import METHODS
from aizheimer.backbones.base import backbone_for
from aizheimer.concepts import Concept
from aizheimer.engine.callbacks import Callbacks
from aizheimer.errors import ConceptError, SelectorError
from aizheimer.methods._closed_form import begin, prior_sums
from tests.tiny import tiny_pipeline, tiny_world

NAMES = ("uce", "speed", "dp", "oce", "rece", "mace")
SMALL = {"retain_neighbours": 2, "retain_others": 1, "retain_general": 1}
QUICK = {"mace": {"lora_steps": 2, "lora_pictures": 1}}
SANTA = Concept("santa claus", anchor="old man", keep=("cat",))

every_method = pytest.mark.parametrize("name", NAMES)


def unlearn(name, backbone, concept=SANTA, *, callbacks=None, **options):
    return METHODS.get(name)(**SMALL | QUICK.get(name, {}) | options).unlearn(backbone, concept, callbacks=callbacks)


def tensors(backbone):
    return {name: tensor.clone() for name, tensor in backbone.denoiser.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@every_method
def test_no_strength_is_the_identity_and_the_pipeline_is_left_alone(name, tiny_backbone):
    before, heard, state = tensors(tiny_backbone), {}, torch.get_rng_state()
    edit = unlearn(name, tiny_backbone, callbacks=Callbacks(on_data=heard.update))
    assert same(tensors(tiny_backbone), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert heard.keys() >= {"forget_prompts", "retain_prompts", "layers", "parameters"}
    assert any(prompt.startswith("cat ") for prompt in heard["retain_prompts"])
    assert {f"unet.{parameter}" for parameter in heard["parameters"]} == set(edit.deltas)
    with edit.scale(0).applied(tiny_backbone.pipe):
        assert same(tensors(tiny_backbone), before)
    with edit.applied(tiny_backbone.pipe):
        assert not same(tensors(tiny_backbone), before)
    again = unlearn(name, tiny_backbone)
    assert same(dict(edit.deltas), dict(again.deltas))


@every_method
def test_a_bias_stays_in_its_layer(name, tiny_backbone):
    """The same weights with a bias added: the same edit, of the weights alone."""
    options = {"parts": ("v",), "layers": "mid_block"}
    plain = unlearn(name, tiny_backbone, **options)
    for module in tiny_backbone.attention_modules().values():
        biased = nn.Linear(module.to_v.in_features, module.to_v.out_features, bias=True)
        biased.weight = module.to_v.weight
        nn.init.constant_(biased.bias, 3.0)
        module.to_v = biased
    with_bias = unlearn(name, tiny_backbone, **options)
    assert list(with_bias.deltas) == [key for key in plain.deltas if key.endswith(".to_v.weight")]
    assert same(dict(plain.deltas), dict(with_bias.deltas))


@every_method
def test_an_anchor_is_not_needed_on_any_padding(name):
    backbone = backbone_for(tiny_pipeline(pad_token="!"), world=tiny_world())
    edit = unlearn(name, backbone, Concept("santa claus"))
    assert all(delta.isfinite().all() for delta in edit.deltas.values())
    assert not edit.is_noop


@every_method
def test_bad_input_is_told_before_any_work(name, tiny_backbone):
    heard = []
    callbacks = Callbacks(on_data=heard.append)
    with pytest.raises(SelectorError, match="nowhere"):
        unlearn(name, tiny_backbone, layers="nowhere", callbacks=callbacks)
    with pytest.raises(ConceptError, match="cut off"):
        unlearn(name, tiny_backbone, Concept("cat " * 40), callbacks=callbacks)
    nothing = {"retain_neighbours": 0, "retain_others": 0, "retain_general": 0}
    with pytest.raises(ConceptError, match="nothing to retain"):
        unlearn(name, tiny_backbone, Concept("cat"), callbacks=callbacks, **nothing)
    assert heard == []
    with pytest.raises(ValueError, match="Input should be 'k' or 'v'"):
        METHODS.get(name)(parts=("q",))


def test_names_with_the_targets_words_are_not_retained(tiny_backbone):
    method = METHODS.get("uce")(retain_neighbours=10, retain_others=0, retain_general=1)
    task = begin(tiny_backbone, Concept("man", keep=("old  man", "cat")), method=method, prompts="bare", callbacks=None)
    assert "cat" in task.labels
    assert "woman" in task.labels
    assert "old  man" not in task.labels
    assert task.retain_texts == [*task.labels, "a picture"]
    assert task.unmentioned(["An Old Man!", "an old mane"]) == ["an old mane"]


def test_everyday_prompts_leave_the_target_out(tiny_backbone):
    method = METHODS.get("uce")(**SMALL)
    task = begin(tiny_backbone, SANTA, method=method, prompts="bare", callbacks=None)
    everything, some = prior_sums(task, prompts=1000), prior_sums(task, prompts=5)
    tokens = tiny_backbone.max_tokens
    assert (everything.count, some.count) == (33 * tokens, 5 * tokens)  # 10 labels x 3 templates, 3 general prompts
    assert everything.gram.trace().item() == pytest.approx(everything.gram.shape[0], rel=0.2)
    short = prior_sums(task, prompts=1000, padding=False)
    assert short.count < everything.count / 3
    with pytest.raises(ConceptError, match="as a prior"):
        prior_sums(task, prompts=0)


READ = {"average_of": 3, "prior_prompts": 8, "pictures": 1, "picture_steps": 1}


@pytest.mark.parametrize("metric", ["identity", "queries"])
def test_the_rest_is_held_as_firmly_as_the_residual_allows(metric, tiny_backbone):
    method = METHODS.get("closed-distraction")
    found = {}
    for wanted in (0.5, 0.7):
        found[wanted] = method(**SMALL | READ, metric=metric, residual=wanted).unlearn(tiny_backbone, SANTA)
        extra = found[wanted].provenance.extra
        assert wanted - 0.03 < extra["residual"] <= wanted
        given = {"preserve": extra["firmness"], "prior": extra["firmness"], "ridge": 0.01 * extra["firmness"]}
        plain = method(**SMALL | READ, metric=metric, residual=None, **given).unlearn(tiny_backbone, SANTA)
        for name, change in plain.deltas.items():
            torch.testing.assert_close(found[wanted].deltas[name], change, atol=1e-6, rtol=1e-4)
    assert found[0.7].provenance.extra["drift"] < found[0.5].provenance.extra["drift"]
    assert found[0.7].provenance.extra["firmness"] > found[0.5].provenance.extra["firmness"]


def test_a_residual_out_of_reach_does_not_give_the_rest_up(tiny_backbone):
    edit = METHODS.get("closed-distraction")(**SMALL | READ, residual=1e-6).unlearn(tiny_backbone, SANTA)
    assert edit.provenance.extra["firmness"] == pytest.approx(0.1)
    assert edit.provenance.extra["residual"] > 0.01


def test_a_residual_without_anything_to_hold_is_refused():
    with pytest.raises(ValueError, match="preserve and prior are 0; set it to null"):
        METHODS.get("closed-distraction")(preserve=0, prior=0)
