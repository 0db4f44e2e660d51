"""Attacks on the weights: what they change, by hand, and that all of it is taken back, bit for bit."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from aizheimer.attacks._starts import other_concept
from aizheimer.attacks.base import NotApplicable
from aizheimer.attacks.quantise import Quantise, quantised, rounded_weights, shaken
from aizheimer.attacks.relearn import Lesson, Relearn, denoising_loss, steps_to_recover
from aizheimer.attacks.stack import Stack, shuffled
from aizheimer.data.sources import Draw
from aizheimer.edits.edit import Edit
from aizheimer.edits.hooks.negative_prompt import NegativePromptHook
from aizheimer.edits.hooks.spm import SPMHook
from aizheimer.errors import DataError, InputError, TrainingError
from tests.unit.edits.test_edit import K, bits, edit_of, provenance, same

QUICK = {"steps": 2, "looks": (0, 1), "pictures": 2, "batch_size": 2}


def random_of(subject):
    return dataclasses.replace(subject, random=True)


class TestQuantised:
    def test_by_hand_each_channel_with_its_own_step(self):
        weight = torch.tensor([[127.0, 1.4, -1.6], [1.27, 0.014, -0.016]])
        wanted = torch.tensor([[127.0, 1.0, -2.0], [1.27, 0.01, -0.02]])
        assert torch.allclose(quantised(weight, bits=8), wanted)

    def test_four_bits_have_fifteen_values(self):
        weight = torch.tensor([[1.0], [30.0], [0.02]]) * torch.linspace(-1, 1, 500)
        for row in quantised(weight, bits=4):
            assert len(row.unique()) == 15

    def test_the_error_is_at_most_half_a_step_and_again_changes_nothing(self):
        weight = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(0))
        rounded = quantised(weight, bits=8)
        step = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
        assert ((rounded - weight).abs() <= step / 2 * 1.0001).all()
        assert torch.allclose(quantised(rounded, bits=8), rounded, atol=1e-7)

    def test_symmetric_and_zero_stays_zero(self):
        weight = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
        assert torch.equal(quantised(-weight, bits=4), -quantised(weight, bits=4))
        assert torch.equal(quantised(torch.zeros(2, 3), bits=8), torch.zeros(2, 3))

    def test_in_the_models_own_type(self):
        weight = torch.randn(2, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
        assert quantised(weight, bits=8).dtype == torch.bfloat16

    def test_the_control_moves_as_much_without_the_grid(self):
        weight = torch.randn(8, 200, generator=torch.Generator().manual_seed(0))
        moved = shaken(weight, bits=4, generator=torch.Generator().manual_seed(1)) - weight
        lost = quantised(weight, bits=4) - weight
        step = weight.abs().amax(dim=1, keepdim=True) / 7
        assert (moved.abs() <= step / 2 * 1.0001).all()
        assert float(moved.norm() / lost.norm()) == pytest.approx(1, abs=0.05)


class TestQuantise:
    def test_every_linear_and_convolution_is_rounded_while_it_draws_and_nothing_else(self, subject, monkeypatch):
        pipe, during = subject.backbone.pipe, []
        draw = type(subject).draw
        monkeypatch.setattr(
            type(subject),
            "draw",
            lambda self, jobs, **options: during.append(bits(pipe)) or draw(self, jobs, **options),
        )
        before = bits(pipe)
        found = Quantise(bits=(8,)).attack(subject)
        weights = rounded_weights(pipe.unet)
        assert K in weights
        assert "conv_in.weight" in weights
        assert not [name for name in weights if "norm" in name]
        for name, tensor in during[0].items():
            wanted = quantised(before[name], bits=8) if name in weights else before[name]
            assert torch.equal(tensor, wanted), name
        assert same(before, bits(pipe))
        assert found.details["tensors"] == len(weights)
        assert 0 < found.details["relative_error"]["int8"] < 0.02

    def test_fewer_bits_change_more_and_the_best_is_brought_back(self, subject):
        found = Quantise().attack(subject)
        assert found.details["relative_error"]["int8"] < found.details["relative_error"]["int4"]
        assert (found.details["cells"], found.details["best"]) == ({"int8": 0, "int4": 0}, "int8")
        other = Quantise(bits=(4,)).attack(subject).images
        subject.judge.learn(other, ["Santa Claus"] * 2)
        found = Quantise().attack(subject)
        assert (found.details["cells"], found.details["best"]) == ({"int8": 0, "int4": 1}, "int4")
        assert np.array_equal(found.images, other)

    def test_its_control_and_a_hook_are_taken_back_too(self, plain):
        pipe = plain.backbone.pipe
        edit = adapters_of(pipe)
        with edit.applied(pipe):
            subject = dataclasses.replace(plain, edit=edit)
            before, drawn = bits(pipe), subject.draw(subject.jobs)
            own, control = (Quantise(bits=(4,)).attack(s).images for s in (subject, random_of(subject)))
            assert same(before, bits(pipe))
            assert np.array_equal(subject.draw(subject.jobs, cache_dir=False), drawn)
        assert not np.array_equal(own, control)

    @pytest.mark.parametrize("bits", [(), (3,), (8, 16)])
    def test_bad_bits(self, bits):
        with pytest.raises(ValidationError):
            Quantise(bits=bits)


def adapters_of(pipe, gate="embedding"):
    """An edit that acts by low-rank additions while pictures are drawn."""
    module = pipe.unet.get_submodule(K.removesuffix(".weight"))
    outputs, inputs = module.weight.shape
    generator = torch.Generator().manual_seed(3)
    name = K.removesuffix(".weight")
    adapters = {
        f"{name}.down": torch.randn(1, inputs, generator=generator),
        f"{name}.up": torch.randn(outputs, 1, generator=generator),
    }
    return Edit({}, provenance(pipe), SPMHook(adapters=adapters, words=("santa claus",), gate=gate))


class TestDenoisingLoss:
    def test_is_the_mean_squared_error_of_the_prediction(self, plain):
        backbone = plain.backbone
        with torch.no_grad():
            backbone.pipe.unet.conv_out.weight.zero_()
            backbone.pipe.unet.conv_out.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        batch = Draw(
            x_t=torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
            t=torch.tensor([3, 900]),
            prompt_index=torch.tensor([0, 1]),
            target=torch.zeros(2, 4, 8, 8),
        )
        loss = denoising_loss(backbone, batch, backbone.encode_prompts(["a", "cat"]))
        assert loss.item() == pytest.approx((1 + 4 + 9 + 16) / 4)
        # dL/db_k = 2 b_k / 4: a quarter of the elements belong to each channel.
        (gradient,) = torch.autograd.grad(loss, [backbone.pipe.unet.conv_out.bias])
        assert torch.allclose(gradient, torch.tensor([0.5, 1.0, 1.5, 2.0]))

    def test_each_picture_is_learned_under_its_own_prompt(self, plain):
        backbone = plain.backbone
        latents = torch.stack([torch.full((4, 8, 8), float(i)) for i in range(5)])
        lesson = Lesson(latents=latents, embeddings=torch.zeros(5, 1, 1), shows="numbers")
        draw = lesson.source(backbone).draw(50, step=1, generator=torch.Generator().manual_seed(0))
        signal, sigma = backbone.schedule.coefficients(draw.t, draw.x_t)
        clean = (draw.x_t - sigma * draw.target) / signal
        assert torch.allclose(clean.mean(dim=(1, 2, 3)), draw.prompt_index.float(), atol=1e-2)
        assert draw.t.max() > 800 > 200 > draw.t.min()


class TestRelearn:
    @pytest.mark.parametrize("weights", ["lora", "cross-attention", "full"])
    def test_it_learns_and_the_model_is_as_it_was(self, subject, weights):
        pipe = subject.backbone.pipe
        before, drawn, generator = bits(pipe), subject.draw(subject.jobs), torch.get_rng_state()
        flags = [p.requires_grad for p in pipe.unet.parameters()]
        found = Relearn(weights=weights, lr=1e-2, **QUICK).attack(subject)
        assert same(before, bits(pipe))
        assert [p.requires_grad for p in pipe.unet.parameters()] == flags
        assert all(p.grad is None for p in pipe.unet.parameters())
        assert torch.equal(generator, torch.get_rng_state())
        assert np.array_equal(subject.draw(subject.jobs, cache_dir=False), drawn)
        assert not np.array_equal(found.images, drawn)
        assert [row["step"] for row in found.details["curve"]] == [0, 1, 2]
        assert (found.steps, found.queries) == (2, 6)

    def test_what_is_trained_is_what_was_asked_for(self, subject):
        unet = subject.backbone.pipe.unet
        counts = {
            w: Relearn(weights=w, **QUICK).attack(subject).details["trained"] for w in ("cross-attention", "full")
        }
        assert counts["full"] == sum(p.numel() for p in unet.parameters())
        inside = {n: p.numel() for n, p in unet.named_parameters() if ".attn2." in n and "norm" not in n}
        assert counts["cross-attention"] == sum(inside.values())

    @pytest.mark.long
    def test_the_loss_falls_on_what_is_learned(self, plain):
        found = Relearn(weights="full", steps=30, looks=(10,), pictures=1, batch_size=4, lr=3e-3).attack(plain)
        _, first, last = (None, *(row["loss"] for row in found.details["curve"]))
        assert last < first

    def test_twice_is_the_same(self, subject):
        first, again = (Relearn(lr=1e-2, **QUICK).attack(subject) for _ in range(2))
        assert np.array_equal(first.images, again.images)
        assert first.details == again.details

    @pytest.mark.long
    def test_a_hook_stays_on_while_what_lies_under_it_is_trained(self, plain):
        pipe = plain.backbone.pipe
        edit = adapters_of(pipe)
        with edit.applied(pipe):
            subject = dataclasses.replace(plain, edit=edit)
            patched = {name: m.forward for name, m in pipe.unet.named_modules() if "forward" in vars(m)}
            before, drawn = bits(pipe), subject.draw(subject.jobs)
            with_hook = Relearn(weights="full", lr=1e-2, **QUICK).attack(subject)
            assert same(before, bits(pipe))
            assert {name for name, m in pipe.unet.named_modules() if "forward" in vars(m)} == patched.keys()
            assert np.array_equal(subject.draw(subject.jobs, cache_dir=False), drawn)
        without = Relearn(weights="full", lr=1e-2, **QUICK).attack(plain)
        assert not np.array_equal(with_hook.images, without.images)
        assert "forward" not in vars(pipe.unet)

    @pytest.mark.long
    def test_steps_to_recover_is_measured_against_the_unedited_model(self, subject):
        with subject.unedited():
            subject.judge.learn(subject.draw(subject.jobs), ["Santa Claus"] * 2)
        first = Relearn(lr=1e-2, **QUICK).attack(subject)
        assert (first.details["unedited_rate"], first.details["steps_to_recover"]) == (1, None)
        subject.judge.learn(first.images[:1], ["Santa Claus"])
        again = Relearn(lr=1e-2, **QUICK).attack(subject)
        assert again.details["curve"][-1]["rate"] == 0.5
        assert again.details["steps_to_recover"] == 2
        assert Relearn(lr=1e-2, recovered=0.6, **QUICK).attack(subject).details["steps_to_recover"] is None

    def test_a_rate_of_nothing_is_no_recovery(self):
        assert steps_to_recover([{"step": 0, "rate": 0.0}], known=0.0, share=0.5) is None

    def test_the_control_learns_another_concept_by_its_own_prompts(self, subject, monkeypatch):
        asked = []
        backbone = type(subject.backbone)
        encode = backbone.encode_prompts
        monkeypatch.setattr(backbone, "encode_prompts", lambda self, texts: asked.append(texts) or encode(self, texts))
        found = Relearn(**QUICK).attack(random_of(subject))
        other = other_concept(subject).target
        assert found.details["learned_from"] == other != "Santa Claus"
        assert all(other in text for text in asked[-1])

    def test_a_folder_of_pictures(self, subject, tmp_path):
        for i in range(3):
            Image.new("RGB", (40, 40), (80 * i, 0, 0)).save(tmp_path / f"{i}.png")
        attack = Relearn(folder=tmp_path, **QUICK)
        assert attack.attack(subject).details["pictures"] == 3
        assert Relearn.model_validate(attack.model_dump(mode="json")) == attack
        with pytest.raises(DataError, match="does not exist"):
            Relearn(folder=Path("gone"), **QUICK).attack(subject)

    def test_a_loss_that_is_not_a_number_stops_it_and_the_model_is_as_it_was(self, subject):
        before = bits(subject.backbone.pipe)
        with pytest.raises(TrainingError, match="lower lr"):
            Relearn(weights="full", lr=1e30, **{**QUICK, "steps": 4}).attack(subject)
        assert same(before, bits(subject.backbone.pipe))


class TestStack:
    def test_a_second_edit_lies_on_the_first_and_comes_off(self, subject, tmp_path):
        pipe = subject.backbone.pipe
        second = edit_of(pipe_base(subject), seed=5)
        second.save(tmp_path / "second")
        before = bits(pipe)
        found = Stack(edit=tmp_path / "second").attack(subject)
        assert same(before, bits(pipe))
        with second.applied(pipe):
            assert torch.allclose(pipe.unet.get_parameter(K), before[K] + second.deltas[f"unet.{K}"])
            assert np.array_equal(found.images, subject.draw(subject.jobs, cache_dir=False))
        assert found.details["forgets"] == "cat"

    def test_one_is_made_on_the_unedited_model(self, subject):
        from aizheimer.methods.uce import UCE

        small = ("retain_neighbours=1", "retain_others=1", "retain_general=1")
        attack = Stack(method="uce", concept="cat", parameters=small)
        found = attack.attack(subject)
        with subject.unedited():
            from aizheimer.concepts.concept import Concept

            wanted = UCE(retain_neighbours=1, retain_others=1, retain_general=1).unlearn(
                subject.backbone, Concept("cat")
            )
        with wanted.applied(subject.backbone.pipe):
            assert np.array_equal(found.images, subject.draw(subject.jobs, cache_dir=False))
        assert found.details["method"] == "uce"

    def test_the_control_has_the_size_and_not_the_direction(self, subject):
        second = edit_of(pipe_base(subject), seed=5)
        other = shuffled(second, seed=0)
        for name, delta in second.deltas.items():
            assert float(other.deltas[name].norm()) == pytest.approx(float(delta.norm()), rel=1e-5)
            cosine = torch.nn.functional.cosine_similarity(other.deltas[name].flatten(), delta.flatten(), dim=0)
            assert abs(float(cosine)) < 0.5

    def test_a_hook_has_no_random_counterpart(self, subject):
        with pytest.raises(NotApplicable, match="no random counterpart"):
            shuffled(Edit({}, provenance(pipe_base(subject)), NegativePromptHook("cat")), seed=0)

    def test_the_target_itself_is_refused(self, subject):
        with pytest.raises(InputError, match="forgets 'Santa Claus' too"):
            Stack(method="uce", concept="Santa Claus").attack(subject)


def pipe_base(subject):
    """The pipeline without the edit, for whoever asks for its fingerprint."""
    from tests.tiny import tiny_pipeline

    pipe = tiny_pipeline()
    pipe.register_to_config(_name_or_path=subject.backbone.pipe.name_or_path)
    return pipe
