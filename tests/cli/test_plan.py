"""``aizheimer plan``: what a run will take, as words and as JSON; and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ESD = ("--method", "esd", "retain={neighbours: 2, others: 1, general: 1}", "training.steps=7")


def test_it_prints_what_a_run_takes_and_writes_nothing(cli, saved_tiny_pipeline, tmp_path):
    done = cli("plan", "santa claus", "--model", saved_tiny_pipeline, *ESD)
    assert done.code == 0, done.err
    assert [line.split()[0] for line in done.out.splitlines()] == ["memory", "program", "time", "disk"]
    assert not list((tmp_path / "home").iterdir())


def test_json_has_the_options_that_make_it_fit(cli, saved_tiny_pipeline):
    done = cli("plan", "santa claus", "--model", saved_tiny_pipeline, *ESD, "--fit", "64GiB", "--json")
    found = json.loads(done.out)
    assert found["options"] == {}
    assert found["needed"] == found["memory"]["peak"] + found["memory"]["program"] < 64 * 2**30
    assert found["seconds"]["total"] > 7 * found["seconds"]["step"]


@pytest.mark.long
def test_nothing_but_our_own_lines_is_on_stderr(saved_tiny_pipeline, tmp_path):
    """PyTorch's profiler speaks through C++, which is heard in a process of its own only."""
    quiet = ("KINETO_LOG_LEVEL", "TORCH_CPP_LOG_LEVEL")
    env = {name: value for name, value in os.environ.items() if name not in quiet}
    env |= {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "AIZHEIMER_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", "aizheimer", "plan", "santa claus", "--model", str(saved_tiny_pipeline), *ESD]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("memory")


@pytest.mark.long
def test_what_cannot_be_met_is_exit_code_3_and_a_bad_size_2(cli, saved_tiny_pipeline):
    done = cli("plan", "santa claus", "--model", saved_tiny_pipeline, *ESD, "training.batch_size=1", "--fit", "1MiB")
    assert done.code == 3
    assert "nothing fits into 1.0 MiB; the least is" in done.error
    assert cli("plan", "santa claus", "--fit", "8 gigs").code == 2
