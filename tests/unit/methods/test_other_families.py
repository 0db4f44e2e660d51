"""What methods mean on SDXL, Stable Diffusion 3 and Flux; that they run there is the battery's business."""

import inspect

import pytest
import torch

from aizheimer.backbones import backbone_for
from aizheimer.concepts import Concept
from aizheimer.data.rows import anchor_pairs, encode_rows, prompt_rows
from aizheimer.edits.hooks.calls import CallWatch
from aizheimer.engine.callbacks import Callbacks
from aizheimer.errors import InputError
from aizheimer.methods._closed_form import begin, prior_sums
from tests.contracts.quick import quick_recipe
from tests.tiny import MAX_TOKENS, tiny_world
from tests.tiny_families import BUILDERS
from tests.unit.edits.running import draw

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Euler and numpy 2
SANTA = Concept("santa claus", anchor="old man")
JOINT = ("sd3", "flux")


def backbone_of(family):
    return backbone_for(BUILDERS[family](), world=tiny_world())


@pytest.mark.parametrize("family", JOINT)
def test_a_closed_form_edits_the_entrance_of_the_text_and_leaves_its_bias(family):
    backbone = backbone_of(family)
    edit = quick_recipe("uce", "ridge=1e-6", "preserve_scale=0").method.unlearn(backbone, SANTA)
    assert set(edit.deltas) == {"unet.context_embedder.weight"}
    layer = backbone.denoiser.context_embedder
    before, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    rows = [backbone.encode_prompts([words])[0] for words in ("santa claus", "old man")]
    places = anchor_pairs(backbone, ["santa claus"], concept=SANTA, policy="last", scale=1.0)
    with edit.applied(backbone.pipe), torch.no_grad():
        assert torch.equal(layer.bias, bias)
        answered = layer(places.keys.float())
    wanted = torch.nn.functional.linear(places.sources.float(), before, bias)
    assert torch.allclose(answered, wanted, atol=1e-2)
    assert not torch.allclose(layer(places.keys.float()), wanted, atol=1e-2)
    assert not torch.equal(*rows)


def test_everyday_prompts_of_stable_diffusion_3_are_read_in_both_windows_up_to_their_ends():
    backbone = backbone_of("sd3")
    task = begin(backbone, SANTA, method=quick_recipe("oce").method, prompts="bare", callbacks=None)
    found = prior_sums(task, prompts=1000, padding=False)
    world, kept = backbone.world, []
    everyday = [text for item in world.vocabulary[1:] for text in world.prompts_for(item.label)]
    for text in (*everyday, *world.general_prompts):
        rows = encode_rows(backbone, [text], scale=task.scale)[0]
        clip, t5 = (len(one(text).input_ids) for one in (backbone.pipe.tokenizer, backbone.pipe.tokenizer_3))
        kept += [rows[:clip], rows[MAX_TOKENS : MAX_TOKENS + t5]]
    rows = torch.cat(kept)
    assert found.count == len(rows)
    torch.testing.assert_close(found.gram, rows.T @ rows / len(rows), rtol=1e-6, atol=1e-9)


def test_rows_of_stable_diffusion_3_are_those_of_both_windows():
    backbone = backbone_of("sd3")
    pairs = anchor_pairs(backbone, ["santa claus in noto style"], concept=SANTA, policy="last", scale=1.0)
    here, there = (
        backbone.encode_prompts([f"{words} in noto style"])[0].double() for words in ("santa claus", "old man")
    )
    assert torch.equal(pairs.keys, here[[3, MAX_TOKENS + 2]])
    assert torch.equal(pairs.sources, there[[2, MAX_TOKENS + 1]])
    whole = prompt_rows(backbone, ["cat"], policy="all", scale=1.0)
    assert torch.equal(whole, backbone.encode_prompts(["cat"])[0].double())
    last = prompt_rows(backbone, ["old man"], policy="last", scale=1.0)
    assert torch.equal(last, backbone.encode_prompts(["old man"])[0].double()[[2, MAX_TOKENS + 1]])


@pytest.mark.parametrize("family", JOINT)
def test_image_queries_learn_to_look_away_from_the_words(family):
    looks = []
    overrides = (
        "start=null",
        "anchor_weight=0",
        "loss=resteering",
        "token_policy=concept",
        "reconstruction_weight=0.1",
    )
    method = quick_recipe("aizheimer", *overrides, "training.steps=12", "training.monitor_every=12").method
    edit = method.unlearn(backbone_of(family), SANTA, callbacks=Callbacks(on_monitor=looks.append))
    assert looks[-1]["attention_mass"] < 0.9 * looks[0]["attention_mass"]
    assert {name.split(".")[-2] for name in edit.deltas} <= {"add_k_proj", "add_v_proj", "to_k", "to_v"}


def test_the_closed_form_and_training_work_on_the_same_weights():
    """What the closed form began at the entrance goes on learning there."""
    overrides = ("start={average_of: 3, prior_prompts: 8, metric: identity}", "training.steps=2")
    edit = quick_recipe("aizheimer", *overrides).method.unlearn(backbone_of("sd3"), SANTA)
    assert "unet.context_embedder.weight" in edit.deltas
    assert any("add_k_proj" in name for name in edit.deltas)


def test_safe_latent_diffusion_asks_sdxl_with_the_concepts_own_pooled_vector():
    backbone = backbone_of("sdxl")
    edit = quick_recipe("sld").method.unlearn(backbone, SANTA)
    wanted, seen = backbone.condition(["santa claus"]), []

    def note(module, args, kwargs):
        seen.append(inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments)

    unet, plain = backbone.pipe.unet, backbone.pipe.unet.forward
    unet.forward = lambda *args, **kwargs: note(unet, args, kwargs) or plain(*args, **kwargs)
    with edit.applied(backbone.pipe):
        draw(backbone.pipe, ["a cat"], steps=1)
    third = seen[-1]
    assert torch.equal(third["encoder_hidden_states"], wanted.tokens)
    assert torch.equal(third["added_cond_kwargs"]["text_embeds"], wanted.pooled)
    assert third["added_cond_kwargs"]["time_ids"].shape == (1, 6)


def test_a_hooks_own_words_have_their_pooled_vector():
    backbone = backbone_of("sdxl")
    told = CallWatch(backbone.pipe).encode_words(["santa claus"])
    assert torch.equal(told.tokens, backbone.condition(["santa claus"]).tokens)
    assert torch.equal(told.pooled, backbone.condition(["santa claus"]).pooled)


@pytest.mark.parametrize(
    ("name", "override", "said"),
    [
        ("closed-distraction", "metric=queries", "set metric to identity"),
        ("aizheimer", "bank={}", "set bank to null"),
        ("concept-ablation", "detach_begin_token=true", "set detach_begin_token to false"),
        ("doco", "detach_begin_token=true", "set detach_begin_token to false"),
        ("uce", "layers=^transformer_blocks", "set layers to all"),
    ],
)
def test_a_setting_that_means_nothing_there_is_refused(name, override, said):
    with pytest.raises(InputError, match=said):
        quick_recipe(name, override).method.unlearn(backbone_of("flux"), SANTA)
