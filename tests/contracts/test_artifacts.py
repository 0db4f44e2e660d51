"""Every cell of the table method x format in the documentation, by the pictures that come out."""

import functools

import pytest

from aizheimer._registry import METHODS
from aizheimer.backbones.base import backbone_for
from aizheimer.data.cache import CACHE_VARIABLE
from aizheimer.edits.export import FORMATS
from tests.contracts.artifact_table import edit_of, row, written_rows
from tests.tiers import all_but
from tests.tiny import tiny_pipeline, tiny_world


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@functools.cache
def backbone():
    return backbone_for(tiny_pipeline(), world=tiny_world())


def test_the_table_has_every_method_and_every_format():
    rows = written_rows()
    assert set(rows) == set(METHODS.entries)
    assert all(list(cells) == list(FORMATS) for cells in rows.values())


@pytest.mark.parametrize("method", all_but(["uce", "spm", "sld"], METHODS.entries))
def test_a_row(method, cache, saved_tiny_pipeline, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    found = row(edit_of(method, backbone()), backbone(), base_folder=saved_tiny_pipeline, folder=tmp_path)
    assert found == written_rows()[method]
