"""SPM by hand: the adapter, the gate and its linearity, latent anchoring and its gradient."""

import pytest
import torch
from torch import nn

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import backbone_for
from aizheimer.data.random_embeddings import random_embeddings
from aizheimer.data.sources import Draw
from aizheimer.edits import load_edit
from aizheimer.edits.hooks.spm import SPMHook, embedding_similarity, token_overlap
from aizheimer.engine.anchor import BankAnchor
from aizheimer.engine.anchoring_term import AnchoredTerm
from aizheimer.engine.noise_problem import TargetTerm
from aizheimer.modules.adapters import Adapters, LowRank, flat, transformer_projections
from tests.slopes import check_slope
from tests.tiny import tiny_pipeline, tiny_world
from tests.unit.edits.running import apart, draw, edit_of


def random(*shape, key=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator_for(key, "spm"), dtype=dtype)


class TestTheAdapter:
    def test_by_hand(self):
        """d = (1, 2), u = (3, -1): x = (4, 5) has d'x = 14, so 42 and -14 are added; of rank 2 the half of the sum."""
        x, y = torch.tensor([[4.0, 5.0]]), torch.zeros(1, 2)
        one = LowRank(down=torch.tensor([[1.0, 2.0]]), up=torch.tensor([[3.0], [-1.0]]))
        assert one(x, y).tolist() == [[42.0, -14.0]]
        assert one.weight.tolist() == [[3.0, 6.0], [-1.0, -2.0]]
        two = LowRank(down=torch.tensor([[1.0, 2.0], [1.0, 0.0]]), up=torch.tensor([[3.0, 1.0], [-1.0, 0.0]]))
        assert two(x, y).tolist() == [[(42.0 + 4.0) / 2, -7.0]]

    def test_on_a_convolution_it_is_the_same_at_every_pixel(self):
        adapter = LowRank(down=random(1, 3), up=random(5, 1, key=1))
        x = random(2, 3, 4, 4, key=2)
        pixels = adapter(x.flatten(2).transpose(1, 2), torch.zeros(2, 16, 5))
        torch.testing.assert_close(adapter(x, torch.zeros(2, 5, 4, 4)).flatten(2).transpose(1, 2), pixels)

    def test_it_starts_as_nothing_and_only_up_has_a_gradient(self):
        """dL/dU = (dL/dy) (Dx)' with y = UDx; dL/dD is U'..., zero as long as U is."""
        adapter = LowRank.new(nn.Linear(3, 2), rank=1, generator=generator_for(0))
        x = random(4, 3, dtype=torch.float32)
        added = adapter(x, torch.zeros(4, 2))
        assert (added == 0).all()
        assert adapter.down.abs().max() <= 1.0  # sqrt(3 / 3)
        added.sum().backward()
        torch.testing.assert_close(adapter.up.grad, (x @ adapter.down.T).sum(0).expand(2, 1).detach())
        assert (adapter.down.grad == 0).all()


class TestTheGate:
    def test_overlap_by_hand(self):
        assert token_overlap([1, 2, 3], [2, 3]) == 1.0
        assert token_overlap([1, 2, 3], [3, 4, 5]) == pytest.approx(1 / 3)
        assert token_overlap([1], [2, 2]) == 0.0
        assert token_overlap([7, 8], [7, 7, 9]) == 0.5  # sets: {7, 9}
        assert token_overlap([1], []) == 0.0

    def test_cosine_by_hand(self):
        """(3, 4) and (4, 3) over all entries: 24 / 25; what points away counts as 0."""
        concepts = torch.tensor([[[4.0], [3.0]], [[-3.0], [-4.0]], [[4.0], [-3.0]]])
        found = embedding_similarity(torch.tensor([[[3.0], [4.0]]]), concepts)
        torch.testing.assert_close(found, torch.tensor([[0.96, 0.0, 0.0]], dtype=torch.float64))


class TestRandomEmbeddings:
    def test_lengths_are_between_four_and_six_fifths_of_the_concepts(self):
        concepts = random(2, 8, 16) * torch.tensor([1.0, 10.0])[:, None, None]
        found = random_embeddings(concepts, 50, generator=generator_for(0))
        ratios = found.flatten(1).norm(dim=1) / concepts.flatten(1).norm(dim=1).repeat_interleave(50)
        assert 0.8 <= ratios.min() < 0.85
        assert 1.15 < ratios.max() <= 1.2
        assert torch.equal(found, random_embeddings(concepts, 50, generator=generator_for(0)))

    def test_what_is_the_concept_itself_is_never_drawn(self):
        """In one dimension the cosine is 1 or -1: those along the concept are refused, all others taken."""
        found = random_embeddings(torch.tensor([[[2.0]]]), 40, generator=generator_for(0))
        assert (found < 0).all()


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


def spm(pipe, *, key=0, **options):
    """Return a hook whose adapters are random and strong enough to be seen."""
    found = {}
    for i, (name, module) in enumerate(transformer_projections(pipe.unet).items()):
        new = LowRank.new(module, rank=1, generator=generator_for(key, "down", i))
        up = random(*new.up.shape, key=100 * key + i, dtype=torch.float32)
        found[name] = LowRank(down=new.down.detach(), up=0.3 * up)
    return SPMHook(adapters=flat(found), **{"words": ("santa claus",), **options})


def predict(pipe, prompts):
    backbone = backbone_for(pipe, world=tiny_world())
    x_t = random(len(prompts), 4, 8, 8, key=7, dtype=torch.float32)
    with torch.no_grad():
        return backbone.predict(x_t, torch.full((len(prompts),), 500), backbone.encode_prompts(prompts))


class TestTransport:
    def test_each_row_is_the_network_whose_weights_moved_by_gamma(self, pipe):
        """Not by gamma squared: the prediction is that of W + gamma U D, gamma being the row's own."""
        prompts = ["santa claus", "cat", "a tree in noto style"]
        edit = edit_of(pipe, spm(pipe, gate="embedding"))
        encode = backbone_for(pipe).encode_prompts
        gammas = embedding_similarity(encode(prompts), encode(["santa claus"]))[:, 0].tolist()
        assert gammas[0] == pytest.approx(1.0)
        assert max(gammas[1:]) < 0.97
        with edit.applied(pipe):
            found = predict(pipe, prompts)
        plain = predict(pipe, prompts)
        for row, gamma in enumerate(gammas):
            with edit.as_weights(pipe).scale(gamma).applied(pipe):
                wanted = predict(pipe, prompts)[row]
            torch.testing.assert_close(found[row], wanted, rtol=1e-3, atol=1e-5)
            with edit.as_weights(pipe).scale(gamma**2).applied(pipe):
                squared = predict(pipe, prompts)[row]
            assert gamma > 0.99 or (found[row] - wanted).norm() < 0.05 * (found[row] - squared).norm()
            assert (found[row] - plain[row]).abs().max() > 1e-3

    def test_the_published_code_squares_gamma(self, pipe):
        """ "santa" has one of the three tokens of "santa claus": it gets a ninth of the change, not a third."""
        edit = edit_of(pipe, spm(pipe, gate="tokens", fidelity="repository"))
        prompts = ["santa", "old santa claus"]
        with edit.applied(pipe):
            together = draw(pipe, prompts)
        for row, share in enumerate((1 / 9, 1.0)):
            with edit.as_weights(pipe).scale(share).applied(pipe):
                assert apart(together[row], draw(pipe, prompts[row], seeds=[row])[0]) < 1e-3
        with edit_of(pipe, spm(pipe, gate="tokens")).applied(pipe):
            assert apart(together[0], draw(pipe, "santa", seeds=[0])[0]) > 1e-3

    def test_the_power_is_saved_and_an_older_record_has_the_papers(self, pipe, tmp_path):
        edit_of(pipe, spm(pipe, fidelity="repository")).save(tmp_path)
        loaded = load_edit(tmp_path).hook
        assert isinstance(loaded, SPMHook)
        assert loaded.fidelity == "repository"
        older = {"words": ["santa claus"], "gate": "both"}
        assert SPMHook.from_saved(loaded.tensors, older).fidelity == "paper"
        assert spm(pipe, words=("santa claus",)).settings == older
        with pytest.raises(ValueError, match="fidelity 'cubed' is none of paper, repository"):
            SPMHook.from_saved(loaded.tensors, older | {"fidelity": "cubed"})

    def test_several_add_up_without_mixing(self, pipe):
        """Two SPMs on one pipeline: W + gamma1 U1 D1 + gamma2 U2 D2."""
        first = edit_of(pipe, spm(pipe, gate="embedding"))
        second = edit_of(pipe, spm(pipe, key=1, words=("cat",), gate="embedding"))
        encode = backbone_for(pipe).encode_prompts
        one, two = (float(embedding_similarity(encode(["dog"]), encode([words]))) for words in ("santa claus", "cat"))
        with first.applied(pipe), second.applied(pipe):
            found = predict(pipe, ["dog"])
        with first.as_weights(pipe).scale(one).applied(pipe), second.as_weights(pipe).scale(two).applied(pipe):
            torch.testing.assert_close(found, predict(pipe, ["dog"]), rtol=1e-3, atol=1e-5)

    def test_of_several_words_the_nearest_counts(self, pipe):
        both = edit_of(pipe, spm(pipe, words=("santa claus", "cat"), gate="embedding"))
        with both.applied(pipe):
            found = predict(pipe, ["santa claus", "cat"])
        with both.as_weights(pipe).applied(pipe):
            torch.testing.assert_close(found, predict(pipe, ["santa claus", "cat"]), rtol=1e-3, atol=1e-5)

    def test_drawn_in_one_batch_each_prompt_has_its_own_gamma(self, pipe):
        """ "santa" has one of the three tokens of "santa claus", "cat" none, "old santa claus" all of them."""
        edit = edit_of(pipe, spm(pipe, gate="tokens"))
        prompts = ["santa", "cat", "old santa claus"]
        with edit.applied(pipe):
            together = draw(pipe, prompts)
        for row, (prompt, gamma) in enumerate(zip(prompts, (1 / 3, 0.0, 1.0), strict=True)):
            with edit.as_weights(pipe).scale(gamma).applied(pipe):
                alone = draw(pipe, prompt, seeds=[row])
            assert apart(together[row], alone[0]) < 1e-3
        assert apart(together, draw(pipe, prompts)) > 0.01

    def test_the_larger_of_both_opens_the_gate(self, pipe):
        edit = edit_of(pipe, spm(pipe))
        encode = backbone_for(pipe).encode_prompts
        prompts = ["old santa claus", "cat"]
        gammas = [1.0, float(embedding_similarity(encode(["cat"]), encode(["santa claus"])))]
        with edit.applied(pipe):
            found = draw(pipe, prompts, num_images_per_prompt=1)
        for row, gamma in enumerate(gammas):
            with edit.as_weights(pipe).scale(gamma).applied(pipe):
                assert apart(found[row], draw(pipe, prompts[row], seeds=[row])[0]) < 1e-3


class TestAnchoring:
    @pytest.fixture
    def term(self):
        pipe = tiny_pipeline(seed=3)
        pipe.unet.double()
        backbone = backbone_for(pipe, world=tiny_world())
        adapters = Adapters(
            pipe.unet,
            {
                name: LowRank.new(module, rank=1, generator=generator_for(0, "down", name))
                for name, module in transformer_projections(pipe.unet).items()
            },
        )
        given = Draw(
            x_t=random(2, 4, 8, 8),
            t=torch.tensor([700, 100]),
            prompt_index=torch.tensor([1, 0]),
            target=random(2, 4, 8, 8),
        )

        class Given:
            def draw(self, count, *, step, generator):
                return given

        embeddings = backbone.encode_prompts(["santa claus", "cat"]).double()
        target = TargetTerm(backbone=backbone, source=Given(), embeddings=embeddings, target=BankAnchor(), batch_size=2)
        null = backbone.encode_prompts([""]).double()
        with backbone.frozen(), adapters.active():
            yield (
                AnchoredTerm(
                    target=target, teacher=adapters.off, null_embedding=null, anchors=2, null_anchors=1, weight=10.0
                ),
                adapters,
            )

    def test_it_is_zero_at_the_start_and_then_the_mean_over_anchors_and_the_empty_prompt(self, term):
        term, adapters = term
        at_start = term.losses(1, generator_for(5))
        assert at_start["anchoring"].value == 0
        assert (at_start["anchoring"].weight, at_start["anchoring"].role) == (10.0, "retain")
        with torch.no_grad():
            for i, (name, parameter) in enumerate(adapters.parameters.items()):
                if name.endswith(".up"):
                    parameter.copy_(0.05 * random(*parameter.shape, key=i))
        backbone, given = term.target.backbone, term.target.source.draw(2, step=1, generator=generator_for(0))
        a = random_embeddings(term.target.embeddings[given.prompt_index], 2, generator=generator_for(5))
        errors = []
        for row in range(2):
            for embedding in (a[2 * row], a[2 * row + 1], term.null_embedding[0]):
                inputs = given.x_t[row : row + 1], given.t[row : row + 1], embedding[None]
                with adapters.off():
                    kept = backbone.predict(*inputs)
                errors.append((backbone.predict(*inputs) - kept).square().mean())
        value = term.losses(1, generator_for(5))["anchoring"].value
        torch.testing.assert_close(value, torch.stack(errors).mean(), rtol=1e-6, atol=1e-12)

    def test_the_gradient_is_that_of_finite_differences(self, term):
        term, adapters = term
        names = [name for name in adapters.parameters if name.endswith(("attn2.to_k.down", "attn2.to_k.up"))]
        chosen = [adapters.parameters[name] for name in names]
        with torch.no_grad():
            for i, parameter in enumerate(adapters.parameters.values()):
                parameter.add_(0.05 * random(*parameter.shape, key=i))
        directions = [random(*parameter.shape, key=50 + i) for i, parameter in enumerate(chosen)]

        def loss():
            losses = term.losses(1, generator_for(5))
            return losses["erase"].value + 10 * losses["anchoring"].value

        check_slope(loss, chosen, directions, step=1e-5, rel=1e-4)
