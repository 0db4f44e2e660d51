"""The embedded model's edits in every format: what diffusers draws from a file is what the edit draws."""

import copy
from pathlib import Path

import numpy as np
import pytest

import aizheimer
from aizheimer.edits.export import FORMATS
from aizheimer.evaluation.generate import PromptJob, generate
from tests.unit.edits.artifacts import loaded

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
JOBS = [PromptJob("Santa Claus in noto style", 0)]
STEPS = 4


@pytest.fixture(scope="module")
def backbone():
    return aizheimer.load_model("emoji")


@pytest.fixture(scope="module")
def edit(backbone):
    return aizheimer.forget(backbone, "Santa Claus", method="closed-distraction")


def pictures(pipe):
    return generate(pipe, JOBS, steps=STEPS, guidance=5.0, cache_dir=False).astype(int)


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "text-encoder"])
def test_the_same_pictures(backbone, edit, tmp_path, format):
    plain = pictures(backbone.pipe)
    with edit.applied(backbone.pipe):
        wanted = pictures(backbone.pipe)
    base = copy.deepcopy(backbone.pipe)
    name = "artifact" if FORMATS[format].folder else "artifact.safetensors"
    rank = 192
    exported = edit.export(backbone.pipe, tmp_path / name, format=format, rank=rank)
    pipe = loaded(exported, base=base, base_folder=Path(backbone.pipe.name_or_path))
    found = pictures(pipe)
    assert np.abs(plain - wanted).max() > 20
    if FORMATS[format].exact:
        assert np.array_equal(found, wanted)
        return
    assert exported.error < 1e-5
    assert np.abs(found - wanted).max() <= 2
    low = edit.export(backbone.pipe, tmp_path / "low.safetensors", format=format, rank=8)
    few = pictures(loaded(low, base=base, base_folder=Path(backbone.pipe.name_or_path)))
    assert np.abs(few - wanted).mean() <= 3 * low.error * np.abs(plain - wanted).mean() + 0.5


def test_an_edited_text_encoder(backbone, tmp_path):
    edit = aizheimer.forget(
        backbone,
        "Santa Claus",
        method="hirm",
        training={"steps": 2, "batch_size": 2},
        rollouts={"forget": 1, "retain": 1, "holdout": 1, "steps": 1, "picture_steps": 1},
        retain={"neighbours": 2, "others": 1, "general": 1, "batch_size": 2, "monitor": 2},
    )
    with edit.applied(backbone.pipe):
        wanted = pictures(backbone.pipe)
    exported = edit.export(backbone.pipe, tmp_path / "encoder", format="text-encoder")
    folder = Path(backbone.pipe.name_or_path)
    pipe = loaded(exported, base=backbone.pipe, base_folder=folder)
    assert np.array_equal(pictures(pipe), wanted)
