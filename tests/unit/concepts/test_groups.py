"""People by sex and skin tone, found in a vocabulary's words."""

from pathlib import Path

import aizheimer
from aizheimer.concepts import World
from aizheimer.concepts.groups import people_pairs, skin_tones, without

ASSETS = Path(aizheimer.__file__).parent / "assets" / "emoji" / "pipeline"


def test_pairs_need_both_and_keep_spelling():
    found = people_pairs(["Man", "woman", "Prince", "princess", "man in tuxedo", "mango", "chairman", "pregnant woman"])
    assert found == {"men": {"Man": "Man", "Prince": "Prince"}, "women": {"Man": "woman", "Prince": "princess"}}
    assert people_pairs(["cat", "woman"]) == {}


def test_the_embedded_world_has_pairs_and_no_skin_tones():
    labels = [item.label for item in World.load(ASSETS).vocabulary]
    pairs = people_pairs(labels)
    assert list(pairs["men"]) == list(pairs["women"])
    assert pairs["women"]["man astronaut"] == "woman astronaut"
    assert pairs["women"]["old man"] == "old woman"
    assert len(pairs["men"]) >= 9
    assert skin_tones(labels) == {}


def test_tones_keep_the_persons_that_all_have():
    labels = [f"{who}: {tone} skin tone" for who in ("boy", "old man") for tone in ("light", "medium-dark", "dark")]
    found = skin_tones([*labels, "girl: dark skin tone", "light bulb"])
    assert list(found) == ["light skin tone", "medium-dark skin tone", "dark skin tone"]
    assert found["dark skin tone"] == {"boy": "boy: dark skin tone", "old man": "old man: dark skin tone"}
    assert skin_tones(["boy: dark skin tone"]) == {}
    assert skin_tones(["boy: dark skin tone", "girl: light skin tone"]) == {}


def test_a_pair_that_lost_one_side_is_no_pair():
    groups = {"men": {"cook": "man cook", "boy": "boy"}, "women": {"cook": "woman cook", "boy": "girl"}}
    assert without(groups, "Woman Cook") == {"men": {"boy": "boy"}, "women": {"boy": "girl"}}
    assert without(without(groups, "boy"), "man cook") == {}
