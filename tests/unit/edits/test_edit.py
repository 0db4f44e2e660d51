"""Edits go on, come off bit for bit, scale, stack and are refused where they do not belong."""

import copy

import pytest
import torch

from aizheimer.backbones.base import backbone_for
from aizheimer.edits import ConceptRecord, Edit, Provenance
from aizheimer.edits.hooks.negative_prompt import NegativePromptHook
from aizheimer.edits.io import load_edit
from aizheimer.errors import EditError

K = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
BIAS = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.bias"


def provenance(pipe, **options):
    base = backbone_for(pipe).fingerprint()
    return Provenance(method="test", concept=ConceptRecord(target="cat"), base_fingerprint=base, **options)


def edit_of(pipe, *, names=(K, BIAS), seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    deltas = {f"unet.{name}": torch.randn(pipe.unet.get_parameter(name).shape, generator=generator) for name in names}
    return Edit(deltas, provenance(pipe, **options))


def bits(pipe):
    return {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name].view(torch.uint8), b[name].view(torch.uint8)) for name in a)


def test_applied_changes_the_named_tensors_only_and_comes_off_bit_for_bit(tiny_pipeline):
    before, edit = bits(tiny_pipeline), edit_of(tiny_pipeline)
    with edit.applied(tiny_pipeline) as pipe:
        assert pipe is tiny_pipeline
        during = bits(pipe)
    changed = {name for name in before if not torch.equal(before[name], during[name])}
    assert changed == {K, BIAS}
    assert torch.equal(during[K], before[K] + edit.deltas[f"unet.{K}"])
    assert same(bits(tiny_pipeline), before)
    assert "_aizheimer_applied" not in vars(tiny_pipeline.unet)


def test_it_comes_off_when_the_block_fails(tiny_pipeline):
    before = bits(tiny_pipeline)
    with pytest.raises(RuntimeError), edit_of(tiny_pipeline).applied(tiny_pipeline):
        raise RuntimeError
    assert same(bits(tiny_pipeline), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_pipelines_keep_their_type_and_bits(tiny_pipeline, dtype):
    edit = edit_of(tiny_pipeline)
    tiny_pipeline.unet.to(dtype)
    before = bits(tiny_pipeline)
    with edit.applied(tiny_pipeline, check_base=False):
        expected = (before[K].float() + edit.deltas[f"unet.{K}"]).to(dtype)
        assert torch.equal(tiny_pipeline.unet.get_parameter(K), expected)
    assert same(bits(tiny_pipeline), before)


def test_scaling_multiplies(tiny_pipeline):
    before, edit = bits(tiny_pipeline), edit_of(tiny_pipeline)
    half = edit.scale(0.5)
    assert half.provenance.strength == 0.5
    assert half.scale(3).provenance.strength == 1.5
    with half.applied(tiny_pipeline):
        expected = before[K] + 0.5 * edit.deltas[f"unet.{K}"]
        assert torch.equal(tiny_pipeline.unet.get_parameter(K), expected)


def test_scale_zero_is_the_identity_even_for_negative_zero(tiny_pipeline):
    with torch.no_grad():
        tiny_pipeline.unet.get_parameter(K).view(-1)[0] = -0.0
    before, edit = bits(tiny_pipeline), edit_of(tiny_pipeline).scale(0)
    assert edit.is_noop
    with edit.applied(tiny_pipeline):
        assert same(bits(tiny_pipeline), before)


def test_between_keeps_changed_tensors_only(tiny_pipeline):
    before = {"a": torch.zeros(2), "b": torch.ones(3)}
    after = {"a": torch.tensor([0.0, 2.0]), "b": torch.ones(3)}
    edit = Edit.between(before, after, provenance=provenance(tiny_pipeline))
    assert dict(edit.deltas) == {"unet.a": pytest.approx(torch.tensor([0.0, 2.0]))}
    assert edit.size_bytes == 8
    assert not edit.is_noop
    assert Edit.between(before, before, provenance=provenance(tiny_pipeline)).is_noop


def test_another_base_is_named_and_nothing_is_changed(tiny_pipeline):
    edit = edit_of(tiny_pipeline, base_name="emoji/pipeline")
    with torch.no_grad():
        tiny_pipeline.unet.conv_in.bias += 1
    before = bits(tiny_pipeline)
    made_for, this = edit.provenance.base_fingerprint, backbone_for(tiny_pipeline).fingerprint()
    with pytest.raises(EditError, match=rf"made for emoji/pipeline \({made_for}\), this pipeline is .*{this}"):
        edit.apply_to(tiny_pipeline)
    assert same(bits(tiny_pipeline), before)
    with edit.applied(tiny_pipeline, check_base=False):
        assert not same(bits(tiny_pipeline), before)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [(K.replace("to_k", "to_kk"), (1,), "has no tensor .* Did you mean"), (K, (2, 2), r"shape \(2, 2\), this")],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_changed(tiny_pipeline, name, shape, said):
    good = edit_of(tiny_pipeline)
    edit = Edit({**good.deltas, f"unet.{name}": torch.ones(shape)}, good.provenance)
    before = bits(tiny_pipeline)
    with pytest.raises(EditError, match=said):
        edit.apply_to(tiny_pipeline)
    assert same(bits(tiny_pipeline), before)


def test_two_edits_of_one_base_stack_and_come_off_in_reverse(tiny_pipeline):
    first, second = edit_of(tiny_pipeline), edit_of(tiny_pipeline, seed=1, names=(K,))
    before = bits(tiny_pipeline)
    below, above = first.apply_to(tiny_pipeline), second.apply_to(tiny_pipeline)
    expected = before[K] + first.deltas[f"unet.{K}"] + second.deltas[f"unet.{K}"]
    assert torch.equal(tiny_pipeline.unet.get_parameter(K), expected)
    with pytest.raises(EditError, match="remove that one first"):
        below.remove()
    above.remove()
    below.remove()
    assert same(bits(tiny_pipeline), before)
    below.remove()  # once more does nothing
    assert same(bits(tiny_pipeline), before)


def test_a_copy_of_an_edited_pipeline_is_on_its_own(tiny_pipeline):
    before = bits(tiny_pipeline)
    handle = edit_of(tiny_pipeline).apply_to(tiny_pipeline)
    other = copy.deepcopy(tiny_pipeline)
    handle.remove()
    assert same(bits(tiny_pipeline), before)
    assert not same(bits(other), before)


def test_edits_cannot_be_changed(tiny_pipeline):
    edit = edit_of(tiny_pipeline)
    with pytest.raises(TypeError):
        edit.deltas["unet.x"] = torch.zeros(1)


@pytest.mark.parametrize("deltas", [{"vae.x": torch.zeros(1)}, {"unet.x": torch.zeros(1, dtype=torch.float16)}])
def test_only_float32_changes_of_the_denoiser(tiny_pipeline, deltas):
    with pytest.raises(EditError, match=r"wanted float32 changes named unet\.<parameter> or text_encoder\."):
        Edit(deltas, provenance(tiny_pipeline))


def test_the_digest_names_what_an_edit_does(tiny_pipeline, tmp_path):
    edit = edit_of(tiny_pipeline)
    assert edit.digest == edit_of(tiny_pipeline).digest == load_edit(edit.save(tmp_path)).digest
    hooked = Edit(edit.deltas, edit.provenance, NegativePromptHook("cat"))
    others = [edit_of(tiny_pipeline, seed=1), edit_of(tiny_pipeline, names=(K,)), edit.scale(0.5), hooked]
    others.append(Edit(edit.deltas, edit.provenance, NegativePromptHook("dog")))
    assert len({edit.digest, *(other.digest for other in others)}) == 6
