"""Run the command line as a user would, on the tiny pipeline."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from aizheimer.cli import main

QUICK = (
    "start=null",
    "enough=null",
    "training.steps=4",
    "training.monitor_every=2",
    "training.checkpoint_every=2",
    "training.batch_size=2",
    "retain_batch_size=2",
    "monitor_examples=2",
    "retain_others=2",
    "rollouts={forget: 2, retain: 4, holdout: 1, steps: 2}",
)
"""Parameters that make a run as short as it can be."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Its error, which must be the last line and the only one."""
        lines = self.err.splitlines()
        assert [line.startswith("error: ") for line in lines].count(True) == 1, self.err
        assert lines[-1].startswith("error: "), self.err
        assert "Traceback" not in self.err
        return lines[-1].removeprefix("error: ")


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory) -> Path:
    """What is drawn and encoded once for all command-line tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path, shared_cache) -> Callable[..., Done]:
    """Run one command in this process, in an empty folder."""
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setenv("AIZHEIMER_CACHE", str(shared_cache))
    capsys.readouterr()

    def run(*args: object) -> Done:
        code = main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def session_run(saved_tiny_pipeline, tmp_path_factory, shared_cache) -> Path:
    """A finished run on the tiny pipeline. Read only: to change it, ask for ``run_folder``."""
    from aizheimer import api
    from aizheimer.recipes.load import load_recipe

    folder = tmp_path_factory.mktemp("runs") / "santa-claus"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIZHEIMER_CACHE", str(shared_cache))
        recipe = load_recipe("aizheimer", [*QUICK, "training.lr=0.01"])
        api.forget(saved_tiny_pipeline, "santa claus", method=recipe, keep=["cat"], out=folder)
    return folder


@pytest.fixture
def run_folder(session_run, tmp_path) -> Path:
    """A finished run that the test may change."""
    return Path(shutil.copytree(session_run, tmp_path / "santa-claus"))
