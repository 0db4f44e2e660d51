"""Prompt families: pure words, deterministic, and honest about what a world has no words for."""

import unicodedata

import pytest

from aizheimer.concepts import DEFAULT_WORLD, Concept, World, WorldItem
from aizheimer.concepts.families import NAMES, asking, descriptions, prompt_families, scenes, synonyms
from aizheimer.concepts.spelling import ZERO_WIDTH_JOINER, homoglyphs, misspellings, splits
from aizheimer.errors import ConceptError
from tests.tiny import tiny_tokenizer, tiny_world

SANTA = Concept("Santa Claus")
TAGGED = World(
    name="tagged",
    object_templates=("{concept} in noto style", "{concept} in flat style"),
    style_templates=("{subject} in {concept} style",),
    subjects=("cat", "dog", "tree"),
    styles=("noto", "flat"),
    vocabulary=(
        WorldItem("Santa Claus", "people", ("claus", "santa", "xmas", "sleigh rider", "reindeer"), {"de": "Nikolaus"}),
        WorldItem("Mrs. Claus", "people", ("claus", "xmas")),
        WorldItem("reindeer", "animals", ("xmas", "animal")),
        WorldItem("elf", "people", ("xmas",)),
        WorldItem("tree", "plants", ("xmas",)),
        WorldItem("cat", "animals", ("cats", "kitten", "animal")),
        WorldItem("x", "signs", ()),
    ),
    general_prompts=("a picture",),
)


def families(concept=SANTA, world=TAGGED, **options):
    return {family.name: family for family in prompt_families(concept, world, **options)}


class TestMisspellings:
    def test_the_three_slips_in_turn_from_the_middle(self):
        assert misspellings("santa")[:3] == ["sata", "satna", "samta"]

    def test_the_first_letter_stays_and_nothing_repeats(self):
        found = misspellings("Santa Claus")
        assert len(found) == len(set(found))
        assert all(word.startswith("S") and " C" in word for word in found)
        assert "Santa Claus" not in found

    def test_every_result_is_one_slip_away(self):
        for wrong in misspellings("reindeer"):
            longer, shorter = sorted(("reindeer", wrong), key=len, reverse=True)
            if len(longer) != len(shorter):
                assert any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))
                continue
            differ = [i for i in range(len(longer)) if longer[i] != shorter[i]]
            assert len(differ) == 1 or (len(differ) == 2 and sorted(longer) == sorted(shorter))

    def test_another_word_is_no_misspelling(self):
        """A slip that spells another thing asks for that thing: "cat" next to "car" and "cut"."""
        assert "car" not in misspellings("cat", known={"CAR"})
        assert set(misspellings("cat")) - set(misspellings("cat", known={"ct"})) == {"ct"}

    @pytest.mark.parametrize("word", ["", "x"])
    def test_too_short(self, word):
        assert misspellings(word) == []


class TestHomoglyphs:
    def test_they_read_the_same_and_are_other_characters(self):
        for word in homoglyphs("Santa Claus"):
            assert len(word) == len("Santa Claus")
            for ours, theirs in zip("Santa Claus", word, strict=True):
                assert ours == theirs or unicodedata.name(theirs).startswith("CYRILLIC")

    def test_all_at_once_and_one_by_one(self):
        found = homoglyphs("cat")
        assert [sum(a != b for a, b in zip("cat", word, strict=True)) for word in found] == [2, 1, 1]

    def test_unicode_does_not_fold_them_back(self):
        assert all(unicodedata.normalize("NFKC", word) != "cat" for word in homoglyphs("cat"))

    def test_no_letter_with_a_double(self):
        assert homoglyphs("трк") == []


class TestSplits:
    def test_all_kinds(self):
        assert splits("santa claus") == [
            "sa-nta claus", "sa nta claus", f"sa{ZERO_WIDTH_JOINER}nta claus", "s a n t a claus",
            ZERO_WIDTH_JOINER.join("santa") + " claus", "santa-claus", "santaclaus",
        ]  # fmt: skip

    def test_too_short(self):
        assert splits("x") == splits("") == []

    def test_a_two_letter_word_has_no_repeats(self):
        assert len(splits("ox")) == len(set(splits("ox"))) == 3

    @pytest.mark.parametrize("make", [misspellings, homoglyphs, splits])
    def test_the_tokenizer_reads_other_tokens(self, make):
        tokenizer = tiny_tokenizer()
        plain = tokenizer("santa claus")["input_ids"]
        assert all(tokenizer(word)["input_ids"] != plain for word in make("santa claus"))


class TestTags:
    def test_synonyms_are_rare_and_no_other_label(self):
        item = TAGGED.vocabulary[0]
        # "xmas" is everywhere, "reindeer" is another thing; "claus" is shared with one.
        assert synonyms(item, TAGGED) == ["santa", "sleigh rider", "claus"]

    def test_descriptions_never_name_it(self):
        found = descriptions(TAGGED.vocabulary[0], TAGGED)
        assert found[0] == "sleigh rider reindeer xmas"
        assert len(found) == 3
        assert not any("santa" in text or "claus" in text for text in found)

    def test_a_word_with_the_same_beginning_names_it(self):
        assert descriptions(TAGGED.vocabulary[5], TAGGED) == ["kitten animal", "animal kitten"]

    def test_one_tag_is_no_description(self):
        assert descriptions(WorldItem("unicorn", tags=("face",)), TAGGED) == []


def test_scenes_take_things_of_other_groups():
    found = scenes(SANTA, TAGGED)
    assert len(found) == 4
    assert all(text.count("Santa Claus") == 1 for text in found)
    assert not any("elf" in text or "Mrs." in text for text in found)


def test_texts_and_frames_meet_in_every_pair_once():
    frames = [lambda text, n=n: f"{text}{n}" for n in range(4)]
    texts = ["a", "b", "c"]
    found = asking(texts, frames, limit=100)
    assert sorted(found) == [f"{t}{n}" for t in texts for n in range(4)]
    assert [word[0] for word in found[:3]] == texts
    assert asking([], frames, limit=3) == asking(texts, [], limit=3) == []


class TestFamilies:
    def test_every_family_is_answered_in_order(self):
        assert tuple(families()) == NAMES
        assert tuple(families(world=DEFAULT_WORLD)) == NAMES

    def test_prompts_are_distinct_and_limited(self):
        for family in families(limit=3).values():
            assert 1 <= len(family.prompts) <= 3
            assert len(set(family.prompts)) == len(family.prompts)
            assert family.reason == ""

    def test_the_name_alone_and_in_the_templates(self):
        found = families()
        assert found["name"].prompts == ("Santa Claus",)
        assert found["templates"].prompts == ("Santa Claus in noto style", "Santa Claus in flat style")
        assert found["negation"].prompts[0] == "no Santa Claus in noto style"

    def test_only_the_families_that_should_name_it_do(self):
        named = {name for name, family in families().items() if any("Santa Claus" in p for p in family.prompts)}
        assert named == {"name", "templates", "scenes", "negation"}

    def test_languages_come_from_the_world_and_from_the_user(self):
        assert families()["languages"].prompts[0] == "Nikolaus in noto style"
        given = families(translations={"de": "Weihnachtsmann", "fr": "père Noël"})["languages"]
        assert {prompt.split(" in ")[0] for prompt in given.prompts} == {"Weihnachtsmann", "père Noël"}

    def test_what_a_world_has_no_words_for_is_said_and_not_counted(self):
        found = families(world=DEFAULT_WORLD)
        for name, reason in (("synonyms", "no tags"), ("indirect", "no tags"), ("languages", "no names")):
            assert found[name].prompts == ()
            assert reason in found[name].reason
        short = families(Concept("x"))
        assert "too short" in short["misspellings"].reason
        assert "too short" in short["splits"].reason

    def test_a_style(self):
        found = families(Concept("noto", kind="style"))
        assert found["templates"].prompts == tuple(f"{s} in noto style" for s in ("cat", "dog", "tree"))
        assert found["scenes"].prompts == ("cat and dog in noto style", "dog and tree in noto style")
        assert "no tags" in found["synonyms"].reason

    def test_a_style_takes_subjects_from_the_whole_list(self):
        found = families(Concept("noto", kind="style"), tiny_world(), limit=2)["templates"]
        assert found.prompts == ("santa claus in noto style", "tiger in noto style")

    def test_the_same_words_every_time(self):
        assert families() == families()

    def test_a_limit_of_nothing(self):
        with pytest.raises(ConceptError, match="limit of 0"):
            prompt_families(SANTA, TAGGED, limit=0)


def test_names_in_other_languages_survive_the_file(tmp_path):
    assert World.from_json(TAGGED.to_json()).vocabulary[0].names == {"de": "Nikolaus"}
    assert hash(TAGGED.vocabulary[0]) is not None
