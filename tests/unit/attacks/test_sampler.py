"""Other samplers and scales: each cell is the drawing it says it is, the best one counts, and chance draws as often."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from pydantic import ValidationError

from aizheimer.attacks._cells import best_cell
from aizheimer.attacks.sampler import CLASSES, FIRST_SEED, Sampler
from aizheimer.evaluation.generate import PromptJob, initial_latents
from tests.unit.edits.test_edit import bits, same


def test_the_usual_cell_is_the_usual_drawing(subject):
    found = Sampler(samplers=("ddim",), scales=(1.0,)).attack(subject)
    assert np.array_equal(found.images, subject.draw(subject.jobs))
    assert found.details["cells"] == {"ddim x1": 0}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own, under numpy 2
def test_a_cell_is_what_diffusers_draws_with_that_sampler_and_scale(subject):
    found = Sampler(samplers=("euler",), scales=(1.5,)).attack(subject)
    pipe, own = subject.backbone.pipe, subject.backbone.pipe.scheduler
    pipe.scheduler = EulerDiscreteScheduler.from_config(own.config)
    try:
        drawn = pipe(
            [job.prompt for job in subject.jobs],
            latents=initial_latents(pipe, [job.seed for job in subject.jobs]),
            num_inference_steps=4,
            guidance_scale=3.0,
            output_type="np",
        ).images
    finally:
        pipe.scheduler = own
    assert np.array_equal(found.images, (drawn * 255).round().astype(np.uint8))


def test_every_sampler_draws_something_of_its_own_and_the_model_is_as_it_was(subject):
    pipe = subject.backbone.pipe
    before, scheduler, generator = bits(pipe), pipe.scheduler, torch.get_rng_state()
    drawn = {name: Sampler(samplers=(name,), scales=(1.0,)).attack(subject).images for name in CLASSES}
    assert len({images.tobytes() for images in drawn.values()}) == len(CLASSES)
    assert all(images.std() > 0 for images in drawn.values())
    assert same(before, bits(pipe))
    assert pipe.scheduler is scheduler
    assert torch.equal(generator, torch.get_rng_state())
    again = Sampler(samplers=("ddpm",), scales=(1.0,)).attack(subject)
    assert np.array_equal(again.images, drawn["ddpm"]), "noise that a sampler adds comes from the job's seed"


def test_the_control_draws_as_often_from_other_seeds(subject):
    control = dataclasses.replace(subject, random=True)
    found = Sampler(samplers=("euler", "pndm"), scales=(1.0,)).attack(control)
    assert list(found.details["cells"]) == ["euler x1", "pndm x1"]
    assert found.queries == 4
    jobs = [PromptJob(job.prompt, FIRST_SEED + job.seed) for job in subject.jobs]
    assert np.array_equal(found.images, subject.draw(jobs))


def test_the_best_cell_is_brought_back_and_all_are_told(subject):
    pictures = [np.full((2, 8, 8, 3), value, np.uint8) for value in (10, 20, 30)]
    subject.judge.learn([pictures[0][0], pictures[1][0]], ["cat", "Santa Claus"])
    cells = {str(i): (lambda images=images: images) for i, images in enumerate(pictures)}
    found = best_cell(subject, cells, more="said")
    assert found.details == {"cells": {"0": 0, "1": 1, "2": 0}, "best": "1", "anywhere": 1, "more": "said"}
    assert np.array_equal(found.images, pictures[1])
    assert found.queries == 6


def test_the_first_of_equals_wins(subject):
    cells = {str(i): (lambda i=i: np.full((2, 8, 8, 3), i, np.uint8)) for i in range(2)}
    assert best_cell(subject, cells).details["best"] == "0"


@pytest.mark.parametrize("fields", [{"samplers": ()}, {"samplers": ("eular",)}, {"scales": (-1,)}])
def test_bad_grids(fields):
    with pytest.raises(ValidationError):
        Sampler(**fields)
