"""Pictures of models of every family, drawn and found again as Stable Diffusion's are."""

import numpy as np
import pytest

from aizheimer.evaluation.generate import PromptJob, generate
from aizheimer.evaluation.image_cache import pipeline_digest
from tests.tiny import IMAGE_SIZE
from tests.tiny_families import BUILDERS

JOBS = [PromptJob("a cat", 0), PromptJob("a dog in noto style", 1)]


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux"])
def test_the_same_job_gives_the_same_picture(family, tmp_path):
    pipe = BUILDERS[family]()
    scheduler, digest = pipe.scheduler, pipeline_digest(pipe)
    drawn = generate(pipe, JOBS, steps=2, guidance=3.0, cache_dir=tmp_path)
    assert drawn.shape == (2, IMAGE_SIZE, IMAGE_SIZE, 3)
    assert pipe.scheduler is scheduler
    assert pipeline_digest(pipe) == digest
    assert np.array_equal(generate(pipe, JOBS, steps=2, guidance=3.0, cache_dir=tmp_path), drawn)
    alone = generate(pipe, JOBS[1:], steps=2, guidance=3.0, cache_dir=False)
    assert int(np.abs(alone.astype(int) - drawn[1:].astype(int)).max()) <= 2
    next(iter(pipe.text_encoder_2.parameters())).data.add_(1.0)
    assert pipeline_digest(pipe) != digest
