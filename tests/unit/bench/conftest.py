"""Every bench of these tests has a cache of its own, and loads its model itself."""

import pytest

from aizheimer.bench import cell as cells


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path / "cache"))
    cells._backbone.cache_clear()
    cells._networks.cache_clear()
