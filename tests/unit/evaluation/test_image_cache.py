import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from aizheimer.errors import StorageError
from aizheimer.evaluation.image_cache import ImageCache, default_cache_dir, pipeline_digest

PICTURE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


@pytest.fixture
def cache(tmp_path):
    return ImageCache.at(tmp_path)


def test_returns_what_was_written(cache):
    key = cache.key(prompt="cat", seed=1)
    assert cache.read(key) is None
    cache.write(key, PICTURE)
    assert np.array_equal(cache.read(key), PICTURE)
    assert [p.suffix for p in cache.folder.rglob("*") if p.is_file()] == [".safetensors"]


def test_writes_views_as_they_look(cache):
    key = cache.key(prompt="cat")
    cache.write(key, PICTURE[::-1, ::2])
    assert np.array_equal(cache.read(key), PICTURE[::-1, ::2])


@pytest.mark.parametrize("other", [{"prompt": "cat", "seed": 2}, {"prompt": "Cat", "seed": 1}, {"prompt": "cat"}])
def test_every_part_of_the_request_counts(other):
    assert ImageCache.key(prompt="cat", seed=1) != ImageCache.key(**other)
    assert ImageCache.key(prompt="cat", seed=1) == ImageCache.key(seed=1, prompt="cat")


def _cut(data):
    return data[: len(data) // 2]


def _flip(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def _other_tensor(data):
    return save({"image": load(data)["image"]})


@pytest.mark.parametrize(
    "damage", [_cut, _flip, _other_tensor, lambda data: b""], ids=["cut", "flip", "other", "empty"]
)
def test_a_damaged_entry_is_a_miss_and_said_to_be_one(cache, damage):
    key = cache.key(prompt="cat")
    cache.write(key, PICTURE)
    path = cache.path(key)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="is damaged: the picture is drawn again"):
        assert cache.read(key) is None


def test_false_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path))
    cache = ImageCache.at(False)
    cache.write(cache.key(prompt="cat"), PICTURE)
    assert list(tmp_path.iterdir()) == []


def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path))
    assert ImageCache.at(None).folder == tmp_path / "images"
    monkeypatch.delenv("AIZHEIMER_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert default_cache_dir() == tmp_path / ".cache" / "aizheimer"


def test_a_full_disk_says_so_and_leaves_nothing(cache, monkeypatch):
    def refuse(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(StorageError):
        cache.write(cache.key(prompt="cat"), PICTURE)
    assert [p for p in cache.folder.rglob("*") if p.is_file()] == []


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    cache = ImageCache.at(tmp_path / "file")
    with pytest.raises(StorageError, match="AIZHEIMER_CACHE"):
        cache.write(cache.key(prompt="cat"), PICTURE)


class TestDigest:
    def test_equal_pipelines_have_equal_digests(self, tiny_pipeline):
        from tests.tiny import tiny_pipeline as fresh

        assert pipeline_digest(tiny_pipeline) == pipeline_digest(fresh())
        assert pipeline_digest(tiny_pipeline) != pipeline_digest(fresh(seed=1))

    @pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
    def test_one_bit_of_any_part_changes_it(self, tiny_pipeline, part):
        before = pipeline_digest(tiny_pipeline)
        weight = next(getattr(tiny_pipeline, part).parameters())
        with torch.no_grad():
            weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(9.0))
        assert pipeline_digest(tiny_pipeline) != before

    def test_the_scale_of_latents_counts(self, tiny_pipeline):
        before = pipeline_digest(tiny_pipeline)
        tiny_pipeline.vae.register_to_config(scaling_factor=0.9)
        assert pipeline_digest(tiny_pipeline) != before

    def test_half_precision(self, tiny_pipeline):
        before = pipeline_digest(tiny_pipeline)
        assert pipeline_digest(tiny_pipeline.to(torch.bfloat16)) != before
