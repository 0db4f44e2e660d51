"""A tiny model under attack, with an edit on it or without."""

import dataclasses

import pytest

from aizheimer.attacks.base import AttackSettings, Subject
from aizheimer.concepts.concept import Concept
from tests.unit.edits.test_edit import edit_of
from tests.unit.evaluation.builders import MemoryJudge

SANTA = Concept("Santa Claus")
SETTINGS = AttackSettings(images=2, steps=4, guidance=2.0)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def plain(tiny_backbone):
    """The unedited model, as a control attacks it."""
    return Subject(
        backbone=tiny_backbone, edit=None, concept=SANTA, judge=MemoryJudge(("Santa Claus", "cat")), settings=SETTINGS
    )


@pytest.fixture
def subject(plain):
    """The edited model; the edit is on the pipeline, as within run_attack."""
    edit = edit_of(plain.backbone.pipe)
    with edit.applied(plain.backbone.pipe):
        yield dataclasses.replace(plain, edit=edit)
