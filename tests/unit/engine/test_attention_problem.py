"""One batch of forget and retain examples gives what each of them alone gives."""

import dataclasses
import functools

import pytest
import torch

from aizheimer.backbones.counting import counted
from aizheimer.data.sources import BankSource
from aizheimer.engine.anchor import BankAnchor, LiveAnchor, anchor_predictions
from aizheimer.engine.attention_problem import AttentionProblem, Examples, HeldOut
from aizheimer.engine.lean import lean
from aizheimer.engine.settings import TrainSettings
from aizheimer.errors import SelectorError
from aizheimer.modules.attention import attention_probe
from aizheimer.modules.maps import mass
from aizheimer.modules.parameters import select_layers, select_parameters, trainable
from aizheimer.objectives import ATTENTION_TERMS, resteering

PROMPTS = ["santa claus in noto style", "a photo of santa claus"]
OTHERS = ["cat in flat style", "old man", ""]
TERM = functools.partial(resteering, variant="mean")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def source(count, prompts, *, seed, target=True):
    generator = seeded(seed)
    x_t, t = torch.randn((count, 4, 8, 8), generator=generator), torch.randint(1000, (count,), generator=generator)
    targets = torch.randn((count, 4, 8, 8), generator=generator) if target else None
    index = torch.arange(count) % prompts
    return BankSource(x_t=x_t, t=t, prompt_index=index, target=targets, device=torch.device("cpu"))


@pytest.fixture
def problem(tiny_backbone):
    layers = list(tiny_backbone.attention_modules())
    columns = tiny_backbone.token_columns(PROMPTS, "santa claus", policy="concept")
    others = tiny_backbone.encode_prompts(OTHERS)
    forget = Examples(
        source=source(3, 2, seed=1), embeddings=tiny_backbone.encode_prompts(PROMPTS), columns=columns, batch_size=3
    )
    none = torch.zeros(others.shape[:2], dtype=torch.bool)
    retain = Examples(source=source(4, 3, seed=2), embeddings=others, columns=none, batch_size=4)
    held_out = HeldOut(
        forget=forget.source.draw(3, step=0, generator=seeded(3)),
        retain=retain.source.draw(4, step=0, generator=seeded(3)),
        retain_embeddings=others,
    )
    return AttentionProblem(
        backbone=tiny_backbone, parameters={}, layers=layers, term=TERM, forget=forget, retain=retain, held_out=held_out
    )


def predict(problem, examples, draw):
    return problem.backbone.predict(draw.x_t, draw.t, examples.embeddings[draw.prompt_index])


def draws(problem, seed=0):
    generator = seeded(seed)
    forget = problem.forget.source.draw(3, step=1, generator=generator)
    return forget, problem.retain.source.draw(4, step=1, generator=generator)


@torch.no_grad()
def test_the_batch_is_its_two_halves(problem):
    losses = problem.losses(1, seeded())
    forget, retain = draws(problem)
    columns = problem.forget.columns[forget.prompt_index]
    with attention_probe(problem.backbone.denoiser, problem.layers, columns) as probe:
        predict(problem, problem.forget, forget)
    expected = TERM(probe.maps)
    assert list(losses) == ["attention", "teacher"]
    torch.testing.assert_close(losses["attention"].value, expected.total)
    assert set(losses["attention"].parts) == set(problem.layers)
    for layer, value in expected.parts.items():
        torch.testing.assert_close(losses["attention"].parts[layer], value)
    mse = (predict(problem, problem.retain, retain) - retain.target).square().mean()
    torch.testing.assert_close(losses["teacher"].value, mse)


@pytest.mark.parametrize("name", list(ATTENTION_TERMS))
def test_every_term_fits(problem, name):
    tokens = problem.backbone.max_tokens
    for variant in ("paper", "notebook", "mean"):
        term = functools.partial(ATTENTION_TERMS[name], variant=variant, tokens=tokens)
        loss = dataclasses.replace(problem, term=term, attention_weight=3.0).losses(1, seeded())["attention"]
        assert loss.weight == 3
        assert loss.value > 0


@torch.no_grad()
def test_reconstructing_the_forget_examples(problem):
    alone = dataclasses.replace(problem, retain=None, forget_noise=True, reconstruction_weight=0.5)
    losses = alone.losses(1, seeded())
    forget = problem.forget.source.draw(3, step=1, generator=seeded())
    assert list(losses) == ["attention", "forget"]
    assert losses["forget"].weight == 0.5
    mse = (predict(problem, problem.forget, forget) - forget.target).square().mean()
    torch.testing.assert_close(losses["forget"].value, mse)


@torch.no_grad()
def test_the_anchor_is_the_teachers_prediction_under_other_words(problem):
    backbone = problem.backbone
    anchor = backbone.encode_prompts(["old man in noto style", "a photo of old man"])
    weight = backbone.denoiser.get_parameter("mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight")
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    original = weight.detach().clone()
    live = LiveAnchor(backbone=backbone, originals={name: original}, embeddings=anchor)
    forget, _ = draws(problem)
    expected = backbone.predict(forget.x_t, forget.t, anchor[forget.prompt_index])
    torch.testing.assert_close(anchor_predictions(backbone, forget, embeddings=anchor, batch_size=2), expected)
    weight.mul_(-3)  # the student moves on, the teacher must not
    torch.testing.assert_close(live.predict(forget), expected)
    assert torch.equal(weight, -3 * original)
    losses = dataclasses.replace(problem, anchor=live, anchor_weight=2.0).losses(1, seeded())
    student = predict(problem, problem.forget, forget)
    torch.testing.assert_close(losses["anchor"].value, (student - expected).square().mean())
    assert losses["anchor"].weight == 2


def test_a_bank_anchor_hands_out_the_targets(problem):
    forget, _ = draws(problem)
    assert BankAnchor().predict(forget) is forget.target
    with pytest.raises(ValueError, match="targets"):
        BankAnchor().predict(dataclasses.replace(forget, target=None))


def test_the_monitor_reads_mass_and_drift(problem, monkeypatch):
    values = problem.monitor()
    held = problem.held_out
    columns = problem.forget.columns[held.forget.prompt_index]
    with torch.no_grad(), attention_probe(problem.backbone.denoiser, problem.layers, columns) as probe:
        predict(problem, problem.forget, held.forget)
    by_layer = {layer: float(value) for layer, value in mass(probe.maps).items()}
    assert {name: values[f"layers/{name}"] for name in problem.layers} == pytest.approx(by_layer)
    assert values["attention_mass"] == pytest.approx(sum(by_layer.values()) / len(by_layer))
    with torch.no_grad():
        student = predict(problem, problem.retain, held.retain)
    drift = (student - held.retain.target).square().sum() / held.retain.target.square().sum()
    assert values["retention_drift"] == pytest.approx(float(drift))
    monkeypatch.setattr("aizheimer.engine.held_out.MONITOR_BATCH", 2)
    assert problem.monitor() == pytest.approx(values, rel=1e-4)


def test_an_unchanged_model_has_not_drifted(problem):
    retain = problem.held_out.retain
    with torch.no_grad():
        target = predict(problem, problem.retain, retain)
    held_out = dataclasses.replace(problem.held_out, retain=dataclasses.replace(retain, target=target))
    assert dataclasses.replace(problem, held_out=held_out).monitor()["retention_drift"] < 1e-10


def test_processors_are_put_back(problem):
    before = dict(problem.backbone.denoiser.attn_processors)
    problem.losses(1, seeded())
    problem.monitor()
    assert problem.backbone.denoiser.attn_processors == before


@pytest.mark.parametrize("change", [{}, {"forget_noise": True}, {"anchor": BankAnchor()}], ids=str)
def test_what_has_weight_0_is_not_computed(problem, change):
    """The retain rows do not run, and the denoiser ends at the last layer that is read."""
    ran = []
    handle = problem.backbone.denoiser.conv_out.register_forward_hook(lambda *_: ran.append(True))
    with counted(problem.backbone) as count:
        losses = dataclasses.replace(problem, reconstruction_weight=0.0, **change).losses(1, seeded())
    handle.remove()
    assert list(losses) == ["attention"]
    assert count.latents == 3
    assert not ran


class TestMapsAlone:
    """With the attention term alone the denoiser runs as far as the last layer that is read."""

    @staticmethod
    def step(problem, *, layers, whole, settings=None):
        """Return the loss, the gradients, and whether the denoiser's last layer ran."""
        alone = dataclasses.replace(problem, retain=None, layers=layers)
        denoiser, ran = problem.backbone.denoiser, []
        selection = select_parameters(denoiser, layers, ("q", "k", "v", "out"))
        handle = denoiser.conv_out.register_forward_hook(lambda *_: ran.append(True))
        try:
            with trainable(denoiser, selection) as parameters, lean(denoiser, settings or TrainSettings()):
                if whole:
                    _, maps = alone._forward(draws(problem)[0], None)
                    loss = TERM(maps, generator=seeded()).total
                else:
                    # The same draw as above: the fixture's sources go by the generator alone.
                    loss = alone.losses(1, seeded())["attention"].value
                loss.backward()
                found = {name: None if p.grad is None else p.grad.clone() for name, p in parameters.items()}
        finally:
            handle.remove()
        return float(loss.detach()), found, bool(ran)

    @pytest.mark.parametrize("part", ["all", "skip_ends", "^down"])
    def test_loss_and_gradients_are_those_of_the_whole_pass(self, problem, part):
        layers = select_layers(problem.layers, part)
        before = {layer: problem.backbone.denoiser.get_submodule(layer).processor for layer in layers}
        whole, short = (self.step(problem, layers=layers, whole=whole) for whole in (True, False))
        assert (whole[2], short[2]) == (True, False)
        assert short[0] == whole[0]
        assert short[1].keys() == whole[1].keys()
        assert any(gradient is not None for gradient in short[1].values())
        for name, gradient in whole[1].items():
            assert (short[1][name] is None) == (gradient is None)
            assert gradient is None or torch.equal(short[1][name], gradient)
        assert all(problem.backbone.denoiser.get_submodule(layer).processor is old for layer, old in before.items())

    def test_recomputed_blocks_run_to_the_end_with_the_same_gradients(self, problem):
        settings = TrainSettings(checkpointing=True)
        whole = self.step(problem, layers=problem.layers, whole=True)
        short = self.step(problem, layers=problem.layers, whole=False, settings=settings)
        assert short[2]
        assert short[0] == pytest.approx(whole[0])
        for name, gradient in whole[1].items():
            assert gradient is None or torch.allclose(short[1][name], gradient, rtol=1e-4, atol=1e-7)

    def test_a_pass_that_ends_early_counts_as_one(self, problem):
        with counted(problem.backbone) as count:
            dataclasses.replace(problem, retain=None).losses(1, seeded())
        assert count.latents == 3

    def test_a_failure_inside_is_not_taken_for_the_end(self, problem):
        columns = torch.zeros(1, problem.backbone.max_tokens, dtype=torch.bool)
        columns[0, 1] = True
        probing = attention_probe(problem.backbone.denoiser, problem.layers, columns)
        with probing as probe, pytest.raises(SelectorError, match="columns are for"):
            probe.read(lambda: predict(problem, problem.forget, draws(problem)[0]))
