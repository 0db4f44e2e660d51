"""Fixtures shared by all tests. Nothing heavy is imported before a test asks for it."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from aizheimer.backbones.stable_diffusion import StableDiffusionBackbone
    from aizheimer.concepts.world import World
    from tests.duplicate import Duplicator

# Workers side by side share the cores: the tests' networks are too small to gain from threads that wait for each other.
if (workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))) and not os.environ.get("OMP_NUM_THREADS"):
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))

# The same examples on every machine, and none that fails because the machine is busy.
hypothesis.settings.register_profile("aizheimer", deadline=None, derandomize=True, max_examples=50)
# `make fuzz`: other examples every time; what fails is printed with what repeats it.
hypothesis.settings.register_profile("fuzz", deadline=None, print_blob=True, max_examples=1000)
hypothesis.settings.load_profile("fuzz" if "AIZHEIMER_FUZZ_CASES" in os.environ else "aizheimer")

# The shapes in these signatures are checked while the tests run, and never in production.
CHECKED = ["aizheimer.diffusion", "aizheimer.backbones.views", "aizheimer.backbones.stable_diffusion"]
install_import_hook(CHECKED, "beartype.beartype")


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look through all of it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="session")
def saved_tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline on disk for the whole session. Read only: to change it, ask for ``tiny_folder``."""
    from tests.tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def pristine_tiny_pipeline(saved_tiny_pipeline: Path) -> StableDiffusionPipeline:
    """The pipeline the copies are made of. Read only: to change it, ask for ``tiny_pipeline``."""
    from tests.tiny import tiny_pipeline

    pipe = tiny_pipeline()
    pipe.register_to_config(_name_or_path=str(saved_tiny_pipeline))
    return pipe


@pytest.fixture(scope="session")
def copy_of_tiny_pipeline(pristine_tiny_pipeline: StableDiffusionPipeline) -> Duplicator[StableDiffusionPipeline]:
    """What makes the copies."""
    from tests.duplicate import Duplicator

    return Duplicator(pristine_tiny_pipeline)


@pytest.fixture
def tiny_pipeline(copy_of_tiny_pipeline: Duplicator[StableDiffusionPipeline]) -> StableDiffusionPipeline:
    """A fresh tiny StableDiffusionPipeline; it knows its folder, so its world is the tiny world."""
    return copy_of_tiny_pipeline()


@pytest.fixture
def tiny_folder(saved_tiny_pipeline: Path, tmp_path: Path) -> Path:
    """A tiny pipeline's folder that the test may damage, with ``world.json`` in its parent."""
    shutil.copytree(saved_tiny_pipeline.parent, tmp_path / "tiny")
    return tmp_path / "tiny" / saved_tiny_pipeline.name


@pytest.fixture
def tiny_world() -> World:
    """What the tiny pipeline draws, in words."""
    from tests.tiny import tiny_world

    return tiny_world()


@pytest.fixture
def tiny_backbone(tiny_pipeline: StableDiffusionPipeline) -> StableDiffusionBackbone:
    """The backbone around a fresh ``tiny_pipeline``."""
    from aizheimer.backbones.base import backbone_for

    return backbone_for(tiny_pipeline)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Let Ctrl-C raise `KeyboardInterrupt`, as in a terminal: what runs in the background ignores it from birth."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
