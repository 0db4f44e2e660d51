"""A concept is really forgotten and the others are kept, on the model that ships, by its judges."""

import json
from pathlib import Path

import numpy as np
import pytest

import aizheimer
from aizheimer.cli import main
from aizheimer.evaluation.generate import PromptJob, generate
from aizheimer.evaluation.results import EvaluationResult

TARGET = "Santa Claus"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def run(tmp_path_factory, module_cache) -> Path:
    """What ``make demo`` does, through the command line: forget, evaluate, report."""
    folder = tmp_path_factory.mktemp("end-to-end") / "santa-claus"
    assert main(["forget", TARGET, "--out", str(folder)]) == 0
    assert main(["evaluate", str(folder), "--samples", "24"]) == 0
    assert main(["report", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def module_cache(tmp_path_factory):
    """A cache of its own, so that no picture comes from another day."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIZHEIMER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def result(run) -> EvaluationResult:
    return EvaluationResult.load(run / "evaluation.json")


def test_the_target_is_forgotten(result):
    assert result.ua.original < 0.2, "the unedited model must draw the target, or forgetting it means nothing"
    assert result.ua.value >= 0.9


def test_the_others_are_kept(result):
    assert result.ira.value >= result.ira.original - 0.1
    assert result.cra.value >= result.cra.original - 0.1
    assert not result.collapse
    assert not result.no_op


def test_the_run_describes_itself(run):
    files = {file.name for file in run.iterdir()}
    assert files >= {"recipe.yaml", "edit.safetensors", "edit.json", "env.json", "report.html"}
    record = json.loads((run / "edit.json").read_text())["provenance"]
    assert record["concept"]["target"] == TARGET
    page = (run / "report.html").read_text()
    assert TARGET in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_half_the_strength_is_less_and_none_is_nothing(run):
    """The same seed: no strength gives the same pixels, half moves the picture, all of it moves it more."""
    backbone = aizheimer.load_model("emoji")
    edit = aizheimer.load_edit(run)

    def draw(strength: float) -> np.ndarray:
        with edit.scale(strength).applied(backbone.pipe):
            job = PromptJob(f"{TARGET} in noto style", 3)
            images = generate(backbone.pipe, [job], guidance=backbone.world.guidance, cache_dir=False)
        return images[0].astype(float)

    original, none, half, full = draw(0.0), draw(0.0), draw(0.5), draw(1.0)
    assert np.array_equal(original, none)
    assert 0 < np.abs(half - original).mean() < np.abs(full - original).mean()
