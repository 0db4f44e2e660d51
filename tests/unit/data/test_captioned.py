"""Captioned folders with a concept left out: what counts as a mention, and what a folder must have."""

import json

import pytest
import torch
from PIL import Image

from aizheimer.concepts import Concept
from aizheimer.concepts.world import WorldItem
from aizheimer.data.captioned import (
    captions_of,
    check_captioned,
    concept_words,
    other_prompts,
    read_captioned,
    shows,
)
from aizheimer.errors import ConceptError, DataError

CAT = ("cat",)


def folder_of(place, records, *, side=8):
    """Write an imagefolder; the picture of record i is grey of the level 10 i."""
    place.mkdir(exist_ok=True)
    for i, record in enumerate(records):
        Image.new("RGB", (side, side), (10 * i,) * 3).save(place / record["file_name"])
    (place / "metadata.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return place


def record(text, **columns):
    return {"file_name": f"{abs(hash(str(text)))}.png", "text": text, **columns}


class TestMentions:
    @pytest.mark.parametrize(
        ("row", "found"),
        [
            (record("a CAT, sleeping"), True),
            (record(["a dog", "a picture of a cat"]), True),
            (record("category and scatter"), False),
            (record("a dog"), False),
            (record("a tabby", label="Cat"), True),
            (record("cat face in noto style", label="cat face"), False),
            (record("cat face and cat", label="cat face"), True),
            (record("a dog and a cat", label="dog"), True),
            (record("a dog", label=7), False),
        ],
    )
    def test_a_thing(self, row, found):
        assert shows(row, CAT, kind="object") is found

    @pytest.mark.parametrize(
        ("row", "found"),
        [
            (record("a shoe in flat style", style="flat"), True),
            (record("flat shoe in noto style", label="flat shoe", style="noto"), False),
            (record("flat shoe in noto style", style="noto"), True),
            (record("a shoe, flat"), True),
        ],
    )
    def test_a_style(self, row, found):
        assert shows(row, ("flat",), kind="style") is found

    def test_synonyms_count(self):
        words = ("Santa Claus", "Father Christmas")
        assert shows(record("father  christmas with a sack"), words, kind="object")
        assert not shows(record("a father at Christmas"), words, kind="object")

    def test_the_worlds_own_synonyms_are_tags_that_nothing_else_has(self, tiny_world):
        import dataclasses

        items = (
            WorldItem("cat", tags=("pet", "kitten", "Dog")),
            WorldItem("dog", tags=("pet",)),
        )
        world = dataclasses.replace(tiny_world, vocabulary=items)
        assert concept_words(Concept("Cat"), world, None) == ("Cat", "kitten")
        assert concept_words(Concept("cat"), world, ()) == ("cat",)
        assert concept_words(Concept("cat"), world, ["tom", "cat"]) == ("cat", "tom")
        assert concept_words(Concept("unheard of"), world, None) == ("unheard of",)

    @pytest.mark.parametrize("text", [None, "", "  ", [], ["a", None], ["a", ""], 3])
    def test_no_caption(self, text):
        assert captions_of({"text": text}) == ()


class TestFolder:
    def test_what_mentions_the_concept_stays_out(self, tmp_path):
        rows = [record("a dog"), record("a cat"), record(["a tree", "a green tree"])]
        found = read_captioned(folder_of(tmp_path / "data", rows), 4, words=CAT, kind="object")
        assert found.captions == (("a dog",), ("a tree", "a green tree"))
        assert found.left_out == 1
        assert torch.allclose(found.pixels[:, 0, 0, 0], torch.tensor([0.0, 20.0]) / 127.5 - 1)

    def test_sub_folders_are_found(self, tmp_path):
        (tmp_path / "noto").mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / "noto" / "dog.png")
        (tmp_path / "metadata.jsonl").write_text('{"file_name": "noto/dog.png", "text": "a dog"}\n\n')
        assert len(read_captioned(tmp_path, 4, words=CAT, kind="object").pixels) == 1

    def test_a_picture_that_cannot_be_read_is_named(self, tmp_path):
        rows = [record("a dog"), record("a tree")]
        folder = folder_of(tmp_path / "data", rows)
        (folder / rows[0]["file_name"]).write_text("no picture")
        with pytest.warns(UserWarning, match="not a readable image"):
            assert read_captioned(folder, 4, words=CAT, kind="object").captions == (("a tree",),)
        (folder / rows[1]["file_name"]).unlink()
        with (
            pytest.warns(UserWarning, match="not a readable image"),
            pytest.raises(DataError, match=r"of 2 records .* 0 mention 'cat' and 2 have no picture"),
        ):
            read_captioned(folder, 4, words=CAT, kind="object")

    def test_what_cannot_be_used(self, tmp_path):
        with pytest.raises(DataError, match="does not exist; give a folder that holds captioned pictures"):
            check_captioned(tmp_path / "gone", words=CAT, kind="object")
        with pytest.raises(DataError, match=r'has no metadata\.jsonl.*"file_name": "cat\.png"'):
            check_captioned(tmp_path, words=CAT, kind="object")
        with pytest.raises(DataError, match=r"every record in .* mentions 'cat'"):
            check_captioned(folder_of(tmp_path / "cats", [record("a cat")]), words=CAT, kind="object")
        (tmp_path / "file").write_text("")
        with pytest.raises(DataError, match="is a file"):
            check_captioned(tmp_path / "file", words=CAT, kind="object")

    @pytest.mark.parametrize(
        "line", ["{", "[]", '{"file_name": "a.png"}', '{"text": "a"}', '{"file_name": 1, "text": "a"}']
    )
    def test_a_line_that_is_no_record_is_named(self, tmp_path, line):
        (tmp_path / "metadata.jsonl").write_text(f'{{"file_name": "a.png", "text": "a dog"}}\n{line}\n')
        with pytest.raises(DataError, match=r"metadata\.jsonl, line 2: wanted a JSON object") as error:
            check_captioned(tmp_path, words=CAT, kind="object")
        assert "\n" not in str(error.value)


class TestPrompts:
    def test_everything_else_of_the_world(self, tiny_backbone):
        prompts = other_prompts(tiny_backbone, Concept("santa claus"), ("santa claus",))
        assert len(prompts) == 10 * 3
        assert not any("santa" in prompt for prompt in prompts)
        assert "mrs claus in noto style" in prompts

    def test_a_style(self, tiny_backbone):
        prompts = other_prompts(tiny_backbone, Concept("noto", kind="style"), ("noto",))
        assert len(prompts) == 11 * 2

    def test_nothing_else(self, tiny_backbone):
        everything = tuple(item.label for item in tiny_backbone.world.vocabulary)
        with pytest.raises(ConceptError, match="nothing but 'cat'"):
            other_prompts(tiny_backbone, Concept("cat"), everything)
