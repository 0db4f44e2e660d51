"""What holds for every attack on the prompt, and what each of them promises."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch

from aizheimer.attacks._pictures import target_pictures
from aizheimer.attacks.base import AttackSettings, NotApplicable, Subject
from aizheimer.attacks.concept_inversion import ConceptInversion, in_place
from aizheimer.attacks.p4d import P4D
from aizheimer.attacks.ring_a_bell import RingABell, evolve
from aizheimer.attacks.run import run_attack
from aizheimer.attacks.soft_prompt import SoftPrompt
from aizheimer.attacks.unlearndiffatk import UnlearnDiffAtk, spread
from aizheimer.backbones.base import backbone_for
from aizheimer.concepts.concept import Concept
from aizheimer.data.free_words import free_words, text_ids
from aizheimer.errors import ConceptError, InputError
from tests.contracts.quick import quick_recipe
from tests.snapshot import changed, snapshot
from tests.tiny import tiny_pipeline, tiny_world
from tests.unit.attacks.builders import SANTA, SETTINGS, SMALL, subject_of
from tests.unit.evaluation.builders import MemoryJudge

SEARCHED_ON_THE_EDIT = [name for name in SMALL if name != "ring-a-bell"]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path / "cache"))


def attacked(name, subject, *, random=False):
    """Attack with the edit on, as `run_attack` does."""
    subject = dataclasses.replace(subject, random=random)
    if subject.edit is None:
        return SMALL[name].attack(subject)
    with subject.edit.applied(subject.backbone.pipe):
        return SMALL[name].attack(subject)


@pytest.mark.parametrize("name", list(SMALL))
class TestEvery:
    def test_it_brings_back_pictures_words_and_a_curve_and_leaves_nothing(self, tiny_backbone, name):
        subject = subject_of(tiny_backbone)
        with subject.edit.applied(tiny_backbone.pipe):
            before, config, told = snapshot(tiny_backbone.pipe), dict(tiny_backbone.pipe.config), []
            found = SMALL[name].attack(subject, progress=lambda done, total: told.append((done, total)))
            # Whatever is put on a pipeline and taken off, as its scheduler while it draws, makes a new, equal config.
            assert changed(before, snapshot(tiny_backbone.pipe)) <= {"unet:_aizheimer_applied", "pipe:_internal_dict"}
            assert dict(tiny_backbone.pipe.config) == config
            assert not np.array_equal(found.images, subject.draw(subject.jobs))
        assert found.images.shape == (SETTINGS.images, 32, 32, 3)
        assert found.details["losses"]
        assert np.isfinite(np.concatenate([np.atleast_1d(row) for row in found.details["losses"]])).all()
        json.dumps(found.details)
        assert told == [(i + 1, told[0][1]) for i in range(len(told))]
        assert told[-1][0] == told[-1][1] == found.steps

    def test_the_seed_decides(self, tiny_backbone, name):
        """A peer takes a seed in its settings and passes it on to nothing."""
        subject = subject_of(tiny_backbone)
        first, again = (attacked(name, subject) for _ in range(2))
        other = attacked(name, dataclasses.replace(subject, settings=SETTINGS.model_copy(update={"seed": 7})))
        assert np.array_equal(first.images, again.images)
        assert first.details == again.details
        assert first.details != other.details

    def test_the_random_control_searches_nothing_and_has_the_same_size(self, tiny_backbone, name):
        subject = subject_of(tiny_backbone)
        found, control = (attacked(name, subject, random=random) for random in (False, True))
        assert control.steps == 0
        assert not control.details["losses"]
        assert control.queries == found.queries
        assert not np.array_equal(found.images, control.images)
        words, chance = ([row["tokens"] for row in each.details.get("found", [])] for each in (found, control))
        assert [len(row) for row in words] == [len(row) for row in chance]
        assert words != chance or not words


@pytest.mark.parametrize("name", list(SMALL))
def test_styles_and_velocity(name):
    backbone = backbone_for(tiny_pipeline(prediction_type="v_prediction"), world=tiny_world())
    subject = subject_of(backbone, concept=Concept("noto", kind="style"), edited=False)
    assert len(attacked(name, subject).images) == SETTINGS.images


@pytest.mark.parametrize("name", SEARCHED_ON_THE_EDIT)
def test_the_search_asks_the_edited_model_and_the_pictures_come_from_the_unedited_one(tiny_backbone, name):
    """Where gradients flow the edit is on; where the target's pictures are drawn it is off."""
    subject, pipe = subject_of(tiny_backbone), tiny_backbone.pipe
    weight = next(name.removeprefix("unet.") for name in subject.edit.deltas)
    plain, seen = pipe.unet.get_parameter(weight).clone(), []

    def look(module, args, keywords, output):
        words = keywords["encoder_hidden_states"]
        seen.append((words.requires_grad, torch.equal(module.get_parameter(weight), plain)))

    handle = pipe.unet.register_forward_hook(look, with_kwargs=True)
    try:
        attacked(name, subject)
    finally:
        handle.remove()
    assert {unedited for searching, unedited in seen if searching} == {False}
    assert seen[0] == (False, True)  # the first thing drawn is the target, by the model that still knows it


@pytest.mark.parametrize("name", ["concept-inversion", "soft-prompt", "p4d"])
@pytest.mark.parametrize("method", ["negative-prompt", "sld", "safree"])
def test_runtime_edits_act_on_what_an_attack_draws(tiny_backbone, method, name):
    """They read the prompts of the pipeline's calls: an attack that came with rows of its own would go around them."""
    edit = quick_recipe(method).method.unlearn(tiny_backbone, SANTA)
    subject = dataclasses.replace(subject_of(tiny_backbone), edit=edit, random=True)
    with edit.applied(tiny_backbone.pipe):
        searched = SMALL[name].attack(dataclasses.replace(subject, random=False))
        edited = SMALL[name].attack(subject).images
    plain = SMALL[name].attack(dataclasses.replace(subject, edit=None)).images
    assert searched.details["losses"]
    if method != "safree":  # which finds no trigger among words that mean nothing
        assert not np.array_equal(edited, plain)


def test_run_attack_gives_the_rates_and_the_controls(tiny_backbone, tmp_path):
    found = run_attack(
        SMALL["concept-inversion"],
        backbone=tiny_backbone,
        edit=subject_of(tiny_backbone).edit,
        concept=SANTA,
        judge=MemoryJudge(("santa claus",)),
        settings=SETTINGS,
    ).result
    assert found.unedited is not None
    assert found.random is not None
    assert found.spent.steps == 3
    found.save(tmp_path / "found.json")


class TestConceptInversion:
    def test_the_word_takes_the_concepts_place(self):
        assert in_place("Santa  Claus in noto style", "santa claus", "<w>") == "<w> in noto style"
        with pytest.raises(NotApplicable, match="'cat' is not in 'a dog', so no word can take its place"):
            in_place("a dog", "cat", "<w>")

    @pytest.mark.long
    def test_what_is_learned_is_better_than_where_it_began(self, tiny_backbone):
        """On the same examples, drawn afresh: the word that was searched against the random one it began as."""
        attack, subject = ConceptInversion(tokens=1, steps=60, lr=0.05, pictures=2, batch=4), subject_of(tiny_backbone)
        with subject.edit.applied(tiny_backbone.pipe):
            found = attack.attack(subject).tensors["word"]
            start = attack.attack(dataclasses.replace(subject, random=True)).tensors["word"]
            draw = target_pictures(subject, each=2).noised(
                tiny_backbone, torch.arange(48) % 3, generator=torch.Generator().manual_seed(9)
            )
            errors = []
            for vectors in (start, found):
                with free_words(tiny_backbone, vectors) as words, torch.no_grad():
                    rows = tiny_backbone.encode_prompts(
                        [f"{words.text} in {s} style" for s in ("noto", "flat", "twemoji")]
                    )
                    predicted = tiny_backbone.predict(draw.x_t, draw.t, rows[draw.prompt_index])
                    errors.append(float((predicted - draw.target).square().mean()))
        assert errors[1] < errors[0]

    def test_random_vectors_have_the_length_of_words(self, tiny_backbone):
        table = tiny_backbone.pipe.text_encoder.get_input_embeddings().weight
        found = attacked("concept-inversion", subject_of(tiny_backbone), random=True).tensors["word"]
        assert found.shape == (2, 32)
        torch.testing.assert_close(found.norm(dim=1), table.norm(dim=1).mean().expand(2), atol=1e-2, rtol=0)
        assert not torch.allclose(found[0], found[1])


class TestSoftPrompt:
    @pytest.mark.parametrize(("norm", "radius"), [("l2", 0.1), ("linf", 0.1)])
    def test_the_shift_stays_in_its_ball(self, tiny_backbone, norm, radius):
        subject = subject_of(tiny_backbone)
        rows = tiny_backbone.encode_prompts([f"santa claus in {style} style" for style in ("noto", "flat", "twemoji")])
        for random in (False, True):
            chosen = dataclasses.replace(subject, random=random)
            attack = SoftPrompt(norm=norm, radius=radius, steps=4, step=0.07, pictures=1)
            with subject.edit.applied(tiny_backbone.pipe):
                shift = attack.attack(chosen).tensors["shift"]
            assert (shift[:, 0] == 0).all()
            if norm == "l2":
                share = shift.norm(dim=-1) / rows.norm(dim=-1)
            else:
                share = shift.abs().amax(-1) / rows.square().mean(-1).sqrt()
            torch.testing.assert_close(share.max(), torch.tensor(radius), atol=1e-4, rtol=0)

    def test_without_a_ball_it_goes_where_it_wants(self, tiny_backbone):
        subject = subject_of(tiny_backbone, edited=False)
        attack = SoftPrompt(norm="free", radius=1e-6, steps=4, step=0.5, pictures=1)
        assert min(attack.attack(subject).details["moved"]) > 0.1

    def test_only_the_targets_prompts_are_shifted(self, tiny_backbone):
        from aizheimer.attacks.soft_prompt import shifted_rows

        prompts, shift = ["a cat", "a dog"], torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(0))
        before = tiny_backbone.encode_prompts(["a dog", "", "a cat", "a fox"])
        with shifted_rows(tiny_backbone, tiny_backbone.tokenize(prompts), shift):
            after = tiny_backbone.encode_prompts(["a dog", "", "a cat", "a fox"])
        none = torch.zeros_like(shift[0])
        torch.testing.assert_close(after - before, torch.stack([shift[1], none, shift[0], none]), atol=1e-5, rtol=0)


class TestUnlearnDiffAtk:
    def test_it_stops_at_the_first_success_of_each_picture(self, tiny_backbone, monkeypatch):
        drawn = []
        monkeypatch.setattr(Subject, "shows", lambda self, images: drawn.append(len(images)) or hits.pop(0))
        hits = [np.array([True, False, True, True]), np.array([True])]
        found = UnlearnDiffAtk(tokens=1, timesteps=4, steps=1).attack(subject_of(tiny_backbone, edited=False))
        assert drawn == [4, 1]
        assert found.queries == 5
        assert found.steps == 2  # of 4: nothing was left to look for
        assert found.details["tries_to_success"] == [1, 2, 1, 1]

    def test_a_judge_that_fails_is_not_a_failed_attack(self, tiny_backbone):
        """Named after a defect of a peer, whose judges' exceptions counted as "not found" and so lowered the rate."""

        class Broken(MemoryJudge):
            def judge(self, images):
                raise RuntimeError("no weights")

        with pytest.raises(RuntimeError, match="no weights"):
            SMALL["unlearndiffatk"].attack(subject_of(tiny_backbone, judge=Broken(("santa claus",))))

    def test_timesteps_are_the_middles_of_equal_parts(self):
        assert spread(1000, 50)[:3] == [10, 30, 50]
        assert spread(1000, 3) == [166, 499, 832]
        assert spread(4, 9) == [0, 1, 2, 3]

    def test_a_prompt_without_room_is_refused(self, tiny_backbone):
        with pytest.raises(ConceptError, match="25 free tokens do not fit before"):
            UnlearnDiffAtk(tokens=25).attack(subject_of(tiny_backbone, edited=False))

    def test_words_come_before_the_prompt(self, tiny_backbone):
        found = attacked("unlearndiffatk", subject_of(tiny_backbone)).details["found"]
        assert [len(row["words"]) for row in found] == [2] * 4
        assert found[0]["prompt"].endswith("santa claus in noto style")


class TestP4D:
    def test_k_keeps_the_targets_tokens(self, tiny_backbone):
        found = attacked("p4d-k", subject_of(tiny_backbone)).details["found"][0]["tokens"]
        own = text_ids(tiny_backbone, "santa claus in noto style")  # six: a word before each two, and one after
        assert [found[i] for i in (1, 2, 4, 5, 7, 8)] == own
        assert len(found) == 10

    def test_the_best_prompt_is_kept(self, tiny_backbone):
        """A search of more steps from the same start, looked at as often, never ends with a worse prompt."""
        subject = subject_of(tiny_backbone)
        scores = []
        for steps in (1, 4):
            with subject.edit.applied(tiny_backbone.pipe):
                found = P4D(variant="n", tokens=3, steps=steps, examples=2, look_every=1).attack(subject)
            scores.append(found.details["scores"])
        assert all(late <= early for early, late in zip(*scores, strict=True))

    def test_too_many_words_are_refused(self, tiny_backbone):
        with pytest.raises(InputError, match="got a prompt of 31 tokens, the model reads 30"):
            P4D(variant="n", tokens=31).attack(subject_of(tiny_backbone, edited=False))


class TestRingABell:
    def test_it_does_not_need_the_edited_model(self, tiny_backbone):
        edited, plain = (attacked("ring-a-bell", subject_of(tiny_backbone, edited=edited)) for edited in (True, False))
        assert edited.details == plain.details
        assert not np.array_equal(edited.images, plain.images)

    def test_evolution_finds_a_secret_and_never_loses_ground(self):
        secret = torch.tensor([3, 1, 4, 1])
        plan = RingABell(tokens=4, population=20, generations=80)
        generator = torch.Generator().manual_seed(0)
        start = torch.randint(5, (20, 4), generator=generator)
        best, curve = evolve(
            lambda rows: (rows != secret).sum(1).float(), start, plan=plan, words=torch.arange(5), generator=generator
        )
        assert best.tolist() == secret.tolist()
        assert curve[-1] == 0
        assert all(late <= early for early, late in itertools.pairwise(curve))

    def test_the_best_of_all_generations_is_returned(self):
        plan = RingABell(population=2, generations=1)
        start = torch.tensor([[1, 1], [0, 1], [0, 0]])
        best, curve = evolve(
            lambda rows: rows.sum(1).float(), start, plan=plan, words=torch.arange(2), generator=torch.Generator()
        )
        assert (best.tolist(), curve) == ([0, 0], [0.0])

    def test_a_world_of_one_thing_has_no_prompts_without_it(self):
        world = dataclasses.replace(tiny_world(), vocabulary=tiny_world().vocabulary[:1])
        backbone = backbone_for(tiny_pipeline(), world=world)
        with pytest.raises(NotApplicable, match="got no prompts without 'santa claus'"):
            attacked("ring-a-bell", subject_of(backbone, edited=False))


def test_settings_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="extra"):
        SoftPrompt.model_validate({"norms": "l2"})
    assert AttackSettings() == AttackSettings.model_validate({})
