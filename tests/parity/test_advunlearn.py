"""AdvUnlearn: the attacker's steps by hand, the published code's quirks, and what the outer loss is made of."""

import pytest
import torch

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import backbone_for
from aizheimer.data.sources import BankSource, Draw
from aizheimer.data.words import LiveEmbeddings, prefixed
from aizheimer.engine.text_terms import AttackedTerm
from aizheimer.objectives.noise_target import target_mse
from aizheimer.objectives.prompt_attack import AttackPlan, search_vectors
from tests.slopes import check_slope
from tests.tiny import tiny_pipeline, tiny_world


def quadratic(vectors):
    """The loss x^2 / 2, whose gradient is x."""
    return vectors.square().sum() / 2


class TestSearch:
    def test_signs_by_hand(self):
        """From 2 in steps of 0.5 along the sign of x: 1.5, 1.0, 0.5."""
        plan = AttackPlan(steps=3, lr=0.5, rule="sign")
        found = search_vectors(quadratic, torch.tensor([[2.0]]), plan=plan)
        assert found.vectors.item() == pytest.approx(0.5)
        assert found.losses == pytest.approx((2.0, 1.125, 0.5))

    def test_adam_by_hand(self):
        """From 1, whose gradient is 1: Adam's own recursion, written out for two steps."""
        plan = AttackPlan(steps=2, lr=0.1)
        x, m, v = 1.0, 0.0, 0.0
        for t in (1, 2):
            g = x
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            x -= 0.1 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
        found = search_vectors(quadratic, torch.tensor([[1.0]]), plan=plan)
        assert found.vectors.item() == pytest.approx(x, rel=1e-6)

    def test_the_repository_sums_gradients_and_returns_what_was_before_the_last_step(self):
        """x^2 / 2 from 1: the second step is along 1 + x_1, and what comes back is x_1 after two steps."""
        start, seen = torch.tensor([[1.0]]), []

        def loss(vectors):
            seen.append(vectors.item())
            return quadratic(vectors)

        plan = AttackPlan(steps=3, lr=0.1)
        found = search_vectors(loss, start, plan=plan, fidelity="repository")
        x, m, v, total = 1.0, 0.0, 0.0, 0.0
        for t in (1, 2):
            total += x
            m, v = 0.9 * m + 0.1 * total, 0.999 * v + 0.001 * total * total
            x -= 0.1 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
        assert found.vectors.item() == pytest.approx(x, rel=1e-6)
        assert found.vectors.item() == pytest.approx(seen[-1])
        assert found.vectors.item() != pytest.approx(
            search_vectors(quadratic, start, plan=plan).vectors.item(), rel=1e-3
        )

    def test_the_repositorys_signs_go_through_adam(self):
        """A constant sign of 1 makes Adam's step 0.1 every time; of three steps the last is not in what comes back."""
        plan = AttackPlan(steps=3, lr=0.1, rule="sign")
        found = search_vectors(quadratic, torch.tensor([[5.0]]), plan=plan, fidelity="repository")
        assert found.vectors.item() == pytest.approx(4.8)

    def test_nothing_else_is_moved_or_given_a_gradient(self):
        start, weight = torch.ones(2, 3), torch.full((3,), 2.0, requires_grad=True)
        found = search_vectors(lambda v: (v * weight).square().sum(), start, plan=AttackPlan(steps=2, lr=0.1))
        assert torch.equal(start, torch.ones(2, 3))
        assert weight.grad is None
        assert not found.vectors.requires_grad

    def test_it_searches_where_gradients_are_off(self):
        with torch.no_grad():
            found = search_vectors(quadratic, torch.ones(1, 1), plan=AttackPlan(steps=1, lr=0.1))
        assert found.vectors.item() == pytest.approx(0.9, rel=1e-5)


@pytest.fixture(scope="module")
def backbone():
    return backbone_for(tiny_pipeline(), world=tiny_world())


def bank(target, count=4):
    x_t = torch.randn(count, 4, 8, 8, generator=generator_for(3, "x"))
    t, index = torch.tensor([900, 700, 400, 100]), torch.tensor([0, 1, 0, 1])
    return BankSource(x_t=x_t, t=t, prompt_index=index, target=target, device=torch.device("cpu"))


def term_of(backbone, **options):
    words = LiveEmbeddings.of(backbone, ["santa claus", "cat in noto style"])
    targets = [torch.randn(4, 4, 8, 8, generator=generator_for(seed, "target")) for seed in (0, 1)]
    defaults = {"plan": AttackPlan(steps=3, lr=0.1), "fidelity": "paper", "warmup": 1, "batch_size": 4}
    return AttackedTerm(
        backbone=backbone,
        source=bank(targets[0]),
        attacked=bank(targets[1]),
        words=words,
        **(defaults | options),
    )


def by_hand(backbone, term, draw: Draw, vectors):
    """The loss of a draw, each prompt read with the vectors written between begin-of-text and its words."""
    predictions = []
    for i, prompt in enumerate(draw.prompt_index.tolist()):
        ids = term.words.ids[prompt : prompt + 1]
        read = backbone.word_vectors(ids)
        if vectors is not None:
            read = torch.cat([read[:, :1], vectors[None], read[:, 1 : -len(vectors)]], dim=1)
        rows = backbone.read_tokens(ids, vectors=read)
        predictions.append(backbone.predict(draw.x_t[i : i + 1], draw.t[i : i + 1], rows))
    return target_mse(torch.cat(predictions), draw.target).total


def test_before_and_after_the_warm_up(backbone):
    term = term_of(backbone)
    with torch.no_grad():
        plain = term.losses(1, generator_for(0))["erase"]
        draw = term.source.draw(4, step=1, generator=generator_for(0))
        torch.testing.assert_close(plain.value, by_hand(backbone, term, draw, None), rtol=1e-4, atol=1e-6)
        assert plain.parts.keys() == {"target"}
        generator = generator_for(0)
        attack = term.attack(2, generator)
        draw = term.source.draw(4, step=2, generator=generator)
        attacked = term.losses(2, generator_for(0))["erase"]
        torch.testing.assert_close(attacked.value, by_hand(backbone, term, draw, attack.vectors), rtol=1e-4, atol=1e-6)
    assert attacked.parts["attack_start"].item() == pytest.approx(attack.losses[0])
    assert attacked.parts["attack_end"].item() == pytest.approx(attack.losses[-1])
    assert len(attack.losses) == 3


def test_the_attack_brings_the_prediction_nearer_to_the_frozen_models(backbone):
    """From one random word, on the whole bank each time, so that losses can be compared."""
    attack = term_of(backbone, plan=AttackPlan(steps=12, lr=0.05)).attack(2, generator_for(1))
    assert attack.losses[-1] < attack.losses[0]


def test_the_text_encoder_learns_from_the_attacked_prompt_and_the_attack_leaves_no_gradient(backbone):
    term, encoder = term_of(backbone), backbone.networks["text_encoder"]
    weight = encoder.get_parameter("encoder.layers.0.mlp.fc1.weight")
    loss = term.losses(2, generator_for(0))["erase"].value
    assert all(parameter.grad is None for parameter in encoder.parameters())
    (gradient,) = torch.autograd.grad(loss, weight)
    assert gradient.abs().sum() > 0


def test_the_gradient_is_that_of_finite_differences():
    """In double precision, through denoiser and text encoder, with the vectors held still."""
    pipe = tiny_pipeline(seed=5)
    pipe.text_encoder.double()
    pipe.unet.double()
    double = backbone_for(pipe, world=tiny_world())
    words = LiveEmbeddings.of(double, ["santa claus", "cat"]).behind(torch.randn(1, 32, dtype=torch.float64))
    x_t = torch.randn(2, 4, 8, 8, generator=generator_for(3, "x"), dtype=torch.float64)
    t, target = torch.tensor([800, 200]), torch.zeros(2, 4, 8, 8, dtype=torch.float64)
    weight = double.networks["text_encoder"].get_parameter("encoder.layers.1.mlp.fc2.weight")
    direction = torch.randn(weight.shape, generator=generator_for(2, "direction"), dtype=torch.float64)

    def loss():
        return target_mse(double.predict(x_t, t, words[torch.tensor([1, 0])]), target).total

    check_slope(loss, [weight], [direction], step=1e-4, rel=1e-4)


def test_a_prefix_goes_after_begin_of_text_and_pads_fall_off_the_end():
    ids = torch.tensor([[1, 5, 6, 9, 9, 9], [1, 7, 9, 9, 9, 9]])
    assert prefixed(ids, torch.tensor([3, 4])).tolist() == [[1, 3, 4, 5, 6, 9], [1, 3, 4, 7, 9, 9]]
    vectors = torch.arange(6.0)[None, :, None].expand(2, 6, 2)
    assert prefixed(vectors, torch.full((1, 2), -1.0))[1, :, 0].tolist() == [0, -1, 1, 2, 3, 4]
