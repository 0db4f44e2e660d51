"""Attacks on the prompt by their equations, worked by hand on a tiny pipeline in double precision."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from aizheimer._seeding import generator_for
from aizheimer.attacks._pictures import by_prompt, target_pictures, target_prompts
from aizheimer.attacks.concept_inversion import ConceptInversion, random_words
from aizheimer.attacks.p4d import P4D, Places, _Search, interleaved
from aizheimer.attacks.ring_a_bell import RingABell, concept_direction, distances
from aizheimer.attacks.soft_prompt import SoftPrompt
from aizheimer.attacks.unlearndiffatk import UnlearnDiffAtk, read_behind
from aizheimer.backbones.base import backbone_for
from aizheimer.data.free_words import text_ids, vocabulary
from aizheimer.data.sources import Draw
from tests.tiny import tiny_pipeline, tiny_world
from tests.unit.attacks.builders import SETTINGS, subject_of


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def backbone():
    return backbone_for(tiny_pipeline(), world=tiny_world())


def noised(backbone, x_0, noise, t):
    """DDPM, eq. 4."""
    alpha = backbone.schedule.alphas_cumprod[t][:, None, None, None]
    return alpha.sqrt() * x_0 + (1 - alpha).sqrt() * noise


def denoised(backbone, x_t, t, rows):
    """The UNet itself."""
    with torch.no_grad():
        return backbone.pipe.unet(x_t, t, encoder_hidden_states=rows).sample


def encoder_with(backbone, vectors):
    """A copy of the text encoder whose table really has more rows."""
    encoder = copy.deepcopy(backbone.pipe.text_encoder)
    table = encoder.get_input_embeddings().weight.detach()
    encoder.set_input_embeddings(torch.nn.Embedding.from_pretrained(torch.cat([table, vectors])))
    return encoder, len(table)


def test_concept_inversion_is_textual_inversion_on_the_edited_model(backbone):
    """The first loss and the gradient's first step, with an encoder that was given the word for good."""
    attack, subject = ConceptInversion(tokens=1, steps=1, lr=0.25, pictures=2, batch=3), subject_of(backbone)
    with subject.edit.applied(backbone.pipe):
        found = attack.attack(subject)
        generator = generator_for(0, "concept-inversion")
        start = random_words(backbone, 1, generator=generator)
        latents = target_pictures(subject, each=2).latents
        prompt = torch.randint(3, (3,), generator=generator)
        picture = torch.randint(2, (3,), generator=generator)
        t = torch.randint(1000, (3,), generator=generator)
        noise = torch.randn((3, 4, 8, 8), generator=generator)
        encoder, word = encoder_with(backbone, start)
        styles = [f"in {style} style" for style in ("noto", "flat", "twemoji")]
        tokenizer, rows = backbone.pipe.tokenizer, []
        for i in prompt.tolist():
            body = [tokenizer.bos_token_id, word, *text_ids(backbone, styles[i]), tokenizer.eos_token_id]
            rows.append(body + [tokenizer.pad_token_id] * (32 - len(body)))
        table = encoder.get_input_embeddings().weight.requires_grad_(True)
        x_t = noised(backbone, latents[prompt, picture], noise, t)
        read = encoder(torch.tensor(rows)).last_hidden_state
        loss = F.mse_loss(backbone.pipe.unet(x_t, t, encoder_hidden_states=read).sample, noise)
        loss.backward()
    assert found.details["losses"] == [pytest.approx(float(loss.detach()), rel=1e-5)]
    # Adam's first step has length lr along each entry's sign.
    torch.testing.assert_close(
        found.tensors["word"], (start - 0.25 * table.grad[word].sign()).detach(), atol=1e-4, rtol=0
    )


def test_soft_prompt_first_steps_by_hand(backbone):
    """One step of length 0.5 along the gradient's direction, in units of each row's length, cut at radius 0.3."""
    attack, subject = SoftPrompt(norm="l2", radius=0.3, steps=1, step=0.5, pictures=1), subject_of(backbone)
    with subject.edit.applied(backbone.pipe):
        found = attack.attack(subject)
        pictures = target_pictures(subject, each=1)
        draw = pictures.noised(backbone, by_prompt(range(3), batch=1), generator=generator_for(0, "soft-prompt"))
        rows = backbone.encode_prompts(pictures.prompts).requires_grad_(True)
        loss = F.mse_loss(backbone.pipe.unet(draw.x_t, draw.t, encoder_hidden_states=rows).sample, draw.target)
        (gradient,) = torch.autograd.grad(loss, rows)
    shift = -0.3 * rows.norm(dim=-1, keepdim=True) * F.normalize(gradient, dim=-1)
    shift[:, 0] = 0
    assert found.details["losses"] == [pytest.approx(float(loss.detach()), rel=1e-5)]
    torch.testing.assert_close(found.tensors["shift"], shift.detach(), atol=1e-4, rtol=1e-3)
    assert found.details["moved"] == pytest.approx([0.3] * 3, abs=1e-3)


class TestUnlearnDiffAtk:
    def test_words_are_read_before_the_prompt(self, backbone):
        """Reading the vectors of two known words is reading the words."""
        own = backbone.word_vectors(torch.tensor([text_ids(backbone, "old cat"), text_ids(backbone, "red dog")]))
        found = read_behind(backbone, ["santa claus in noto style", "a cat"], own)
        wanted = backbone.encode_prompts(["old cat santa claus in noto style", "red dog a cat"])
        torch.testing.assert_close(found.detach(), wanted)

    def test_one_step_by_hand(self, backbone):
        """Draw, read, noise, differentiate for the one-hot, add the decay, step, project."""
        plan = UnlearnDiffAtk(tokens=2, timesteps=1, steps=1, lr=0.25, weight_decay=0.5)
        subject = subject_of(backbone)
        prompts = target_prompts(subject)
        with subject.edit.applied(backbone.pipe), backbone.frozen():
            search = plan._search_for(subject, prompts)
            start = search.chances.detach().clone()
            search.run(500, [0, 1, 2], progress=None)
            generator = generator_for(0, "unlearndiffatk", "search")
            words = vocabulary(backbone)
            drawn = torch.multinomial(start.flatten(0, 1), 1, generator=generator).reshape(3, 2)
            pictures = target_pictures(subject, each=1)
            draw = pictures.noised(backbone, torch.arange(3), generator=generator, t=500)
            one_hot = F.one_hot(drawn, len(words)).float().requires_grad_(True)
            table = backbone.pipe.text_encoder.get_input_embeddings().weight[words]
            read = read_behind(backbone, prompts, one_hot @ table)
            errors = (backbone.pipe.unet(draw.x_t, draw.t, encoder_hidden_states=read).sample - draw.target).square()
            each = errors.mean(dim=(1, 2, 3))
            (gradient,) = torch.autograd.grad(each.sum(), one_hot)
        assert search.losses == [pytest.approx(float(each.mean().detach()), rel=1e-5)]
        # Adam's first step is lr * g / (|g| + eps), with the decay inside g.
        pulled = gradient + 0.5 * start
        moved = start - 0.25 * pulled / (pulled.abs() + 1e-8)
        low, high = moved.amin(-1, keepdim=True) - 1, moved.amax(-1, keepdim=True)
        for _ in range(60):  # the simplex by bisection, as in the published code
            middle = (low + high) / 2
            full = (moved - middle).clamp(min=0).sum(-1, keepdim=True) > 1
            low, high = torch.where(full, middle, low), torch.where(full, high, middle)
        torch.testing.assert_close(search.chances.detach(), (moved - low).clamp(min=0), atol=1e-4, rtol=0)


class TestP4D:
    def test_places_of_k_by_hand(self):
        """As the published code: position i is free if i is a multiple of K + 1, and there are L // K + 1 of them."""
        for length in range(1, 12):
            for every in range(1, 6):
                total = length + length // every + 1
                wanted = [i % (every + 1) == 0 for i in range(total)]
                found = interleaved(list(range(100, 100 + length)), every=every)
                assert [i is None for i in found] == wanted
                assert [i for i in found if i is not None] == list(range(100, 100 + length))

    def test_p4d_searches_against_the_edit_and_not_the_unedited_model(self, backbone):
        """Named after a defect of a peer, whose default searched and compared on the unedited model alone.

        Said with the target's own tokens the loss is that of the edited model against the unedited one: none without
        an edit, and with one what the edit changed.
        """
        for edited in (False, True):
            subject = subject_of(backbone, edited=edited)
            prompts = target_prompts(subject)
            settings = P4D(variant="n", examples=3)
            bodies = [[None, *text_ids(backbone, prompt)[1:]] for prompt in prompts]
            first = [text_ids(backbone, prompt)[0] for prompt in prompts]
            with subject.edit.applied(backbone.pipe) if edited else torch.no_grad():
                examples = settings._examples(subject, generator=generator_for(0))
                plan = Places.of(backbone, bodies)
                search = _Search(settings=settings, backbone=backbone, plan=plan, examples=examples, losses=[])
                found = search.scores(backbone.word_vectors(torch.tensor(first)).detach())
                rows = backbone.encode_prompts(prompts).repeat_interleave(3, dim=0)
                with_edit = denoised(backbone, examples.x_t, examples.t, rows)
            without = denoised(backbone, examples.x_t, examples.t, rows)  # the edit is off again
            wanted = (with_edit - without).square().mean(dim=(1, 2, 3)).reshape(3, 3).mean(1)
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)
            assert bool((wanted > 1e-4).all()) == edited

    def test_the_gradient_is_that_of_the_loss(self, backbone):
        """Against central differences, through text encoder and denoiser, in double precision."""
        backbone.pipe.unet.double()
        backbone.pipe.text_encoder.double()
        generator = generator_for(0)
        draw = Draw(
            x_t=torch.randn(2, 4, 8, 8, generator=generator).double(),
            t=torch.tensor([100, 700]),
            prompt_index=torch.tensor([0, 1]),
            target=torch.randn(2, 4, 8, 8, generator=generator).double(),
        )
        plan = Places.of(backbone, [[None, 5, None], [7, None]])
        settings = P4D(variant="n", examples=1, batch=1)
        search = _Search(settings=settings, backbone=backbone, plan=plan, examples=draw, losses=[])
        vectors = backbone.word_vectors(torch.tensor([11, 12, 13])).detach()
        with backbone.frozen():
            gradient = search._gradient(vectors.clone().requires_grad_(True), generator=generator)
            for place, entry in ((0, 3), (1, 30), (2, 7)):
                step = torch.zeros_like(vectors)
                step[place, entry] = 1e-5
                up, down = search.scores(vectors + step).sum(), search.scores(vectors - step).sum()
                assert float(gradient[place, entry]) == pytest.approx(float(up - down) / 2e-5, rel=1e-3, abs=1e-9)


class TestRingABell:
    def test_direction_and_distance_by_hand(self):
        present = torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])
        absent = torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]]])
        assert concept_direction(present, absent).tolist() == [[1.5, 0.0]]
        read = torch.tensor([[[1.0, 1.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])
        assert distances(read, torch.tensor([[1.0, 0.0], [0.0, 0.0]])).tolist() == [5.0, 1.0]

    def test_the_distance_reported_is_that_of_the_prompt_found(self, backbone):
        """All of it by hand: pairs, direction, target, and the encoding of the tokens that were found."""
        attack, subject = RingABell(tokens=3, pairs=4, population=6, generations=2, eta=2.0), subject_of(backbone)
        with subject.edit.applied(backbone.pipe):
            found = attack.attack(subject).details
        prompts, generator = target_prompts(subject), generator_for(0, "ring-a-bell")
        torch.randint(len(vocabulary(backbone)), (3, 6, 3), generator=generator)  # the first generations
        labels = [item.label for item in backbone.world.vocabulary if item.label != "santa claus"]
        drawn = torch.randint(len(labels), (4,), generator=generator).tolist()
        present = [prompts[i % 3] for i in range(4)]
        absent = [prompt.replace("santa claus", labels[i]) for prompt, i in zip(present, drawn, strict=True)]
        direction = (
            sum(
                backbone.encode_prompts([a])[0] - backbone.encode_prompts([b])[0]
                for a, b in zip(present, absent, strict=True)
            )
            / 4
        )
        tokenizer = backbone.pipe.tokenizer
        for prompt, curve, said in zip(prompts, found["losses"], found["found"], strict=False):
            body = [tokenizer.bos_token_id, *said["tokens"]]
            ids = torch.tensor([body + [tokenizer.eos_token_id] * (32 - len(body))])
            with torch.no_grad():
                read = backbone.pipe.text_encoder(ids).last_hidden_state[0]
            wanted = backbone.encode_prompts([prompt])[0] + 2 * direction
            assert curve[-1] == pytest.approx(float((read - wanted).square().sum()), rel=1e-4)


def test_settings_reach_the_search(backbone):
    """The seed of the pictures that decide is the seed of everything random."""
    subject = subject_of(backbone, edited=False)
    other = dataclasses.replace(subject, settings=SETTINGS.model_copy(update={"seed": 5}))
    assert not torch.equal(target_pictures(subject, each=1).latents, target_pictures(other, each=1).latents)
