"""A checkpoint is whole or refused, and only its own run may use it."""

import pytest
import torch

from aizheimer.engine.checkpoint import FILE_NAME, Checkpoint, load_checkpoint
from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import RunFolderError

IDENTITY = {"concept": {"target": "cat"}, "training": {"betas": (0.9, 0.999), "steps": 5}}


@pytest.fixture
def run(tmp_path):
    run = RunFolder(tmp_path).create()
    tensors = {"parameters/a.b": torch.arange(3.0), "best/a.b": torch.zeros(3)}
    Checkpoint(step=7, tensors=tensors, state={"baseline": 0.1}, identity=IDENTITY).save(run)
    return run


def test_round_trip(run):
    found = load_checkpoint(run, identity=IDENTITY)
    assert (found.step, found.state) == (7, {"baseline": 0.1})
    assert torch.equal(found.group("parameters")["a.b"], torch.arange(3.0))
    assert list(found.group("best")) == ["a.b"]


def test_there_may_be_none_yet(tmp_path):
    assert load_checkpoint(RunFolder(tmp_path), identity={}) is None


def test_what_changed_is_named(run):
    other = {"concept": {"target": "dog"}, "training": {"betas": [0.9, 0.999], "steps": 6}}
    with pytest.raises(RunFolderError, match=r"concept.target was 'cat', is 'dog'; training.steps was 5, is 6"):
        load_checkpoint(run, identity=other)


@pytest.mark.parametrize("damage", [lambda b: b[:-5], lambda b: b[:20], lambda b: b""])
def test_damage_is_an_error(run, damage):
    path = run.file(FILE_NAME)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunFolderError, match="is damaged"):
        load_checkpoint(run, identity=IDENTITY)


def test_another_programs_file_is_an_error(run):
    run.write_tensors(FILE_NAME, {"x": torch.zeros(1)})
    with pytest.raises(RunFolderError, match="is damaged"):
        load_checkpoint(run, identity=IDENTITY)
