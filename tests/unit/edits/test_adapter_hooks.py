"""Hooks that hold adapters: put on and taken off, saved and loaded, without words, and as weights."""

import copy
import json

import numpy as np
import pytest
import torch

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import backbone_for
from aizheimer.edits import Edit, load_edit
from aizheimer.edits.hook import WeightHook, describe
from aizheimer.edits.hooks.erasers import ErasersHook
from aizheimer.edits.hooks.spm import SPMHook
from aizheimer.errors import EditError
from tests.unit.edits.running import apart, draw, edit_of, same_state, state

MID = "mid_block.attentions.0"
PROJECTIONS = (f"{MID}.proj_in", f"{MID}.transformer_blocks.0.attn2.to_v", "up_blocks.0.attentions.1.proj_out")


def random(*shape, key):
    return torch.randn(*shape, generator=generator_for(0, "adapter hooks", key))


def spm(**options):
    tensors = {f"{name}.down": random(1, 32, key=name) / 6 for name in PROJECTIONS}
    tensors |= {f"{name}.up": random(32, 1, key=name + "u") for name in PROJECTIONS}
    return SPMHook(adapters=tensors, **{"words": ("santa claus",), **options})


def erasers():
    name = f"{MID}.transformer_blocks.0.attn2"
    shapes = {"down": (3, 32), "down_bias": (3,), "up": (32, 3), "up_bias": (32,)}
    return ErasersHook({f"{name}.{part}": random(*shape, key=part) for part, shape in shapes.items()})


@pytest.fixture(params=[spm, erasers], ids=["spm", "erasers"])
def hook(request):
    return request.param()


def test_applied_then_removed_leaves_every_attribute_the_same_object(tiny_pipeline, hook):
    before, plain = state(tiny_pipeline), draw(tiny_pipeline, "santa claus")
    calls = {key for key in state(tiny_pipeline) if key.startswith(("pipe:_guidance", "pipe:_num", "scheduler:"))}
    with edit_of(tiny_pipeline, hook).applied(tiny_pipeline):
        during = draw(tiny_pipeline, "santa claus")
    after = state(tiny_pipeline)
    kept = [key for key in before if key not in calls]
    assert same_state({key: before[key] for key in kept}, {key: after[key] for key in kept})
    assert apart(plain, during) > 1e-3
    assert np.array_equal(draw(tiny_pipeline, "santa claus"), plain)


def test_half_the_strength_is_half_the_addition(tiny_pipeline, hook):
    edit, module = edit_of(tiny_pipeline, hook), f"{MID}.transformer_blocks.0.attn2"
    backbone, seen = backbone_for(tiny_pipeline), {}
    embeddings, x_t = backbone.encode_prompts(["santa claus"]), random(1, 4, 8, 8, key="x")
    part = tiny_pipeline.unet.get_submodule(module if hook.name == "erasers" else PROJECTIONS[0])
    for strength in (0.0, 0.5, 1.0):
        with edit.scale(strength).applied(tiny_pipeline):
            handle = part.register_forward_hook(lambda _m, _i, output, s=strength: seen.update({s: output.clone()}))
            with torch.no_grad():
                backbone.predict(x_t, 500, embeddings)
            handle.remove()
    assert (seen[1.0] - seen[0.0]).abs().max() > 0.1
    torch.testing.assert_close(seen[0.5] - seen[0.0], (seen[1.0] - seen[0.0]) / 2, rtol=1e-4, atol=1e-5)


def test_saved_and_loaded_it_draws_the_same_bits(tiny_pipeline, tmp_path, hook):
    edit = edit_of(tiny_pipeline, hook)
    edit.save(tmp_path)
    found = load_edit(tmp_path)
    assert describe(found.hook, 1.0) == describe(hook, 1.0)
    assert found.size_bytes == edit.size_bytes > 0
    with edit.applied(tiny_pipeline):
        wanted = draw(tiny_pipeline, ["santa claus", "cat"])
    with found.applied(tiny_pipeline):
        assert np.array_equal(draw(tiny_pipeline, ["santa claus", "cat"]), wanted)


def test_a_copy_of_a_hooked_pipeline_is_on_its_own(tiny_pipeline, hook):
    handle = edit_of(tiny_pipeline, hook).apply_to(tiny_pipeline)
    other, hooked = copy.deepcopy(tiny_pipeline), draw(tiny_pipeline, "cat")
    handle.remove()
    with torch.no_grad():
        tiny_pipeline.unet.conv_in.weight.zero_()
    assert np.array_equal(draw(other, "cat"), hooked)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"gate": "nand"}, "gate 'nand' is none of both, embedding"), ({"words": None}, "settings or tensors it cannot")],
)
def test_damaged_settings_are_one_line(tiny_pipeline, tmp_path, change, said):
    edit_of(tiny_pipeline, spm()).save(tmp_path)
    path = tmp_path / "edit.json"
    record = json.loads(path.read_text())
    record["hook"]["settings"] |= change
    path.write_text(json.dumps(record))
    with pytest.raises(EditError, match=said) as error:
        load_edit(tmp_path)
    assert "\n" not in str(error.value)


def test_adapters_of_the_wrong_kind_are_refused():
    with pytest.raises(TypeError, match="down_bias"):
        SPMHook.from_saved(erasers().tensors, {"words": ["cat"], "gate": "both"})


class TestTheGateWithoutWords:
    def test_embeddings_are_measured_by_their_cosine(self, tiny_pipeline):
        backbone = backbone_for(tiny_pipeline)
        latents = random(1, 4, 8, 8, key="latents")
        options = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "np", "latents": latents}
        given = {"prompt_embeds": backbone.encode_prompts(["cat"])}
        given["negative_prompt_embeds"] = backbone.encode_prompts([""])
        with edit_of(tiny_pipeline, spm(gate="both")).applied(tiny_pipeline):
            both = tiny_pipeline(**given, **options).images
        with edit_of(tiny_pipeline, spm(gate="embedding")).applied(tiny_pipeline):
            assert np.array_equal(tiny_pipeline(**given, **options).images, both)

    def test_a_gate_of_tokens_that_sees_none_is_open(self, tiny_pipeline):
        backbone, x_t = backbone_for(tiny_pipeline), random(1, 4, 8, 8, key="x")
        found = {}
        with torch.no_grad():
            for gate in ("tokens", "none", "embedding"):
                with edit_of(tiny_pipeline, spm(gate=gate)).applied(tiny_pipeline):
                    found[gate] = backbone.predict(x_t, 500, backbone.encode_prompts(["cat"]))
        assert torch.equal(found["tokens"], found["none"])
        assert not torch.allclose(found["embedding"], found["none"])


class TestAsWeights:
    def test_only_what_weights_can_hold_says_so(self):
        assert isinstance(spm(), WeightHook)
        assert not isinstance(erasers(), WeightHook)

    def test_what_has_no_hook_is_itself(self, tiny_pipeline):
        edit = Edit({"unet.conv_in.bias": torch.ones(16)}, edit_of(tiny_pipeline, None).provenance)
        assert edit.as_weights(tiny_pipeline) is edit

    def test_changes_of_the_edit_and_of_its_hook_add_up(self, tiny_pipeline):
        hook, name = spm(), f"unet.{PROJECTIONS[1]}.weight"
        edit = Edit({name: torch.ones(32, 32)}, edit_of(tiny_pipeline, None).provenance, hook)
        found = edit.as_weights(tiny_pipeline).deltas[name]
        up, down = (hook.tensors[f"{PROJECTIONS[1]}.{part}"] for part in ("up", "down"))
        torch.testing.assert_close(found, 1 + up @ down)

    def test_another_network_is_one_line(self, tiny_pipeline):
        edit = edit_of(tiny_pipeline, spm())
        del tiny_pipeline.unet.mid_block
        with pytest.raises(EditError, match=r"has no module 'mid_block\.attentions\.0\.proj_in'"):
            edit.as_weights(tiny_pipeline)
