"""Several processes evaluate together, under a launcher or as workers, and one that is killed costs one batch."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from aizheimer import api
from aizheimer.evaluation.results import EvaluationResult
from tests import company
from tests.contracts.quick import quick_recipe

pytestmark = pytest.mark.timeout(900)  # processes that import, on a busy machine

SAMPLES = 30


@pytest.fixture(scope="module")
def finished(saved_tiny_pipeline, tmp_path_factory) -> Path:
    """A run to evaluate; each test takes a copy."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    api.forget(saved_tiny_pipeline, "santa claus", method=quick_recipe("uce"), out=folder)
    return folder


@pytest.fixture(scope="module")
def wanted(finished, tmp_path_factory) -> dict:
    """What one process finds, with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIZHEIMER_CACHE", str(tmp_path_factory.mktemp("alone")))
        result = api.evaluate(api.model_of_run(finished), finished, samples=SAMPLES)
    return json.loads(result.model_dump_json())


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def result_of(run: Path) -> dict:
    return json.loads(EvaluationResult.load(run / "evaluation.json").model_dump_json())


def stored(cache: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}


def wait_for_pictures(cache: Path, count: int, running: company.Company) -> None:
    while all(process.is_alive() for process in running.processes):
        if len(stored(cache)) >= count:
            return
        time.sleep(0.002)
    pytest.fail(f"it ended before there were {count} pictures: {running.said()}")


@pytest.mark.long
def test_under_a_launcher_each_draws_its_share_and_a_killed_one_loses_a_batch(run, wanted, tmp_path):
    cache, words = tmp_path / "cache", ["evaluate", run, "--samples", SAMPLES]
    with company.start(words, count=2, folder=tmp_path / "logs", environment={"AIZHEIMER_CACHE": str(cache)}) as two:
        wait_for_pictures(cache, 16, two)
        os.kill(two.processes[1].pid, signal.SIGKILL)
        codes = two.ended()
    assert codes == [1, -signal.SIGKILL]
    assert "another process of this command has ended" in two.said().splitlines()[-1]
    assert not (run / "evaluation.json").exists()
    kept = stored(cache)
    with company.start(words, count=2, folder=tmp_path / "again", environment={"AIZHEIMER_CACHE": str(cache)}) as again:
        assert again.ended() == [0, 0], again.said() + again.said(1)
    assert result_of(run) == wanted
    after = stored(cache)
    assert {path: after[path] for path in kept} == kept
    assert again.said(1) == ""


@pytest.mark.long
def test_workers_draw_and_what_a_killed_one_leaves_is_drawn_by_the_others_master(run, wanted, tmp_path):
    cache = tmp_path / "cache"
    with company.start(
        ["evaluate", run, "--samples", SAMPLES, "--workers", 2],
        count=1,
        folder=tmp_path / "logs",
        environment={"AIZHEIMER_CACHE": str(cache)},
    ) as one:
        worker = share_process(one, "2/2")
        worker.kill()
        assert one.ended() == [0], one.said()
    assert "warning: worker 2 was killed by SIGKILL; what is missing is drawn here" in one.said()
    assert result_of(run) == wanted


def share_process(running: company.Company, share: str) -> psutil.Process:
    """Return the worker that draws a share, as soon as it is there."""
    main = psutil.Process(running.processes[0].pid)
    while running.processes[0].is_alive():
        for child in main.children():
            if share in child.cmdline():
                return child
        time.sleep(0.01)
    pytest.fail(f"there was no worker for {share}: {running.said()}")
