import io

import numpy as np
import pytest
from PIL import Image

from aizheimer.reports.grid import GAP, _font, _wrap, grid_image, pick_columns, save_grid
from aizheimer.reports.pictures import data_uri, enlarge, to_png
from tests.unit.reports.builders import pairs_of, record, result_of


@pytest.fixture
def columns():
    result = result_of()
    return pick_columns(result, pairs_of(result))


class TestColumns:
    def test_first_of_each_target_prompt_and_of_each_concept(self, columns):
        shown = [(c.group, c.prompt, c.seed, int(c.original[0, 0, 0]) - 10) for c in columns]
        assert shown == [
            ("target", "Santa Claus in noto style", 0, 0),
            ("target", "Santa Claus in flat style", 0, 1),
            ("neighbours", "old man in noto style", 0, 3),
            ("neighbours", "Mrs. Claus in noto style", 0, 5),
            ("unrelated", "tree in noto style", 0, 6),
        ]

    def test_both_rows_show_the_same_prompt(self, columns):
        assert all((c.edited.astype(int) - c.original == 100).all() for c in columns)

    def test_good_means_target_gone_and_the_rest_kept(self, columns):
        assert [c.good for c in columns] == [True, False, True, False, True]
        assert [c.seen_edited for c in columns] == ["old man", "Santa Claus", "old man", "woman", "tree"]

    def test_none_of_these_is_gone_but_not_kept(self):
        result = result_of(images=[record("target", "Santa Claus"), record("other", "tree")])
        assert [c.good for c in pick_columns(result, pairs_of(result))] == [True, False]

    def test_what_was_not_right_before_is_neither_good_nor_bad(self):
        images = [record("target", "Santa Claus"), record("other", "tree", seen="tree"), record("other", "car")]
        images = [image.model_copy(update={"original_object": "dog"}) for image in images]
        result = result_of(images=images)
        columns = pick_columns(result, pairs_of(result))
        assert [(c.judged, c.good) for c in columns] == [(True, None)] * 3

    def test_without_a_judge_nothing_is_called_good(self):
        result = result_of(ua=None, ira=None)
        assert {(c.judged, c.good) for c in pick_columns(result, pairs_of(result))} == {(False, None)}

    def test_at_most_each(self):
        result = result_of()
        assert len(pick_columns(result, pairs_of(result), each=1)) == 3


class TestPicture:
    def test_holds_every_picture_crisp_and_in_its_place(self, columns):
        pixels = np.asarray(grid_image(columns, edge=32))
        for column in columns:
            rows, spots = [], []
            for tone in (column.original[0, 0, 0], column.edited[0, 0, 0]):
                y, x = np.nonzero((pixels == tone).all(axis=-1))
                assert len(y) >= 32 * 32
                block = pixels[y.min() : y.min() + 32, x.min() : x.min() + 32]
                assert (block == tone).all()
                rows.append(y.min())
                spots.append(x.min())
            assert spots[0] == spots[1]
            assert rows[1] - rows[0] == 32 + GAP

    def test_needs_a_column(self):
        with pytest.raises(ValueError, match="no columns"):
            grid_image([])

    def test_prompts_of_any_length_and_script_fit(self, columns):
        import dataclasses

        wide = [dataclasses.replace(c, prompt="Żółw морж " * 40 + "x" * 300) for c in columns]
        assert grid_image(wide, edge=64).width == grid_image(columns, edge=64).width

    def test_save(self, columns, tmp_path):
        path = save_grid(columns, tmp_path / "deep" / "grid.png")
        with Image.open(path) as image:
            assert image.size == grid_image(columns).size
        assert [p.name for p in path.parent.iterdir()] == ["grid.png"]


class TestWrap:
    def test_keeps_all_words_that_fit(self):
        font = _font(16)
        lines = _wrap("a photo of a red apple on a table", font, 120)
        assert " ".join(lines) == "a photo of a red apple on a table"
        assert len(lines) > 1
        assert all(font.getlength(line) <= 120 for line in lines)

    def test_cuts_with_an_ellipsis(self):
        font = _font(16)
        lines = _wrap("word " * 50, font, 120, lines=2)
        assert len(lines) == 2
        assert lines[-1].endswith("…")
        assert all(font.getlength(line) <= 120 for line in lines)
        (single,) = _wrap("x" * 100, font, 120)
        assert font.getlength(single) <= 120


class TestPictures:
    @pytest.mark.parametrize(
        ("size", "edge", "wanted"), [(64, 192, 192), (64, 150, 128), (100, 192, 200), (512, 192, 192)]
    )
    def test_small_pictures_grow_by_whole_factors_and_large_ones_shrink(self, size, edge, wanted):
        assert enlarge(np.zeros((size, size, 3), np.uint8), edge=edge).size == (wanted, wanted)

    def test_enlarging_makes_blocks(self):
        image = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
        assert np.array_equal(np.asarray(enlarge(image, edge=12)), image.repeat(3, 0).repeat(3, 1))

    def test_png_round_trip(self):
        image = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(to_png(image)))), image)
        assert data_uri(image).startswith("data:image/png;base64,iVBOR")
