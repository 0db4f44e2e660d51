"""Value decomposition against numbers worked by hand."""

import numpy as np
import pytest
import torch

from aizheimer.concepts import Concept
from aizheimer.edits import load_edit
from aizheimer.edits.hooks.adavd import AdaVDHook, shift, target_part
from aizheimer.errors import ConceptError, EditError, SelectorError
from aizheimer.methods.adavd import AdaVD
from tests.unit.edits.running import apart, draw, edit_of

PROMPTS = ["a cat", "santa claus in noto style"]
CONCEPT = Concept("santa claus")


def paper(cosine):
    return shift(cosine, slope=100.0, centre=0.93, height=2.0)


def whole(cosine):
    return torch.ones_like(cosine)


class TestDecomposition:
    def test_the_shift_by_hand(self):
        assert paper(torch.tensor(0.93)).item() == pytest.approx(1.0)
        assert paper(torch.tensor(1.0, dtype=torch.float64)).item() == pytest.approx(1.9981778976)
        assert paper(torch.tensor(0.5)).item() < 1e-15

    def test_along_the_target_a_value_is_reflected_and_orthogonal_to_it_kept(self):
        target = torch.tensor([[0.0, 2.0, 0.0]])
        values = torch.tensor([[[0.0, 5.0, 0.0], [0.0, 3.0, 0.0], [4.0, 0.0, 1.0], [3.0, 3.0, 0.0]]])
        left = values - target_part(values, target, weight=paper)
        # begin-of-text stays; 3 (1 - 1.998) on the target; orthogonal and 45 degrees (cosine 0.71) stay
        wanted = torch.tensor([[[0.0, 5.0, 0.0], [0.0, -2.9945, 0.0], [4.0, 0.0, 1.0], [3.0, 3.0, 0.0]]])
        torch.testing.assert_close(left, wanted, atol=1e-4, rtol=0)

    def test_a_height_of_one_removes_the_part(self):
        values = torch.tensor([[[1.0, 1.0], [1.0, 1.0]]])
        left = values - target_part(
            values, torch.tensor([[3.0, 3.0]]), weight=lambda x: shift(x, slope=100.0, centre=0.5, height=1.0)
        )
        torch.testing.assert_close(left, torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]))

    def test_several_targets_take_their_common_space_once(self):
        targets = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
        values = torch.tensor([[[9.0, 9.0, 9.0], [3.0, 5.0, 7.0]]])
        left = values - target_part(values, targets, weight=whole)
        torch.testing.assert_close(left, torch.tensor([[[9.0, 9.0, 9.0], [0.0, 0.0, 7.0]]]))

    def test_each_target_has_its_own_weight(self):
        # v = 3 e1 + 5 e2 = -2 t1 + 5 t2 with cosines 0.51 and 0.97: only t2's share, once, goes
        targets = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
        values = torch.tensor([[[0.0, 0.0], [3.0, 5.0]]])
        left = values - target_part(values, targets, weight=lambda x: (x > 0.9).double())
        torch.testing.assert_close(left[0, 1], torch.tensor([-2.0, 0.0]))

    def test_twice_the_same_target_is_no_trouble(self):
        targets = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
        values = torch.tensor([[[0.0, 0.0], [3.0, 3.0]]])
        left = values - target_part(values, targets, weight=whole)
        torch.testing.assert_close(left, torch.zeros(1, 2, 2), atol=1e-6, rtol=0)

    def test_a_target_of_zeros_takes_nothing(self):
        values = torch.ones(1, 3, 2)
        assert torch.equal(target_part(values, torch.zeros(1, 2), weight=whole), torch.zeros_like(values))


@pytest.fixture
def edit(tiny_backbone):
    return AdaVD(centre=0.5).unlearn(tiny_backbone, CONCEPT)


def values_of(pipe, prompt, *, guidance):
    """Return the values of one layer while the pipeline draws: what cross-attention reads."""
    layer = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_v
    seen = []
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    draw(pipe, prompt, steps=1, guidance=guidance)
    handle.remove()
    return seen[0]


class TestOnAPipeline:
    def test_the_conditional_half_only(self, tiny_pipeline, edit):
        before = values_of(tiny_pipeline, "santa claus", guidance=5.0)
        with edit.applied(tiny_pipeline):
            after = values_of(tiny_pipeline, "santa claus", guidance=5.0)
            alone = values_of(tiny_pipeline, "santa claus", guidance=1.0)
        assert torch.equal(after[0], before[0])
        assert torch.equal(after[1, 0], before[1, 0])
        last = 3  # begin, santa, cla, us
        sigma = 2 / (1 + np.exp(-100 * (1 - 0.5)))
        torch.testing.assert_close(after[1, last], (1 - sigma) * before[1, last], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alone[0], after[1])

    def test_joint_changes_the_null_half_as_the_repository_does(self, tiny_pipeline, tiny_backbone):
        edit = AdaVD(fidelity="repository").unlearn(tiny_backbone, CONCEPT)
        assert edit.hook.centre == 0.93
        before = values_of(tiny_pipeline, "santa claus", guidance=5.0)
        with edit.applied(tiny_pipeline):
            after = values_of(tiny_pipeline, "santa claus", guidance=5.0)
        null, text, last = before[0], before[1], 3
        target = torch.cat([null[last], text[last]])
        for token in range(1, 32):
            v, t = torch.cat([null[token], text[token]]), torch.cat([null[token], text[last]])
            cosine = torch.dot(v, t) / (v.norm() * t.norm())
            wanted = v - 2 / (1 + torch.exp(-100 * (cosine - 0.93))) * torch.dot(v, t) / torch.dot(t, t) * t
            torch.testing.assert_close(torch.cat([after[0, token], after[1, token]]), wanted, atol=1e-4, rtol=1e-3)
        assert torch.equal(after[:, 0], before[:, 0])
        torch.testing.assert_close(torch.cat([after[0, last], after[1, last]]), -0.99818 * target, atol=1e-4, rtol=1e-3)

    def test_two_prompts_are_two_single_calls(self, tiny_pipeline, edit):
        with edit.applied(tiny_pipeline):
            both = draw(tiny_pipeline, PROMPTS)
            alone = [draw(tiny_pipeline, prompt, seeds=[i]) for i, prompt in enumerate(PROMPTS)]
        assert apart(both, np.concatenate(alone)) < 1e-4

    def test_off_again_it_draws_the_same_bits(self, tiny_pipeline, edit):
        before = draw(tiny_pipeline, PROMPTS)
        with edit.applied(tiny_pipeline):
            during = draw(tiny_pipeline, PROMPTS)
        assert apart(before, during) > 1e-4
        assert np.array_equal(draw(tiny_pipeline, PROMPTS), before)

    def test_strength_is_a_share_of_the_part(self, tiny_pipeline, edit):
        before = values_of(tiny_pipeline, "santa claus", guidance=1.0)
        found = []
        for strength in (1.0, 0.5):
            with edit.scale(strength).applied(tiny_pipeline):
                found.append(values_of(tiny_pipeline, "santa claus", guidance=1.0) - before)
        torch.testing.assert_close(found[1], found[0] / 2)

    def test_saved_and_loaded(self, tiny_pipeline, edit, tmp_path):
        edit.save(tmp_path)
        found = load_edit(tmp_path)
        assert found.hook.settings == edit.hook.settings
        assert torch.equal(found.hook.rows, edit.hook.rows)
        assert found.size_bytes == edit.size_bytes == 4 * 32
        with edit.applied(tiny_pipeline):
            wanted = draw(tiny_pipeline, PROMPTS)
        with found.applied(tiny_pipeline):
            assert np.array_equal(draw(tiny_pipeline, PROMPTS), wanted)

    def test_another_text_encoder_is_refused(self, tiny_pipeline, edit):
        with torch.no_grad():
            next(tiny_pipeline.text_encoder.parameters()).add_(1)
        with pytest.raises(EditError, match="text encoder"):
            edit.apply_to(tiny_pipeline)

    def test_layers_it_does_not_have(self, tiny_pipeline):
        hook = AdaVDHook(torch.zeros(1, 32), ("mid_block.attn3",), slope=1.0, centre=0.0, height=1.0)
        with pytest.raises(EditError, match=r"no value projection in 'mid_block\.attn3'"):
            edit_of(tiny_pipeline, hook).apply_to(tiny_pipeline)


def test_layers_and_further_targets(tiny_backbone):
    edit = AdaVD(layers="mid_block.*", also=("cat",)).unlearn(tiny_backbone, CONCEPT)
    assert edit.hook.rows.shape == (2, 32)
    assert all(layer.startswith("mid_block") for layer in edit.hook.layers)
    with pytest.raises(SelectorError):
        AdaVD(layers="nowhere").unlearn(tiny_backbone, CONCEPT)
    with pytest.raises(ConceptError, match="has no tokens"):
        AdaVD(also=("",)).unlearn(tiny_backbone, CONCEPT)
