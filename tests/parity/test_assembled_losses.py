"""What each trained method minimises, as it puts it together, against its equation, after the student has moved.

By then the student is told from the teacher, the concept from its anchor and every prompt from the empty one: a term
that is handed one of them in the place of another has another value.
"""

import pytest
import torch
import torch.nn.functional as F

from aizheimer.concepts import Concept
from aizheimer.data.random_embeddings import random_embeddings
from aizheimer.data.sources import BankSource, NoisedSource
from aizheimer.methods.advunlearn import AdvUnlearn
from aizheimer.methods.concept_ablation import ConceptAblation
from aizheimer.methods.doco import DoCo
from aizheimer.methods.esd import ESD
from aizheimer.methods.receler import Receler
from aizheimer.methods.salun import SalUn
from aizheimer.methods.sepme import SepME
from aizheimer.methods.spm import SPM
from aizheimer.objectives.prompt_attack import search_vectors
from tests.assembled import check_losses, mse, same
from tests.trained import small

CONCEPT = Concept("santa claus", anchor="old man")
ALONE = Concept("santa claus")


def anchors(it, words="old man"):
    return [prompt.replace("santa claus", words) for prompt in it.prompts]


def own_rollouts(it, prompts):
    """Return latents that the student draws."""
    return it.material.student_rollouts(it.material.embeddings(prompts))


def away(it, draw, prompts, *, eta=1.0, neutral=None):
    """The target of negative guidance: n - eta (c - n), all the teacher's."""
    c = it.teacher(draw, prompts)
    n = it.null(draw) if neutral is None else it.teacher(draw, neutral)
    return n - eta * (c - n)


@pytest.mark.parametrize("rollout", ["student", "teacher"])
def test_esd(rollout):
    def check(it):
        generator = it.generator()
        if rollout == "student":
            draw = own_rollouts(it, it.prompts).draw(2, step=1, generator=generator)
        else:
            bank = BankSource.of(it.material.forget_banks()[0], target=None, device=torch.device("cpu"))
            draw = bank.draw(2, step=1, generator=generator)
        losses = it.losses()
        same(losses["erase"], mse(it.student(draw, it.prompts), away(it, draw, it.prompts, eta=1.5)))
        _, student, teacher = it.retained(generator)
        same(losses["teacher"], mse(student, teacher), 0.25, "retain")

    check_losses(small(ESD, rollout=rollout, eta=1.5, retain_weight=0.25), ALONE, check)


@pytest.mark.parametrize("rollout", ["student", "teacher"])
def test_esd_of_2024_from_other_words(rollout):
    """The words are trained towards themselves less what the concept adds, s - eta (c - empty)."""

    def check(it):
        words = anchors(it)
        if rollout == "student":
            draw = own_rollouts(it, words).draw(2, step=1, generator=it.generator())
        else:
            draw = it.task.problem.terms[0].source.draw(2, step=1, generator=it.generator())
        s, c = it.teacher(draw, words), it.teacher(draw, it.prompts)
        same(it.losses()["erase"], mse(it.student(draw, words), s - 2.0 * (c - it.null(draw))))

    check_losses(small(ESD, rollout=rollout, convention="2024", eta=2.0, erase_from="old man"), ALONE, check)


@pytest.mark.parametrize("concept", [CONCEPT, ALONE])
def test_spm(concept):
    """Neutral is the anchor where there is one; what is random is held, by the same adapters."""

    def check(it):
        backbone, generator = it.material.backbone, it.generator()
        prompts = [*it.prompts, *(prompt.replace("santa claus", "mrs claus") for prompt in it.prompts)]
        neutral = anchors(it) * 2 if concept.anchor else None
        draw = own_rollouts(it, prompts).draw(2, step=1, generator=generator)
        losses = it.losses()
        target = away(it, draw, prompts, eta=1.5, neutral=neutral)
        same(losses["erase"], mse(it.student(draw, prompts), target))
        concepts = backbone.encode_prompts([prompts[i] for i in draw.prompt_index.tolist()])
        a = torch.cat([random_embeddings(concepts, 2, generator=generator), backbone.encode_prompts([""] * 2)])
        x_t = torch.cat([draw.x_t.repeat_interleave(2, 0), draw.x_t])
        t = torch.cat([draw.t.repeat_interleave(2), draw.t])
        with torch.no_grad():
            moved = mse(backbone.predict(x_t, t, a), it.frozen.predict(x_t, t, a))
        same(losses["anchoring"], moved, 10.0, "retain")

    options = {"eta": 1.5, "also": ("mrs claus",), "anchors": 2, "null_anchors": 1, "anchor_weight": 10.0}
    check_losses(small(SPM, **options), concept, check)


def shift(it, name):
    """Return the change of a projection's weight, as what it answers to unit vectors shows it."""
    module = it.material.backbone.denoiser.get_submodule(name)
    before = it.frozen.denoiser.get_submodule(name).weight
    return module(torch.eye(module.in_features)).T - before


@torch.no_grad()
def l1(it, parts):
    layers = it.material.backbone.attention_modules()
    return torch.stack([shift(it, f"{layer}.{part}").abs().sum() for layer in layers for part in parts]).mean()


def correlation(it, draw, prompts, *, null=None):
    """The mean of what the concept adds, now and before: (e(c) - e(empty)) (e0(c) - e0(empty))."""
    before = it.null(draw)
    after = it.student(draw, prompts) - (before if null is None else null)
    return (after * (it.teacher(draw, prompts) - before)).mean()


SEPME = {"protect": 1, "tolerance": 0.01, "beta": 10.0, "images": "generate:4", "l1_weight": 0.5}


def test_sepme():
    """The empty prompt's prediction is the teacher's: the null space keeps it."""

    def check(it):
        draw = it.material.noised_forget()[0].draw(2, step=1, generator=it.generator())
        losses = it.losses()
        same(losses["correlation"], correlation(it, draw, it.prompts))
        same(losses["l1"], l1(it, ("to_k", "to_v")), 0.5, "retain")

    check_losses(small(SepME, **SEPME), ALONE, check)


def test_sepme_of_several_concepts():
    def check(it):
        generator, values = it.generator(), []
        for words in ("santa claus", "dog"):
            prompts = anchors(it, words)
            source = it.pictures(prompts, 4) if values else it.material.noised_forget()[0]
            draw = source.draw(2, step=1, generator=generator)
            values.append(correlation(it, draw, prompts))
        losses, largest = it.losses(), max(abs(float(value)) for value in values)
        for words, value in zip(("santa claus", "dog"), values, strict=True):
            weight = losses[f"correlation of {words}"].weight
            same(losses[f"correlation of {words}"], value, weight)
            assert weight == pytest.approx(min(largest / abs(float(value)), 10.0), rel=1e-3)

    check_losses(small(SepME, also=("dog",), **SEPME), ALONE, check)


def test_sepme_without_a_null_space():
    """The empty prompt's prediction moves as well, and is the student's."""

    def check(it):
        draw = it.material.noised_forget()[0].draw(2, step=1, generator=it.generator())
        losses = it.losses()
        same(losses["correlation"], correlation(it, draw, it.prompts, null=it.student(draw, [""] * len(it.prompts))))
        # The fourth projection is a module of a list.
        changes = [
            (parameter - dict(it.frozen.denoiser.named_parameters())[name]).abs().sum()
            for name, parameter in it.task.problem.parameters.items()
        ]
        same(losses["l1"], torch.stack(changes).mean(), 0.5, "retain")

    check_losses(small(SepME, **SEPME, decoupled=False), ALONE, check)


def clean(it, draw, prediction):
    """The clean latents that predicted noise implies: (x_t - sqrt(1 - a) e) / sqrt(a)."""
    a = it.frozen.pipe.scheduler.alphas_cumprod[draw.t].view(-1, 1, 1, 1)
    return (draw.x_t - (1 - a).sqrt() * prediction) / a.sqrt()


def test_doco():
    """D learns to say 0 of the teacher's clean latents for the anchor and 1 of the student's for the concept."""

    def check(it):
        words, generator = anchors(it), it.generator()
        source, adversary = it.pictures(words, 4), it.task.companion
        adversary.network = torch.nn.Identity()  # D says of latents what they are
        warming = it.losses(step=1)
        assert list(warming) == ["discriminator"]
        adversary.batches.clear()
        losses = it.losses(step=2)
        draw = source.draw(2, step=2, generator=generator)
        r, f = clean(it, draw, it.teacher(draw, words)), clean(it, draw, it.student(draw, it.prompts))
        value = F.softplus(r).mean() + F.softplus(-f).mean()
        same(losses["discriminator"], value, 0.0, "adversarial")
        same(warming["discriminator"], value, 0.0, "adversarial")
        same(losses["deceive"], F.softplus(f).mean(), 1.0, "adversarial")
        ((anchor, target, deceiving),) = adversary.batches
        assert deceiving
        torch.testing.assert_close(anchor, r, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(target, f, rtol=1e-4, atol=1e-4)
        draw = source.draw(2, step=2, generator=generator)
        same(losses["noise"], mse(it.student(draw, words), draw.target), 0.1, "retain")

    check_losses(small(DoCo, images="generate:4", warmup=1), CONCEPT, check)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_clean_latents_of_doco_are_those_of_a_scheduler(kind):
    """diffusers' own DDIM, asked for its x0, one timestep at a time."""

    def check(it):
        term = it.task.problem.terms[0]
        draw = term.source.draw(2, step=2, generator=it.generator())
        prediction = it.student(draw, it.prompts)
        found, scheduler = term._clean(prediction, draw), it.frozen.pipe.scheduler
        scheduler.set_timesteps(1000)
        for i, t in enumerate(draw.t.tolist()):
            wanted = scheduler.step(prediction[i : i + 1], t, draw.x_t[i : i + 1]).pred_original_sample
            torch.testing.assert_close(found[i : i + 1], wanted, rtol=1e-4, atol=1e-4)

    check_losses(small(DoCo, images="generate:4", warmup=1), CONCEPT, check, prediction_type=kind)


@pytest.mark.parametrize("variant", ["model", "noise"])
def test_concept_ablation(variant):
    """Both sides are the student's: what it says now of the anchor is what it shall say of the concept."""

    def check(it):
        words, generator = anchors(it), it.generator()
        source = it.pictures(words, 4)
        draw = source.draw(2, step=1, generator=generator)
        losses = it.losses()
        target = it.student(draw, words) if variant == "model" else draw.target
        same(losses["erase"], mse(it.student(draw, it.prompts), target))
        _, student, teacher = it.retained(generator)
        same(losses["teacher"], mse(student, teacher), 0.25, "retain")
        draw = source.draw(2, step=1, generator=generator)
        same(losses["noise"], mse(it.student(draw, words), draw.target), 0.5, "retain")

    options = {"images": "generate:4", "retain_weight": 0.25, "regularization_weight": 0.5}
    check_losses(small(ConceptAblation, variant=variant, **options), CONCEPT, check)


def test_salun():
    """The concept's own pictures, under its words as under the anchor's, both the student's; others stay pictures."""

    def check(it):
        generator, data = it.generator(), it.material.data
        draw = it.material.noised_forget()[0].draw(2, step=1, generator=generator)
        losses = it.losses()
        same(losses["erase"], mse(it.student(draw, it.prompts), it.student(draw, anchors(it))))
        bank, prompts = it.material.retain_banks[0], data.retain_prompts
        source = NoisedSource.of(it.frozen, bank.x_0, prompt_index=bank.x_0_prompt_index, prompts=len(prompts))
        draw = source.draw(2, step=1, generator=generator)
        same(losses["noise"], mse(it.student(draw, prompts), draw.target), 0.5, "retain")

    check_losses(small(SalUn, images="generate:4"), CONCEPT, check)


def test_receler():
    """Without its adversary; with one the prompt is attacked, see `TestTheTerm` of its own tests."""

    def check(it):
        draw = own_rollouts(it, it.prompts).draw(2, step=1, generator=it.generator())
        losses = it.losses()
        same(losses["erase"], mse(it.student(draw, it.prompts), away(it, draw, it.prompts, eta=1.5)))
        assert (losses["outside"].weight, losses["outside"].role) == (0.1, "retain")

    check_losses(small(Receler, width=4, attack_steps=0, eta=1.5), ALONE, check)


def test_advunlearn():
    """The denoiser is the teacher's, the text encoder the student's; the attacker wants the teacher's concept back."""

    def check(it):
        backbone, term, generator = it.material.backbone, it.task.problem.terms[0], it.generator()
        bank = BankSource.of(it.material.forget_banks()[0], target=None, device=torch.device("cpu"))
        draw = bank.draw(2, step=1, generator=generator)
        losses = it.losses(step=1)
        same(losses["erase"], mse(it.student(draw, it.prompts), away(it, draw, it.prompts, eta=1.5)))
        _, student, teacher = it.retained(generator)
        same(losses["teacher"], mse(student, teacher), 0.3, "retain")

        def behind(draw, vectors):
            return backbone.predict(draw.x_t, draw.t, term.words.behind(vectors)[draw.prompt_index])

        def regained(vectors):
            draw = bank.draw(2, step=2, generator=generator)
            return mse(behind(draw, vectors), it.teacher(draw, it.prompts))

        generator = it.generator()
        start = torch.randint(len(backbone.pipe.tokenizer), (1,), generator=generator)
        found = search_vectors(regained, backbone.word_vectors(start), plan=it.material.method.attack)
        draw = bank.draw(2, step=2, generator=generator)
        attacked = it.losses(step=2)["erase"]
        same(attacked, mse(behind(draw, found.vectors), away(it, draw, it.prompts, eta=1.5)))
        assert float(attacked.parts["attack_start"]) == pytest.approx(found.losses[0], rel=1e-4)

    attack = {"steps": 2, "lr": 0.1}
    check_losses(small(AdvUnlearn, eta=1.5, warmup=1, attack=attack), ALONE, check)
