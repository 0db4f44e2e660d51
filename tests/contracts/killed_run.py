"""Train in a process of its own, so that a test can kill it: killed_run.py RECIPE FOLDER THREADS OVERRIDE..."""

import sys
from pathlib import Path

import torch

from aizheimer.backbones.base import backbone_for
from aizheimer.concepts import Concept
from aizheimer.engine.run_folder import RunFolder
from tests.contracts.quick import quick_recipe
from tests.tiny import tiny_pipeline, tiny_world

if __name__ == "__main__":
    recipe, folder, threads, *overrides = sys.argv[1:]
    torch.set_num_threads(int(threads))
    backbone = backbone_for(tiny_pipeline(), world=tiny_world())
    run = RunFolder(Path(folder)).create()
    quick_recipe(recipe, *overrides).method.unlearn(backbone, Concept("santa claus"), run=run)
