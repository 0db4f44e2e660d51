"""Train in a process of its own, so that a test can kill it.

The processes are forked from a server that has imported everything, and computed nothing, before: importing takes
longer than the runs.
"""

import functools
import multiprocessing
import os
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

import aizheimer
from aizheimer.backbones.base import backbone_for
from aizheimer.concepts import Concept
from aizheimer.engine.run_folder import RunFolder
from tests.contracts.quick import quick_recipe
from tests.tiny import tiny_pipeline, tiny_world


def start(recipe: str, folder: Path, *overrides: str) -> BaseProcess:
    """Begin a run in another process; kill it whenever you like."""
    process = _server().Process(target=_train, args=(recipe, folder, torch.get_num_threads(), overrides), daemon=True)
    process.start()
    return process


@functools.cache
def _server() -> ForkServerContext:
    # It looks for this module on its path, and gets that from here in every version of Python.
    places = [str(Path(aizheimer.__file__).parents[1]), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _train(recipe: str, folder: Path, threads: int, overrides: tuple[str, ...]) -> None:
    torch.set_num_threads(threads)  # the same sums in the same order as in the test's own process
    backbone = backbone_for(tiny_pipeline(), world=tiny_world())
    run = RunFolder(folder).create()
    quick_recipe(recipe, *overrides).method.unlearn(backbone, Concept("santa claus"), run=run)
