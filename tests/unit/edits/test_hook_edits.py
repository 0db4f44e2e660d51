"""Edits that are a behaviour, or change the text encoder: on, off, stacked, scaled, saved, loaded, told apart."""

import copy
import json

import numpy as np
import pytest
import torch

from aizheimer._registry import HOOKS
from aizheimer.backbones.base import backbone_for
from aizheimer.edits import ConceptRecord, Edit, Hook, Provenance, hooks_on, load_edit, module_fingerprint
from aizheimer.edits.hook import Patches, hook_named
from aizheimer.edits.hooks.negative_prompt import NegativePromptHook
from aizheimer.errors import EditError
from aizheimer.evaluation.generate import PromptJob, generate
from aizheimer.evaluation.image_cache import pipeline_digest
from tests.unit.edits.running import apart, draw, edit_of, same_state, state

HOOK = NegativePromptHook("santa claus")
K = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def text_edit(pipe, *, seed=0, **options):
    name = "text_model.encoder.layers.0.mlp.fc1.weight"
    names = dict(pipe.text_encoder.named_parameters())
    name = next(found for found in names if found.endswith("layers.0.mlp.fc1.weight"))
    delta = torch.randn(names[name].shape, generator=torch.Generator().manual_seed(seed))
    provenance = Provenance(
        method="test",
        concept=ConceptRecord(target="cat"),
        base_fingerprint=backbone_for(pipe).fingerprint(),
        text_fingerprint=module_fingerprint(pipe.text_encoder),
        **options,
    )
    return Edit({f"text_encoder.{name}": delta}, provenance)


class TestHooks:
    @pytest.mark.parametrize("name", HOOKS.names())
    def test_every_registered_hook_is_one(self, name):
        kind = HOOKS.get(name)
        assert kind.name == name
        assert all(hasattr(kind, member) for member in ("tensors", "settings", "from_saved", "install"))

    def test_applied_then_removed_leaves_every_attribute_the_same_object(self, tiny_pipeline):
        draw(tiny_pipeline, "a cat")  # a first call caches some attributes
        before = state(tiny_pipeline)
        with edit_of(tiny_pipeline, HOOK).applied(tiny_pipeline):
            assert not same_state(state(tiny_pipeline), before)
            draw(tiny_pipeline, "a cat")
        draw(tiny_pipeline, "a cat")
        after = state(tiny_pipeline)
        calls = {key for key in before if key.startswith(("pipe:_guidance", "pipe:_num", "scheduler:"))}
        assert same_state(
            {k: v for k, v in before.items() if k not in calls}, {k: after[k] for k in before if k not in calls}
        )
        assert before.keys() == after.keys()

    def test_off_again_it_draws_the_same_bits(self, tiny_pipeline):
        before = draw(tiny_pipeline, ["a cat", "a dog"])
        with edit_of(tiny_pipeline, HOOK).applied(tiny_pipeline):
            during = draw(tiny_pipeline, ["a cat", "a dog"])
        assert apart(before, during) > 1e-4
        assert np.array_equal(draw(tiny_pipeline, ["a cat", "a dog"]), before)

    def test_strength_zero_installs_nothing(self, tiny_pipeline):
        before = state(tiny_pipeline)
        edit = edit_of(tiny_pipeline, HOOK).scale(0)
        assert edit.is_noop
        with edit.applied(tiny_pipeline):
            during = state(tiny_pipeline)
            assert hooks_on(tiny_pipeline) == []
        during = {key: value for key, value in during.items() if not key.endswith("_aizheimer_applied")}
        assert same_state(during, before)

    def test_stacked_with_weights_they_come_off_in_reverse(self, tiny_pipeline):
        before = state(tiny_pipeline)
        second, third = edit_of(tiny_pipeline, HOOK), edit_of(tiny_pipeline, NegativePromptHook("cat"))
        weights = Edit({f"unet.{K}": torch.ones(32, 32)}, second.provenance)
        below, above, top = (edit.apply_to(tiny_pipeline) for edit in (weights, second, third))
        for handle in (below, above):
            with pytest.raises(EditError, match="remove that one first"):
                handle.remove()
        for handle in (top, above, below, below):
            handle.remove()
        assert same_state(state(tiny_pipeline), before)

    def test_a_hook_that_fails_to_install_leaves_no_weights_behind(self, tiny_pipeline):
        class Failing(NegativePromptHook):
            def install(self, pipe, *, strength):
                raise EditError("not here")

        before = state(tiny_pipeline)
        edit = Edit({f"unet.{K}": torch.ones(32, 32)}, edit_of(tiny_pipeline, HOOK).provenance, Failing("cat"))
        with pytest.raises(EditError, match="not here"):
            edit.apply_to(tiny_pipeline)
        assert same_state(state(tiny_pipeline), before)

    def test_a_copy_of_a_hooked_pipeline_is_on_its_own(self, tiny_pipeline):
        plain = draw(tiny_pipeline, "a cat")
        handle = edit_of(tiny_pipeline, HOOK).apply_to(tiny_pipeline)
        other, hooked = copy.deepcopy(tiny_pipeline), draw(tiny_pipeline, "a cat")
        handle.remove()
        with torch.no_grad():
            tiny_pipeline.unet.conv_in.weight.zero_()
        assert np.array_equal(draw(other, "a cat"), hooked)
        assert apart(hooked, plain) > 1e-4

    def test_another_base_is_refused(self, tiny_pipeline):
        edit = edit_of(tiny_pipeline, HOOK)
        with torch.no_grad():
            tiny_pipeline.unet.conv_in.bias += 1
        with pytest.raises(EditError, match="this edit was made for"):
            edit.apply_to(tiny_pipeline)

    def test_a_hook_cannot_be_merged_and_weights_can(self, tiny_pipeline):
        edit = edit_of(tiny_pipeline, HOOK)
        assert not edit.mergeable
        assert not edit.is_noop
        assert edit.size_bytes == 0
        with pytest.raises(EditError, match="cannot be merged into weights"):
            edit.merged_state(tiny_pipeline)
        weights = Edit({f"unet.{K}": torch.ones(32, 32)}, edit.provenance)
        assert weights.mergeable
        (merged,) = weights.merged_state(tiny_pipeline).values()
        assert torch.equal(merged, tiny_pipeline.unet.get_parameter(K) + 1)


class TestOnDisk:
    def test_a_hook_comes_back_by_its_name(self, tiny_pipeline, tmp_path):
        edit = edit_of(tiny_pipeline, HOOK).scale(0.5)
        edit.save(tmp_path)
        found = load_edit(tmp_path)
        assert found.hook == HOOK
        assert found.provenance == edit.provenance
        assert isinstance(found.hook, Hook)
        with edit.applied(tiny_pipeline):
            wanted = draw(tiny_pipeline, "a cat")
        with found.applied(tiny_pipeline):
            assert np.array_equal(draw(tiny_pipeline, "a cat"), wanted)

    def test_weights_only_are_written_as_they_always_were(self, tiny_pipeline, tmp_path):
        Edit({f"unet.{K}": torch.ones(32, 32)}, edit_of(tiny_pipeline, HOOK).provenance).save(tmp_path)
        record = json.loads((tmp_path / "edit.json").read_text())
        assert record.keys() == {"format", "sha256", "provenance"}
        assert record["format"] == 1
        del record["provenance"]["text_fingerprint"]  # as written by an older version
        (tmp_path / "edit.json").write_text(json.dumps(record))
        assert load_edit(tmp_path).hook is None

    @pytest.mark.parametrize(
        ("hook", "said"),
        [
            ({"name": "negative-promt", "settings": {}}, "unknown hook.*Did you mean 'negative-prompt'"),
            ({"name": "negative-prompt", "settings": {"word": "cat"}}, "settings or tensors it cannot use"),
            ({"name": "negative-prompt"}, "damaged .*hook"),
            ("negative-prompt", "damaged .*hook"),
        ],
    )
    def test_a_damaged_hook_is_one_line(self, tiny_pipeline, tmp_path, hook, said):
        edit_of(tiny_pipeline, HOOK).save(tmp_path)
        path = tmp_path / "edit.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"hook": hook}))
        with pytest.raises(EditError, match=said) as error:
            load_edit(tmp_path)
        assert "\n" not in str(error.value)

    def test_unknown_hooks_are_named(self):
        with pytest.raises(EditError, match="unknown hook 'x'"):
            hook_named("x", {}, {})


class TestPictures:
    def test_the_digest_knows_the_hook_its_settings_and_its_strength(self, tiny_pipeline):
        digests = {pipeline_digest(tiny_pipeline)}
        edits = [edit_of(tiny_pipeline, HOOK), edit_of(tiny_pipeline, HOOK).scale(0.5)]
        for edit in [*edits, edit_of(tiny_pipeline, NegativePromptHook("cat"))]:
            with edit.applied(tiny_pipeline):
                digests.add(pipeline_digest(tiny_pipeline))
        assert len(digests) == 4
        assert pipeline_digest(tiny_pipeline) in digests
        with edits[0].scale(0).applied(tiny_pipeline):
            assert pipeline_digest(tiny_pipeline) in digests

    def test_before_and_after_never_share_a_picture(self, tiny_pipeline, tmp_path):
        jobs, options = [PromptJob("a cat", 0)], {"steps": 2, "cache_dir": tmp_path}
        before = generate(tiny_pipeline, jobs, **options)
        with edit_of(tiny_pipeline, HOOK).applied(tiny_pipeline):
            assert not np.array_equal(generate(tiny_pipeline, jobs, **options), before)
        assert len(list(tmp_path.rglob("*.safetensors"))) == 2
        assert np.array_equal(generate(tiny_pipeline, jobs, **options), before)


class TestTextEncoder:
    def test_it_is_changed_and_comes_back_bit_for_bit(self, tiny_pipeline):
        before, edit = state(tiny_pipeline), text_edit(tiny_pipeline)
        (name,) = edit.deltas
        original = tiny_pipeline.text_encoder.get_parameter(name.removeprefix("text_encoder.")).clone()
        with edit.applied(tiny_pipeline):
            changed = tiny_pipeline.text_encoder.get_parameter(name.removeprefix("text_encoder."))
            assert torch.equal(changed, original + edit.deltas[name])
        assert same_state(state(tiny_pipeline), before)

    def test_another_text_encoder_is_refused_and_another_unet_is_not(self, tiny_pipeline):
        edit = text_edit(tiny_pipeline)
        with torch.no_grad():
            tiny_pipeline.unet.conv_in.bias += 1
        with edit.applied(tiny_pipeline):
            pass
        with torch.no_grad():
            next(tiny_pipeline.text_encoder.parameters()).add_(1)
        with pytest.raises(EditError, match="with the text encoder of"):
            edit.apply_to(tiny_pipeline)

    def test_two_of_one_base_stack(self, tiny_pipeline):
        before = state(tiny_pipeline)
        first, second = text_edit(tiny_pipeline), text_edit(tiny_pipeline, seed=1)
        with first.applied(tiny_pipeline), second.applied(tiny_pipeline):
            pass
        assert same_state(state(tiny_pipeline), before)

    def test_saved_and_loaded(self, tiny_pipeline, tmp_path):
        edit = text_edit(tiny_pipeline)
        edit.save(tmp_path)
        found = load_edit(tmp_path)
        assert found.deltas.keys() == edit.deltas.keys()
        assert found.provenance == edit.provenance

    def test_without_a_fingerprint_it_is_refused(self, tiny_pipeline):
        provenance = edit_of(tiny_pipeline, HOOK).provenance
        with pytest.raises(EditError, match="does not say which"):
            Edit({"text_encoder.x": torch.ones(1)}, provenance)

    def test_between_names_the_part(self, tiny_pipeline):
        provenance = text_edit(tiny_pipeline).provenance
        before, after = {"a": torch.zeros(1)}, {"a": torch.ones(1)}
        edit = Edit.between(before, after, provenance=provenance, part="text_encoder")
        assert list(edit.deltas) == ["text_encoder.a"]


def test_module_fingerprint_is_the_backbones(tiny_pipeline):
    assert module_fingerprint(tiny_pipeline.unet) == backbone_for(tiny_pipeline).fingerprint()


def test_patches_restore_what_was_there_and_what_was_not():
    class Thing:
        there = "class"

    thing = Thing()
    thing.own = "mine"
    patches = Patches()
    for name in ("there", "own", "own", "new"):
        patches.put(thing, name, "patched")
    assert (thing.there, thing.own, thing.new) == ("patched",) * 3
    patches.remove()
    patches.remove()
    assert vars(thing) == {"own": "mine"}
    assert thing.there == "class"
