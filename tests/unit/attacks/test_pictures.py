"""What attacks learn from: drawn by the unedited model, noised by the book."""

import numpy as np
import pytest
import torch

from aizheimer.attacks._pictures import TargetPictures, by_prompt, target_pictures, target_prompts
from aizheimer.attacks.base import Subject
from aizheimer.backbones.base import backbone_for
from tests.tiny import tiny_pipeline
from tests.unit.attacks.builders import subject_of


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path / "cache"))


def test_the_unedited_model_draws_them_while_the_edit_is_on(tiny_backbone):
    subject = subject_of(tiny_backbone)
    plain = target_pictures(subject, each=2)
    with subject.edit.applied(tiny_backbone.pipe):
        edited = target_pictures(subject, each=2)
        redrawn = subject.draw(subject.jobs)
    assert torch.equal(plain.latents, edited.latents)
    assert not np.array_equal(redrawn, subject.draw(subject.jobs))
    assert plain.latents.shape == (3, 2, 4, 8, 8)
    assert (
        plain.prompts
        == target_prompts(subject)
        == tuple(f"santa claus in {s} style" for s in ("noto", "flat", "twemoji"))
    )


def test_their_seeds_are_not_those_that_decide(tiny_backbone, monkeypatch):
    subject, drawn, draw = subject_of(tiny_backbone, edited=False), [], Subject.draw
    monkeypatch.setattr(Subject, "draw", lambda self, jobs: drawn.extend(jobs) or draw(self, jobs))
    target_pictures(subject, each=2)
    assert not {job.seed for job in drawn} & {job.seed for job in subject.jobs}
    assert len({job.seed for job in drawn}) == 2


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_noise_and_answer_by_hand(kind):
    """With x_t = a x0 + s e the answers are e, a e - s x0 and x0."""
    backbone = backbone_for(tiny_pipeline(prediction_type=kind))
    generator = torch.Generator().manual_seed(0)
    pictures = TargetPictures(prompts=("a", "b"), latents=torch.randn(2, 1, 4, 8, 8, generator=generator))
    draw = pictures.noised(backbone, torch.tensor([1, 0, 1]), generator=generator, t=400)
    alpha = backbone.schedule.alphas_cumprod[400].double()
    a, s = alpha.sqrt(), (1 - alpha).sqrt()
    x_0 = pictures.latents[[1, 0, 1], 0].double()
    noise = (draw.x_t - a * x_0) / s
    wanted = {"epsilon": noise, "v_prediction": a * noise - s * x_0, "sample": x_0}[kind]
    torch.testing.assert_close(draw.target.double(), wanted, atol=1e-5, rtol=1e-5)
    assert abs(float(noise.std()) - 1) < 0.1
    assert draw.t.tolist() == [400] * 3
    assert draw.prompt_index.tolist() == [1, 0, 1]


def test_examples_of_one_prompt_are_side_by_side():
    assert by_prompt([2, 0], batch=2).tolist() == [2, 2, 0, 0]
