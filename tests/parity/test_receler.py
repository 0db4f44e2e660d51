"""Receler by hand: the eraser, the mask, what is added outside of it, the attack, and the gradients."""

import math

import pytest
import torch

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import backbone_for
from aizheimer.data.sources import Draw
from aizheimer.engine.eraser_term import EraserTerm
from aizheimer.engine.prompt_adversary import PromptAdversary
from aizheimer.errors import InputError
from aizheimer.modules.adapters import Adapters, Bottleneck
from aizheimer.modules.attention import attention_probe
from aizheimer.modules.maps import AttentionMap
from aizheimer.objectives.localised import concept_mask, outside_energy
from tests.slopes import check_slope
from tests.tiny import tiny_pipeline, tiny_world


def random(*shape, key=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator_for(key, "receler"), dtype=dtype)


def attack_of(count, dim, *, steps=1, lr=0.1, weight_decay=0.0):
    options = {"steps": steps, "lr": lr, "weight_decay": weight_decay}
    return PromptAdversary(count, dim, **options, generator=generator_for(0), device=torch.device("cpu"))


class TestTheEraser:
    def test_by_hand(self):
        """h = (1, 2), D = (1, 1), b = -1: GELU(2) = 2 Phi(2), times U = (3, 0), plus b' = (0, 5)."""
        eraser = Bottleneck(
            down=torch.tensor([[1.0, 1.0]]),
            down_bias=torch.tensor([-1.0]),
            up=torch.tensor([[3.0], [0.0]]),
            up_bias=torch.tensor([0.0, 5.0]),
        )
        gelu = 2 * 0.5 * (1 + math.erf(2 / math.sqrt(2)))
        found = eraser(torch.zeros(1, 2), torch.tensor([[1.0, 2.0]]))
        torch.testing.assert_close(found, torch.tensor([[3 * gelu, 5.0]]))

    def test_it_starts_as_nothing(self):
        eraser = Bottleneck.new(torch.zeros(1), channels=16, width=3, generator=generator_for(0))
        assert (eraser(torch.zeros(0), random(2, 5, 16, dtype=torch.float32)) == 0).all()
        assert 0 < eraser.down.abs().max() <= 0.25  # 1 / sqrt(16)
        assert 0 < eraser.down_bias.abs().max() <= 0.25


def attention(values, *, tokens=1):
    """Return a map of one head whose attention to each of some tokens is the value at a pixel."""
    probabilities = torch.tensor(values)[None, None, :, None].repeat(1, 1, 1, tokens)
    return AttentionMap(probabilities, torch.ones(1, tokens, dtype=torch.bool))


class TestTheMask:
    def test_by_hand(self):
        """Two layers of 2 x 2: their mean is (0.2, 0.3, 0.4, 0.6), scaled (0, 0.25, 0.5, 1)."""
        maps = {"a": attention([0.1, 0.2, 0.3, 0.5]), "b": attention([0.3, 0.4, 0.5, 0.7])}
        options = {"size": (4, 4), "shrink": 2}
        assert concept_mask(maps, **options, threshold=0.1).tolist() == [[[False, True], [True, True]]]
        assert concept_mask(maps, **options, threshold=0.45).tolist() == [[[False, False], [True, True]]]

    def test_layers_of_other_resolutions_do_not_count(self):
        maps = {"a": attention([0.0, 0.1, 0.2, 0.3]), "b": attention([0.9] * 16), "c": attention([0.5])}
        found = concept_mask(maps, size=(4, 4), shrink=2, threshold=0.5)
        assert found.tolist() == [[[False, False], [True, True]]]
        with pytest.raises(InputError, match=r"mask_shrink=8: no .* 1 x 1 cells for latents of 8 x 8; there are 2 x 2"):
            concept_mask({"a": maps["a"]}, size=(8, 8), shrink=8, threshold=0.5)

    def test_each_row_is_averaged_over_its_own_tokens_and_scaled_by_itself(self):
        """One token sees (0.1, 0.3); two of the second row see (0, 0.2) and (0.4, 0.2), on average the same."""
        probabilities = torch.tensor([[[[0.1, 0.0], [0.3, 0.0]]], [[[0.0, 0.4], [0.2, 0.2]]]])
        maps = {"a": AttentionMap(probabilities, torch.tensor([[True, False], [True, True]]))}
        found = concept_mask(maps, size=(2, 4), shrink=2, threshold=0.5)
        assert found.tolist() == [[[False, True]], [[False, False]]]  # the second sees no difference


class TestTheRegularisation:
    def test_by_hand(self):
        """Outside are pixels 0 and 1: mean squares 4 and (9 + 1) / 2 = 5, so 4.5; inside does not count."""
        added = torch.tensor([[[2.0, 2.0], [3.0, 1.0], [100.0, 100.0], [7.0, 7.0]]])
        mask = torch.tensor([[[False, False], [True, True]]])
        term = outside_energy({"a": added, "b": torch.zeros(1, 4, 2)}, mask, size=(4, 4))
        assert term.parts["a"] == 4.5
        assert term.total == 2.25

    def test_finer_layers_see_the_nearest_cell_of_the_mask(self):
        added = torch.zeros(1, 16, 1)
        added[0, 2:4] = 3.0  # the upper right cell's two upper pixels
        mask = torch.tensor([[[True, False], [True, True]]])
        term = outside_energy({"a": added}, mask, size=(8, 8))
        assert term.total == 18 / 4
        assert outside_energy({"a": added}, torch.ones(1, 2, 2, dtype=torch.bool), size=(8, 8)).total == 0

    def test_the_gradient_is_zero_inside(self):
        """dR/do = 2 o / (channels * outside pixels) outside."""
        added = random(1, 4, 3).requires_grad_()
        outside_energy({"a": added}, torch.tensor([[[False, True], [True, False]]]), size=(4, 4)).total.backward()
        wanted = (added.detach() / 3) * torch.tensor([1.0, 0.0, 0.0, 1.0])[None, :, None]
        torch.testing.assert_close(added.grad, wanted)


class TestTheAttack:
    def test_vectors_are_written_where_each_prompt_ends(self):
        attack = attack_of(2, 1)
        with torch.no_grad():
            attack.vectors.copy_(torch.tensor([[8.0], [9.0]]))
        words = torch.arange(10.0).reshape(2, 5, 1)
        found = attack.written(words, torch.tensor([1, 3]))
        assert found[..., 0].tolist() == [[0.0, 8.0, 9.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0, 9.0]]
        assert words[0, 1, 0] == 1.0

    def test_it_walks_towards_what_brings_the_concept_back(self):
        """The model answers with the sum of the prompt; words 1 and vectors v: 1 + v = 3 at v = 2."""
        attack = attack_of(1, 1, steps=200)
        words, starts = torch.tensor([[[1.0], [0.0]]]), torch.tensor([1])
        assert 0 <= attack.vectors.item() < 1
        loss = attack.strengthen(lambda p: p.sum(1), words, starts=starts, concept=torch.tensor([[3.0]]))
        assert attack.vectors.item() == pytest.approx(2.0, abs=1e-2)
        assert loss < 1e-4
        assert attack.vectors.grad is None

    def test_its_first_step_is_adams(self):
        """Adam's first step has the length of the rate, against the gradient 2 (v - 2) + decay v < 0."""
        attack = attack_of(1, 1, weight_decay=0.1)
        before = attack.vectors.item()
        attack.strengthen(
            lambda p: p.sum(1), torch.zeros(1, 1, 1), starts=torch.tensor([0]), concept=torch.tensor([[2.0]])
        )
        assert attack.vectors.item() == pytest.approx(before + 0.1, abs=1e-6)

    def test_stored_and_loaded_it_goes_on_as_if_nothing_had_been(self):
        words, starts, concept = torch.zeros(1, 3, 2), torch.tensor([1]), torch.tensor([[2.0, -1.0]])
        one, other = attack_of(2, 2, steps=3), attack_of(2, 2, steps=3)
        one.strengthen(lambda p: p.sum(1), words, starts=starts, concept=concept)
        other.load({name: tensor.clone() for name, tensor in one.tensors().items()})
        for attack in (one, other):
            attack.strengthen(lambda p: p.sum(1), words, starts=starts, concept=concept)
        assert all(torch.equal(tensor, other.tensors()[name]) for name, tensor in one.tensors().items())


class TestTheTerm:
    @pytest.fixture
    def parts(self):
        pipe = tiny_pipeline(seed=4)
        pipe.unet.double()
        backbone = backbone_for(pipe, world=tiny_world())
        erasers = {}
        for i, (name, module) in enumerate(backbone.attention_modules().items()):
            new = Bottleneck.new(module.to_q.weight, channels=32, width=2, generator=generator_for(0, i))
            with torch.no_grad():
                new.up.copy_(0.3 * random(32, 2, key=i))
            erasers[name] = new
        adapters = Adapters(pipe.unet, erasers)
        given = Draw(x_t=random(2, 4, 8, 8), t=torch.tensor([700, 100]), prompt_index=torch.tensor([1, 0]))

        class Given:
            def draw(self, count, *, step, generator):
                return given

        prompts = ["santa claus", "old santa claus"]
        term = EraserTerm(
            backbone=backbone,
            adapters=adapters,
            source=Given(),
            embeddings=backbone.encode_prompts(prompts).double(),
            columns=backbone.token_columns(prompts, "santa claus", policy="concept"),
            ends=torch.tensor([4, 5]),
            null_embedding=backbone.encode_prompts([""]).double(),
            eta=1.5,
            batch_size=2,
            attack=None,
            mask_shrink=2,
            mask_threshold=0.4,
            weight=0.1,
        )
        with backbone.frozen(), adapters.active():
            yield term, adapters, given

    def test_target_mask_and_energy_are_those_of_the_frozen_model(self, parts):
        term, adapters, given = parts
        backbone, words = term.backbone, term.embeddings[given.prompt_index]
        layers = list(backbone.attention_modules())
        with adapters.off(), torch.no_grad():
            with attention_probe(backbone.denoiser, layers, term.columns[given.prompt_index]) as probe:
                concept = backbone.predict(given.x_t, given.t, words)
                mask = concept_mask(probe.maps, size=(8, 8), shrink=2, threshold=0.4)
            null = backbone.predict(given.x_t, given.t, term.null_embedding.expand(2, -1, -1))
        outputs = {}
        handles = [
            backbone.denoiser.get_submodule(layer).register_forward_hook(
                lambda _m, _i, output, layer=layer: outputs.update({layer: output}), prepend=True
            )
            for layer in layers
        ]
        student = backbone.predict(given.x_t, given.t, words)
        for handle in handles:
            handle.remove()
        added = {layer: adapters.adapters[layer](output, output) for layer, output in outputs.items()}
        losses = term.losses(1, generator_for(0))
        erase = (student - (null - 1.5 * (concept - null))).square().mean()
        torch.testing.assert_close(losses["erase"].value, erase)
        torch.testing.assert_close(losses["outside"].value, outside_energy(added, mask, size=(8, 8)).total)
        assert mask.any()
        assert not mask.all()
        assert (losses["outside"].weight, losses["outside"].role) == (0.1, "retain")

    def test_the_gradient_is_that_of_finite_differences(self, parts):
        term, adapters, _ = parts
        chosen = list(adapters.parameters.values())
        directions = [random(*parameter.shape, key=50 + i) for i, parameter in enumerate(chosen)]

        def loss():
            return sum(one.value * one.weight for one in term.losses(1, generator_for(0)).values())

        check_slope(loss, chosen, directions, step=1e-5, rel=1e-4)
