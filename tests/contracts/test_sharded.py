"""FSDP: processes that each hold a share of the frozen weights give what one process with all of them gives."""

import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch

from aizheimer._processes import processes
from aizheimer.edits.io import load_edit
from aizheimer.engine.run_folder import RunFolder
from aizheimer.modules.sharded import sharded
from tests import company
from tests.contracts.test_processes import LONG, NEAR, alone, distance, recipe_file, wait_for_step, words
from tests.tiers import all_but
from tests.tiny import tiny_pipeline
from tests.tiny_families import BUILDERS

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("cached")]

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"}
KEPT = FSDP | {"FSDP_VERSION": "1", "FSDP_SHARDING_STRATEGY": "SHARD_GRAD_OP"}
METHODS = ("aizheimer", "forget-me-not", "spm", "doco", "receler", "surgery")
"""One pass for all, attention alone, rollouts of unequal length, an adversary, adapters inside a block, two rounds."""


@pytest.fixture
def cached(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path_factory.getbasetemp() / "processes-cache"))


def check_same(model: Path, recipe: Path, folder: Path, environment: dict[str, str] = FSDP) -> None:
    with company.start(
        words(model, recipe, folder / "run"), count=2, folder=folder / "logs", environment=environment
    ) as two:
        assert two.ended() == [0, 0], two.said(0) + two.said(1)
    assert distance(load_edit(folder / "run"), alone(model, recipe)) < NEAR


@pytest.mark.parametrize("name", all_but(["aizheimer"], METHODS))
def test_shares_of_the_weights_give_what_the_whole_gives(name, saved_tiny_pipeline, tmp_path):
    check_same(saved_tiny_pipeline, recipe_file(name, tmp_path, "training.monitor_every=2"), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(
    ("overrides", "environment"),
    [
        (("training.checkpointing=true",), FSDP | {"FSDP_ACTIVATION_CHECKPOINTING": "true"}),
        (("training.checkpointing=true",), KEPT),
        (("group=full",), FSDP),
        (("rollout=student",), KEPT),
    ],
    ids=["recomputed", "recomputed, kept after the forward pass", "nothing is frozen", "rollouts"],
)
def test_options_go_together_with_it(overrides, environment, saved_tiny_pipeline, tmp_path):
    check_same(saved_tiny_pipeline, recipe_file("esd", tmp_path, *overrides), tmp_path, environment)


@pytest.mark.long
@pytest.mark.parametrize(("family", "name"), [("sdxl", "aizheimer"), ("sd3", "esd"), ("flux", "esd")])
def test_every_kind_of_denoiser_has_blocks_to_share(family, name, saved_tiny_pipeline, tmp_path):
    BUILDERS[family]().save_pretrained(tmp_path / family)
    check_same(tmp_path / family, recipe_file(name, tmp_path), tmp_path)


@pytest.mark.long
def test_a_killed_process_ends_the_run_which_one_process_takes_up(saved_tiny_pipeline, tmp_path):
    recipe, run = recipe_file("esd", tmp_path, *LONG), RunFolder(tmp_path / "run")
    with company.start(
        words(saved_tiny_pipeline, recipe, run.path), count=2, folder=tmp_path / "logs", environment=FSDP
    ) as two:
        wait_for_step(run, 9, two)
        os.kill(two.processes[1].pid, signal.SIGKILL)
        codes = two.ended()
    assert codes == [1, -signal.SIGKILL]
    assert two.said(0).splitlines()[-1].startswith("error: another process of this command has ended")
    resumed = alone(saved_tiny_pipeline, recipe, out=run.path, resume=True)
    assert distance(resumed, alone(saved_tiny_pipeline, recipe)) < NEAR


@pytest.mark.long
@pytest.mark.parametrize("how", [["--use_fsdp", "--fsdp_version", "2"], ["--multi_gpu"]], ids=["FSDP", "data-parallel"])
def test_accelerate_starts_it(how, saved_tiny_pipeline, tmp_path):
    recipe = recipe_file("esd", tmp_path)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", 2, *how]
    launch += ["--main_process_port", company.free_port(), "-m", "aizheimer"]
    command = [*launch, *words(saved_tiny_pipeline, recipe, tmp_path / "run")]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("edit  ") == 1
    assert distance(load_edit(tmp_path / "run"), alone(saved_tiny_pipeline, recipe)) < NEAR


def test_each_holds_half_and_gives_all_back(tmp_path):
    with company.start([], count=2, folder=tmp_path / "logs", environment=FSDP, work=_share) as two:
        assert two.ended() == [0, 0], two.said(0) + two.said(1)


def _share(_words: list[str]) -> int:
    """What each of two processes does and checks."""
    try:
        network = tiny_pipeline().unet.requires_grad_(False)
        learning = network.get_parameter("mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight")
        before = {name: parameter.clone() for name, parameter in network.named_parameters()}
        parameters, modules = dict(network.named_parameters()), dict(network.named_modules())
        inputs = {"sample": torch.ones(1, 4, 8, 8), "timestep": 500, "encoder_hidden_states": torch.ones(1, 16, 32)}
        with torch.no_grad():
            wanted = network(**inputs).sample
        learning.requires_grad_(True)
        assert processes().count == 2
        with sharded(network):
            held = sum(_own_numbers(parameter) for parameter in network.parameters())
            assert 0.45 < held / sum(value.numel() for value in before.values()) < 0.7
            assert torch.allclose(network(**inputs).sample, wanted, atol=1e-6)
            network(**inputs).sample.sum().backward()
        assert learning.grad is not None
        assert dict(network.named_modules()) == modules
        for name, parameter in network.named_parameters():
            assert parameter is parameters[name], name
            assert torch.equal(parameter, before[name]), name
        with torch.no_grad():
            assert torch.equal(network(**inputs).sample, wanted)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _own_numbers(parameter: torch.Tensor) -> int:
    local = getattr(parameter, "to_local", None)
    return (parameter if local is None else local()).numel()
