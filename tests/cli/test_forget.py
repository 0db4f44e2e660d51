"""aizheimer forget: the run folder, what is said on the way, and what survives an interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image
from safetensors import safe_open

from aizheimer.cli.forget import folder_name
from aizheimer.edits.io import load_edit
from aizheimer.errors import RunFolderError
from tests.cli.conftest import QUICK


def test_a_run_folder_describes_itself(cli, saved_tiny_pipeline, tmp_path):
    out = tmp_path / "run"
    done = cli(
        "forget", "Santa Claus", "--keep", "cat", "--model", saved_tiny_pipeline, "--out", out, "--seed", 3, *QUICK
    )
    assert done.code == 0, done.err
    edit = load_edit(out)
    assert edit.provenance.concept.target == "Santa Claus"
    assert edit.provenance.concept.keep == ("cat",)
    assert edit.provenance.seed == 3
    assert not edit.is_noop
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe["method"] == "aizheimer"
    assert recipe["parameters"]["training"]["steps"] == 4
    assert recipe["parameters"]["training"]["seed"] == 3
    environment = json.loads((out / "env.json").read_text())
    assert environment["model"] == str(saved_tiny_pipeline)
    assert environment["versions"]["torch"]
    events = [json.loads(line)["event"] for line in (out / "history.jsonl").read_text().splitlines()]
    assert events.count("step") == 4
    with Image.open(out / "before-after.png") as picture:
        assert picture.width > picture.height
    assert not list(out.rglob("*.tmp"))


def test_results_go_to_stdout_and_all_else_to_stderr(cli, saved_tiny_pipeline, tmp_path):
    out = tmp_path / "run"
    done = cli("forget", "santa claus", "--keep", "cat", "--model", saved_tiny_pipeline, "--out", out, *QUICK)
    assert [line.split()[0] for line in done.out.splitlines()] == ["edit", "picture"]
    assert str(out / "edit.safetensors") in done.out
    lines = done.err.splitlines()
    assert lines[0].startswith("forgetting object 'santa claus'")
    assert " on cpu, into " in lines[0]
    chosen = next(i for i, line in enumerate(lines) if "nearest, by cosine" in line)
    trained = next(i for i, line in enumerate(lines) if line.startswith("step "))
    assert chosen < trained, "the neighbours are shown before training"
    assert "mrs claus" in lines[chosen]
    assert any("cat (asked for)" in line for line in lines)
    assert any("attention mass" in line and "retention drift" in line for line in lines)


def test_json_is_one_object(cli, saved_tiny_pipeline, tmp_path):
    words = ["--model", saved_tiny_pipeline, "--out", tmp_path / "run", "--json", *QUICK]
    result = json.loads(cli("forget", "santa claus", *words).out)
    assert Path(result["edit"]).stat().st_size > result["bytes"] > 0
    assert Path(result["picture"]).is_file()


def test_a_word_that_is_a_style_of_the_world_is_forgotten_as_a_style(cli, saved_tiny_pipeline, tmp_path):
    out = tmp_path / "run"
    done = cli("forget", "Twemoji", "--model", saved_tiny_pipeline, "--out", out, *QUICK)
    assert done.code == 0, done.err
    assert "forgetting style 'Twemoji'" in done.err
    assert load_edit(out).provenance.concept.kind == "style"


def test_without_out_the_run_is_named_by_its_concept(cli, saved_tiny_pipeline):
    done = cli("forget", "red apple", "--model", saved_tiny_pipeline, *QUICK)
    assert done.code == 0, done.err
    assert Path("runs/red-apple/edit.json").is_file()


def test_the_recipe_of_a_run_makes_the_same_edit(cli, saved_tiny_pipeline, session_run, tmp_path):
    out = tmp_path / "again"
    words = ["--recipe", session_run / "recipe.yaml", "--keep", "cat", "--model", saved_tiny_pipeline, "--out", out]
    assert cli("forget", "santa claus", *words).code == 0
    first, second = load_edit(session_run), load_edit(out)
    assert first.deltas.keys() == second.deltas.keys()
    assert all(first.deltas[name].equal(second.deltas[name]) for name in first.deltas)


def test_overwrite_replaces_the_run(cli, saved_tiny_pipeline, run_folder):
    (run_folder / "report.html").write_text("old")
    words = ["--model", saved_tiny_pipeline, "--out", run_folder, "--overwrite", *QUICK]
    done = cli("forget", "red apple", *words)
    assert done.code == 0, done.err
    assert load_edit(run_folder).provenance.concept.target == "red apple"
    assert not (run_folder / "report.html").exists()


def start(saved_tiny_pipeline, out, cache, length) -> subprocess.Popen:
    source = Path(__file__).parents[2] / "src"
    env = {**os.environ, "PYTHONPATH": str(source), "AIZHEIMER_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    words = ["santa claus", "--keep", "cat", "--model", str(saved_tiny_pipeline), "--out", str(out), *QUICK, *length]
    command = [sys.executable, "-m", "aizheimer", "forget", *words]
    # Where tests run in the background, Ctrl-C may be ignored from birth; a user's shell would not do that.
    return subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_checkpoint(process: subprocess.Popen, out: Path) -> None:
    deadline = time.monotonic() + 150
    while not (out / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.02)


def step_of(out: Path) -> int:
    with safe_open(out / "checkpoint.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["aizheimer"])["step"]


@pytest.mark.timeout(400)  # a process of its own has to import torch, on a machine that may be busy
def test_ctrl_c_is_one_line_and_the_run_goes_on(cli, saved_tiny_pipeline, session_run, shared_cache, tmp_path):
    out = tmp_path / "run"
    length = ["training.steps=60", "training.checkpoint_every=5", "training.monitor_every=60"]
    process = start(saved_tiny_pipeline, out, shared_cache, length)
    wait_for_checkpoint(process, out)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith("error: Interrupted.")
    assert "--resume" in stderr.splitlines()[-1]
    assert not (out / "edit.safetensors").exists()
    assert not list(out.rglob("*.tmp"))
    stopped_at = step_of(out)
    assert 0 < stopped_at < 60

    words = ["--keep", "cat", "--model", saved_tiny_pipeline, *QUICK, *length, "--out", out, "--resume"]
    assert cli("forget", "santa claus", *words).code == 0
    events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in events if row["event"] == "step"] == list(range(1, 61))
    assert not load_edit(out).is_noop


@pytest.mark.parametrize(
    ("concept", "name"),
    [
        ("Santa Claus", "santa-claus"),
        ("Mrs. Claus", "mrs-claus"),
        ("../../etc", "etc"),
        ("/tmp", "tmp"),
        ("Köln 2", "köln-2"),
    ],
)
def test_a_concept_makes_a_folder_name(concept, name):
    assert folder_name(concept) == name


def test_a_concept_without_letters_needs_a_folder():
    with pytest.raises(RunFolderError, match="--out"):
        folder_name("?!")
