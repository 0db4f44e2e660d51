"""Tensors are computed once, and again only when what they are made of changes or the file is damaged."""

import pytest
import torch

from aizheimer.data.cache import TensorCache, cache_folder, content_key, module_hash, tensor_hash


class Counter:
    """Computes a tensor and counts how often it was asked to."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"x": torch.arange(3.0)}


def test_the_second_time_comes_from_disk(tmp_path):
    compute = Counter()
    first, second = (TensorCache(tmp_path).get("key", compute) for _ in range(2))
    assert compute.calls == 1
    assert torch.equal(first["x"], second["x"])


def test_without_a_folder_nothing_is_kept():
    compute = Counter()
    for _ in range(2):
        TensorCache(None).get("key", compute)
    assert compute.calls == 2


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * len(b)])
def test_a_damaged_entry_is_made_again(tmp_path, damage):
    compute = Counter()
    cache = TensorCache(tmp_path)
    cache.get("key", compute)
    path = tmp_path / "key.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert torch.equal(cache.get("key", compute)["x"], torch.arange(3.0))
    cache.get("key", compute)
    assert compute.calls == 2


def test_an_entry_under_another_name_is_not_taken(tmp_path):
    compute = Counter()
    cache = TensorCache(tmp_path)
    cache.get("key", compute)
    (tmp_path / "key.safetensors").rename(tmp_path / "other.safetensors")
    cache.get("other", compute)
    assert compute.calls == 2


def test_keys_do_not_depend_on_order_but_on_every_value():
    assert content_key(a=1, b=[1, 2]) == content_key(b=[1, 2], a=1)
    assert content_key(a=1, b=[1, 2]) != content_key(a=1, b=[2, 1])


def test_tensor_hash_sees_values_shape_and_type():
    x = torch.arange(6.0)
    hashes = {tensor_hash(t) for t in (x, x.reshape(2, 3), x.to(torch.float64), x + 1e-6, x.to(torch.bfloat16))}
    assert len(hashes) == 5
    assert tensor_hash(x.reshape(2, 3).T) == tensor_hash(x.reshape(2, 3).T.contiguous())
    assert tensor_hash(torch.tensor(True)) != tensor_hash(torch.tensor(False))


def test_module_hash_sees_one_changed_weight():
    net = torch.nn.Linear(2, 2)
    before = module_hash(net)
    assert module_hash(net) == before
    with torch.no_grad():
        net.weight[0, 0] += 1
    assert module_hash(net) != before


def test_the_folder_is_the_variable_then_the_run_then_none(tmp_path, monkeypatch):
    monkeypatch.delenv("AIZHEIMER_CACHE", raising=False)
    assert cache_folder(None) is None
    assert cache_folder(tmp_path) == tmp_path / "cache"
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path / "mine"))
    assert cache_folder(tmp_path) == cache_folder(None) == tmp_path / "mine"


@pytest.mark.parametrize("stored", [False, True])
def test_what_is_computed_has_the_layout_of_what_is_read(tmp_path, stored):
    """Convolutions round differently when channels come last, and a resumed run must not."""
    strided = torch.randn(2, 4, 3, 3).to(memory_format=torch.channels_last)
    cache = TensorCache(tmp_path if stored else None)
    found = cache.get("key", lambda: {"x": strided})["x"]
    assert not strided.is_contiguous()
    assert found.is_contiguous()
    assert torch.equal(found, strided)
