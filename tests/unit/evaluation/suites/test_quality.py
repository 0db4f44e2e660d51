"""The quality suite on a tiny pipeline: what is drawn, what is compared with what, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import aizheimer
from aizheimer.concepts.concept import Concept
from aizheimer.concepts.world import World
from aizheimer.detectors.clip_score import CLIPScore
from aizheimer.detectors.features import CLIPFeatures, load_extractor
from aizheimer.errors import DataError, InputError
from aizheimer.evaluation.functional.distances import frechet_distance, perceptual_distance
from aizheimer.evaluation.judges import Judges
from aizheimer.evaluation.suite import Scene, SuiteResult
from aizheimer.evaluation.suites.quality import REFERENCE_SEEDS, Quality, read_reference, retained
from tests.unit.detectors.builders import save_clip, save_colour_judge
from tests.unit.evaluation.builders import SMALL, WordEdit

# The tiny CLIP gives eight numbers a picture, so that FID needs nine pictures.
FEW = Quality(metrics=("clip-score", "fid", "perceptual"), images=12)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return CLIPScore.load(save_clip(tmp_path_factory.mktemp("clip") / "clip"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def scene(tiny_backbone, clip, cache):
    return Scene(
        backbone=tiny_backbone, edit=WordEdit("claus"), concept=Concept("Santa Claus"), judges=Judges(clip=clip),
        settings=SMALL, cache_dir=cache,
    )  # fmt: skip


class TestWhatIsDrawn:
    def test_every_retained_concept_once_before_one_comes_twice(self, scene):
        plan = retained(scene, 12)
        labels = [image.object for image in plan]
        assert len(set(labels[:10])) == 10
        assert "santa claus" not in labels
        assert len({(image.prompt, image.seed) for image in plan}) == 12
        assert {image.role for image in plan} == {"other"}

    def test_a_style_as_target(self, scene):
        plan = retained(dataclasses.replace(scene, concept=Concept("noto", kind="style")), 7)
        assert {image.style for image in plan} == {"flat", "twemoji"}
        assert len(plan) == 7


class TestNumbers:
    def test_what_each_number_is(self, scene, clip, tmp_path):
        found = FEW.run(scene)
        plan = retained(scene, 12)
        pairs = scene.pairs(plan)
        again = [dataclasses.replace(image, seed=image.seed + REFERENCE_SEEDS) for image in plan]
        reference = dataclasses.replace(scene, edit=None).pairs(again).original
        tower = CLIPFeatures(clip)
        edited, original, held = (tower.features(p).numpy() for p in (pairs.edited, pairs.original, reference))
        fid = found.distances["fid"]
        assert fid.value == pytest.approx(frechet_distance(edited, held))
        assert fid.original == pytest.approx(frechet_distance(original, held))
        assert (fid.n, fid.n_reference, fid.dim, fid.extractor) == (12, 12, 8, "clip image tower")
        assert (fid.weights, fid.interval) == (tower.weights, None)
        maps = [[layer.numpy() for layer in tower.maps(p)] for p in (pairs.edited, pairs.original)]
        moved = perceptual_distance(*maps)
        near = found.distances["perceptual"]
        assert near.value == pytest.approx(moved.mean())
        assert near.original == 0
        assert near.interval[0] <= near.value <= near.interval[1]
        score = found.distances["clip-score"]
        prompts = [image.prompt for image in plan]
        assert score.original == pytest.approx(float(clip.score(pairs.original, prompts).mean()), rel=1e-5)
        assert score.change_interval[0] <= score.change <= score.change_interval[1]
        # The edit touches the prompts with "claus" and no other.
        touched = np.array(["claus" in prompt for prompt in prompts])
        assert found.figures["unchanged.retain"].value == pytest.approx(1 - touched.mean())
        assert (moved > 0).tolist() == touched.tolist()
        found.save(tmp_path / "suite.json")
        assert SuiteResult.load(tmp_path / "suite.json") == found

    def test_no_edit_is_as_far_as_chance_and_moves_nothing(self, scene):
        found = FEW.run(dataclasses.replace(scene, edit=None))
        for distance in found.distances.values():
            assert distance.change == 0
        assert found.distances["fid"].value > 0
        assert found.distances["perceptual"].value == 0
        assert found.figures["unchanged.retain"].value == 1

    def test_kid_and_cmmd(self, scene):
        few_steps = scene.settings.model_copy(update={"steps": 1, "batch_size": 25})
        found = Quality(metrics=("kid", "cmmd"), images=50).run(
            dataclasses.replace(scene, settings=few_steps, edit=None)
        )
        assert set(found.distances) == {"kid", "cmmd"}
        assert found.distances["kid"].implementation.startswith("torchmetrics")
        assert found.distances["cmmd"].value == found.distances["cmmd"].original > 0

    def test_another_network_gives_another_number_with_its_name(self, scene, tmp_path):
        folder = save_colour_judge(tmp_path / "colour")
        found = Quality(metrics=("perceptual", "clip-score"), images=9, extractor=folder).run(scene)
        assert found.distances["perceptual"].extractor == "colour classifier features"
        assert found.distances["clip-score"].extractor == "clip score"

    def test_the_global_random_state_stays(self, scene):
        before = torch.get_rng_state()
        FEW.run(scene)
        assert torch.equal(torch.get_rng_state(), before)


class TestAFolderAsReference:
    def pictures(self, folder, count):
        folder.mkdir()
        rng = np.random.default_rng(0)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
        return folder

    def test_it_is_read_bit_for_bit_and_named_by_its_hash(self, scene, tmp_path):
        folder = self.pictures(tmp_path / "real", 12)
        assert np.array_equal(read_reference(folder, count=12, size=32)[3], np.asarray(Image.open(folder / "03.png")))
        found = Quality(metrics=("fid",), images=12, reference=folder).run(scene).distances["fid"]
        assert found.protocol == "to the pictures of a folder"
        assert found.reference != FEW.run(scene).distances["fid"].reference

    def test_too_few_pictures(self, tmp_path):
        with pytest.raises(DataError, match="got 3 pictures, wanted 12"):
            read_reference(self.pictures(tmp_path / "real", 3), count=12, size=32)


class TestRefused:
    def test_too_few_pictures_before_anything_is_drawn(self, scene):
        drawn = []
        with pytest.raises(InputError, match="fid: got images=8; clip image tower gives 8 numbers a picture"):
            Quality(metrics=("fid",), images=8).run(scene, progress=lambda *args: drawn.append(args))
        with pytest.raises(InputError, match=r"cmmd: got images=49.*which needs 50"):
            Quality(metrics=("cmmd",), images=49).run(scene)
        assert drawn == []

    def test_no_network(self, scene):
        with pytest.raises(InputError, match="give extractor=FOLDER"):
            FEW.run(dataclasses.replace(scene, judges=Judges()))

    def test_a_clip_score_without_a_clip_is_said_to_be_missing(self, scene, tmp_path):
        folder = save_colour_judge(tmp_path / "colour")
        suite = Quality(metrics=("perceptual", "clip-score"), images=9, extractor=folder)
        found = suite.run(dataclasses.replace(scene, judges=Judges()))
        assert set(found.distances) == {"perceptual"}
        assert found.warnings == ["not measured: clip-score, for there is no CLIP"]


def test_progress_names_its_stages(scene):
    seen = []
    FEW.run(scene, progress=lambda stage, done, total: seen.append(stage))
    assert set(seen) == {"reference", "drawing"}


def test_the_embedded_worlds_own_tower_is_the_extractor():
    world = World.load(Path(aizheimer.__file__).parent / "assets" / "emoji" / "pipeline")
    extractor = load_extractor(world.judge_folder("clip"))
    pictures = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    assert extractor.dim == 128
    assert extractor.features(pictures).shape == (3, 128)
    assert len(extractor.maps(pictures)) == 4
