"""Pictures dealt out to processes that know nothing of each other, through the cache."""

import numpy as np
import pytest

from aizheimer.concepts import Concept
from aizheimer.errors import InputError
from aizheimer.evaluation.evaluate import draw_pairs, draw_share, planned
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.evaluation.shares import Share, merged, missing_everywhere
from tests.unit.evaluation.builders import WordEdit

CONCEPT = Concept("santa claus")
SETTINGS = EvaluationSettings(
    target_images=3, neighbours=2, neighbour_images=1, others=2, other_images=1, steps=1, batch_size=2
)


class Killed(Exception):
    """Stands for what ends a worker between two batches."""


def pictures(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def test_a_share_is_read_and_dealt():
    assert Share.parse(" 2/3 ") == Share(2, 3)
    dealt = [Share(i, 3).of(list(range(8))) for i in (1, 2, 3)]
    assert dealt == [[0, 3, 6], [1, 4, 7], [2, 5]]


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "1/0", "a/b", "1/2/3"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(InputError, match=r"such as 2/4"):
        Share.parse(text)


def test_alone_everything_is_ones_own():
    assert missing_everywhere(["a", "b", "c"], {"b": np.zeros(1)}) == ["a", "c"]
    assert merged([["a"]], {}, shape=(1, 1, 3)) == {}


@pytest.fixture
def drawing(tiny_backbone, tiny_world, tmp_path):
    def run(share, *, cache="cache", **options):
        return draw_share(
            tiny_backbone.pipe,
            WordEdit("santa"),
            concept=CONCEPT,
            world=tiny_world,
            settings=SETTINGS,
            share=share,
            cache_dir=tmp_path / cache,
            **options,
        )

    return run


def pairs(backbone, world, cache, **options):
    plan, _ = planned(backbone, CONCEPT, world=world, settings=SETTINGS)
    edit, guidance = WordEdit("santa"), world.guidance
    return draw_pairs(backbone.pipe, edit, plan=plan, settings=SETTINGS, guidance=guidance, cache_dir=cache, **options)


def test_the_shares_together_are_the_evaluations_pictures(drawing, tiny_backbone, tiny_world, tmp_path):
    told = []
    drawn = [drawing(Share(i, 2), progress=lambda *n: told.append(n)) for i in (1, 2)]
    assert sum(drawn) == 14
    assert min(drawn) > 0
    assert told[-1] == (drawn[1], drawn[1])
    before = pictures(tmp_path / "cache")
    assert len(before) == 14
    merged_pairs = pairs(tiny_backbone, tiny_world, tmp_path / "cache")
    assert pictures(tmp_path / "cache") == before
    alone = pairs(tiny_backbone, tiny_world, tmp_path / "other")
    assert np.array_equal(merged_pairs.original, alone.original)
    assert np.array_equal(merged_pairs.edited, alone.edited)
    assert not np.array_equal(alone.original, alone.edited)
    assert drawing(Share(1, 2)) == 0


def test_a_worker_that_ends_has_lost_only_its_unfinished_batch(drawing, tiny_backbone, tiny_world, tmp_path):
    def ends(done, total):
        raise Killed

    with pytest.raises(Killed):
        drawing(Share(1, 2), progress=ends)
    kept = pictures(tmp_path / "cache")
    assert len(kept) == SETTINGS.batch_size
    pairs(tiny_backbone, tiny_world, tmp_path / "cache")
    after = pictures(tmp_path / "cache")
    assert len(after) == 14
    assert {path: after[path] for path in kept} == kept
