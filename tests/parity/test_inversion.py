"""Textual inversion: the pull on the length by hand, and a step of it written out."""

import pytest
import torch

from aizheimer._seeding import generator_for
from aizheimer.data.free_words import text_ids
from aizheimer.data.sources import NoisedSource
from aizheimer.engine.inversion import Inversion, first_vectors, learn_words, pulled, written_with
from tests.trained import tiny_backbone

TARGET = "santa claus"


def test_the_pull_by_hand():
    """A length of 5 moves a tenth of the way to 0.4: 5 - 0.46 = 4.54; what is that long already stays."""
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.4]])
    torch.testing.assert_close(pulled(vectors, norm=0.4, share=0.1), torch.tensor([[2.724, 3.632], [0.0, 0.4]]))
    assert pulled(torch.zeros(1, 2), norm=0.4, share=0.1).tolist() == [[0.0, 0.0]]


def test_the_share_is_a_hundred_rates_up_to_one():
    assert Inversion().share == pytest.approx(0.1)
    assert Inversion(lr=0.02).share == 1.0


def test_the_words_stand_where_the_name_stood():
    prompts = ["Santa  Claus in noto style", "a santa claus, santa claus"]
    assert written_with(prompts, target=TARGET, words="<free0>") == ["<free0> in noto style", "a <free0>, <free0>"]


def test_it_begins_at_the_names_own_tokens():
    """Three tokens of five; the other two are random with entries of size 1."""
    backbone = tiny_backbone()
    start = first_vectors(backbone, TARGET, count=5, generator=generator_for(0, "start"))
    own = backbone.word_vectors(torch.tensor(text_ids(backbone, TARGET))).detach()
    assert torch.equal(start[:3], own)
    assert 0.5 < start[3:].std() < 1.5
    assert torch.equal(first_vectors(backbone, TARGET, count=2, generator=generator_for(0, "start")), own[:2])


def test_a_step_is_adamws_on_the_noises_error_and_then_the_pull():
    """With three words for the name's three tokens, so that the vectors can be given to the text encoder directly.

    AdamW's first step is v (1 - lr wd) - lr g / (|g| + eps).
    """
    backbone, prompts = tiny_backbone(), [f"{TARGET} in noto style", f"{TARGET} in flat style"]
    latents = torch.randn(3, *backbone.latent_shape, generator=generator_for(0, "latents"))
    source = NoisedSource.of(backbone, latents, prompt_index=torch.tensor([0, 1, 1]), prompts=2)
    plan = Inversion(tokens=3, steps=1, lr=0.01, batch_size=2, weight_decay=0.5, norm=0.7)
    told = []
    found = learn_words(
        backbone,
        source,
        prompts=prompts,
        target=TARGET,
        plan=plan,
        generator=generator_for(0, "words"),
        progress=lambda *event: told.append(event),
    )
    generator = generator_for(0, "words")
    start = first_vectors(backbone, TARGET, count=3, generator=generator)
    draw = source.draw(2, step=1, generator=generator)
    vectors = start.clone().requires_grad_(True)
    ids = backbone.tokenize(prompts)[draw.prompt_index]
    read = torch.cat([backbone.word_vectors(ids)[:, :1].detach(), vectors.expand(2, 3, -1)], dim=1)
    read = torch.cat([read, backbone.word_vectors(ids)[:, 4:].detach()], dim=1)
    prediction = backbone.predict(draw.x_t, draw.t, backbone.read_tokens(ids, vectors=read))
    loss = (prediction - draw.target).square().mean()
    (gradient,) = torch.autograd.grad(loss, vectors)
    stepped = start * (1 - 0.01 * 0.5) - 0.01 * gradient / (gradient.abs() + 1e-8)
    lengths = stepped.norm(dim=1, keepdim=True)
    wanted = stepped / lengths * (lengths + 1.0 * (0.7 - lengths))
    assert float(found.losses[0]) == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(found.vectors, wanted, rtol=1e-3, atol=1e-4)
    assert told == [("inversion", 1, 1)]
