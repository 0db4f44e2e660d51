"""HiRM's loss and directions by hand, its gradient against finite differences, and where its targets come from."""

import math

import pytest
import torch

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import backbone_for
from aizheimer.data.words import LiveEmbeddings
from aizheimer.engine.text_terms import KeepWordsTerm, MisdirectionsTerm, MisdirectionTerm
from aizheimer.errors import InputError
from aizheimer.modules.text_encoder import captured, last_attention_output
from aizheimer.objectives.misdirection import misdirection, random_direction
from tests.slopes import check_slope
from tests.tiny import MAX_TOKENS, tiny_pipeline, tiny_world

FIRST = "encoder.layers.0.mlp.fc1.weight"


@pytest.fixture(scope="module")
def backbone():
    return backbone_for(tiny_pipeline(), world=tiny_world())


class TestLoss:
    def test_by_hand(self):
        """Two tokens of two entries: errors (1, 2) and (3, 0). Both: (1 + 4 + 9) / 4; the second alone: 9 / 2."""
        hidden = torch.tensor([[[1.0, 2.0], [3.0, 5.0]]], requires_grad=True)
        target = torch.tensor([[[0.0, 0.0], [0.0, 5.0]]])
        both, second = torch.tensor([[True, True]]), torch.tensor([[False, True]])
        assert misdirection(hidden, target, rows=both).total.item() == pytest.approx(3.5)
        term = misdirection(hidden, target, rows=second)
        assert term.total.item() == pytest.approx(4.5)
        (gradient,) = torch.autograd.grad(term.total, hidden)
        assert gradient.flatten().tolist() == [0.0, 0.0, 3.0, 0.0]

    def test_all_rows_are_the_mean_squared_error(self):
        hidden, target = (torch.randn(2, 3, 4, generator=generator_for(i, "h")) for i in (0, 1))
        rows = torch.ones(2, 3, dtype=torch.bool)
        found = misdirection(hidden, target, rows=rows).total
        torch.testing.assert_close(found, torch.nn.functional.mse_loss(hidden, target))

    def test_no_rows_are_refused(self):
        hidden = torch.zeros(1, 2, 3)
        with pytest.raises(InputError, match="mark at least one token"):
            misdirection(hidden, hidden, rows=torch.zeros(1, 2, dtype=torch.bool))


class TestDirection:
    def test_it_has_norm_one_and_positive_entries(self):
        one = random_direction(32, generator=generator_for(0, "d"))
        whole = random_direction(7, 32, generator=generator_for(0, "d"))
        for drawn in (one, whole):
            assert drawn.norm().item() == pytest.approx(1.0)
            assert (drawn >= 0).all()
        assert torch.equal(one, random_direction(32, generator=generator_for(0, "d")))

    def test_500_a_row_is_about_as_far_as_5000_over_the_77_rows_of_the_published_code(self):
        """A row's share of a whole of norm 1 is 1 / sqrt(77), so 5000 is 570 a row."""
        whole = 5000 * random_direction(77, 768, generator=generator_for(0, "d"))
        assert whole.norm(dim=1).mean().item() == pytest.approx(5000 / math.sqrt(77), rel=0.01)


def term_of(backbone, **options):
    words = LiveEmbeddings.of(backbone, ["santa claus", "cat"])
    shape = (2, MAX_TOKENS, 32)
    target = torch.randn(shape, generator=generator_for(5, "target"), dtype=options.pop("dtype", torch.float32))
    rows = torch.rand(shape[:2], generator=generator_for(6, "rows")) > 0.5
    layer = last_attention_output(backbone.networks["text_encoder"])
    term = MisdirectionTerm(words=words, layer=layer, target=target, rows=rows, batch_size=2)
    return MisdirectionsTerm(terms={"misdirection": term})


def test_the_layer_is_the_last_ones_output_of_attention(backbone):
    """Computed again from the last block's own parts."""
    encoder = backbone.networks["text_encoder"]
    last = encoder.encoder.layers[-1]
    layer = last_attention_output(encoder)
    assert layer is last.self_attn.out_proj
    with captured(layer) as outputs, captured(encoder.encoder.layers[0]) as below, torch.no_grad():
        final = backbone.encode_prompts(["santa claus"])
        with_attention = below[0] + outputs[0]
        again = encoder.final_layer_norm(with_attention + last.mlp(last.layer_norm2(with_attention)))
    torch.testing.assert_close(again, final)


def test_the_gradient_is_that_of_finite_differences():
    """In double precision, along one random direction of one weight of the first block."""
    pipe = tiny_pipeline(seed=5)
    pipe.text_encoder.double()
    double = backbone_for(pipe, world=tiny_world())
    term = term_of(double, dtype=torch.float64)
    weight = double.networks["text_encoder"].get_parameter(FIRST)
    direction = torch.randn(weight.shape, generator=generator_for(2, "direction"), dtype=torch.float64)

    def loss():
        return term.losses(1, generator_for(0))["misdirection"].value

    check_slope(loss, [weight], [direction], step=1e-4, rel=1e-5, least=1e-6)


def test_a_batch_is_compared_row_by_row_with_its_own_targets(backbone):
    """Whatever order the batch is drawn in."""
    term = term_of(backbone)
    one = term.first
    with captured(one.layer) as outputs, torch.no_grad():
        backbone.read_tokens(one.words.ids)
        whole = [misdirection(outputs[0], one.target, rows=one.rows).total.item()]
        drawn = [term.losses(1, generator_for(seed))["misdirection"].value.item() for seed in range(4)]
    assert drawn == pytest.approx(whole * 4)


def test_what_is_kept_costs_nothing_before_anything_is_changed(backbone):
    prompts = ["cat", "red apple", ""]
    words, original = LiveEmbeddings.of(backbone, prompts), backbone.encode_prompts(prompts)
    term = KeepWordsTerm(words=words, original=original, batch_size=2, weight=0.5)
    assert term.losses(1, generator_for(0))["words"].value.item() == pytest.approx(0.0, abs=1e-12)
    moved = KeepWordsTerm(words=words, original=original + 2.0, batch_size=2, weight=0.5)
    loss = moved.losses(1, generator_for(0))["words"]
    assert (loss.value.item(), loss.weight, loss.role) == (pytest.approx(4.0, rel=1e-5), 0.5, "retain")
