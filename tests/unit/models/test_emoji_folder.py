"""The embedded model's drawings as a captioned folder, which data censoring reads, and its words."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from aizheimer.concepts.concept import Concept
from aizheimer.concepts.families import prompt_families
from aizheimer.concepts.world import World
from aizheimer.data.captioned import read_captioned

REPOSITORY = Path(__file__).parents[3]
EMOJI = REPOSITORY / "models" / "emoji"
EMBEDDED = REPOSITORY / "src" / "aizheimer" / "assets" / "emoji"


@pytest.fixture(scope="module")
def emoji_data():
    spec = importlib.util.spec_from_file_location("emoji_data", EMOJI / "emoji_data.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["emoji_data"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["emoji_data"]


def test_the_folder_and_what_is_left_of_it_without_santa_claus(emoji_data, tmp_path):
    labels = ("Santa Claus", "Mrs. Claus", "cat", "cat face")
    concepts = [row for row in emoji_data.read_concepts() if row.label in labels]
    levels = np.arange(len(concepts) * 5, dtype=np.uint8).reshape(-1, 5, 1, 1, 1) * 10
    images = np.broadcast_to(levels, (len(concepts), 5, 128, 128, 3)).copy()
    data = emoji_data.Dataset(concepts, images)
    assert emoji_data.write_imagefolder(data, tmp_path, captions=4) == 20

    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["text"][0] for row in rows[:5]] == [f"{rows[0]['label']} in {s} style" for s in emoji_data.STYLES]
    assert all(1 <= len(row["text"]) <= 4 for row in rows)

    found = read_captioned(tmp_path, 64, words=("Santa Claus",), kind="object")
    assert found.left_out == 5
    assert not any("santa claus" in caption.lower() for captions in found.captions for caption in captions)
    order = [row.label for row in concepts]
    places = [(order.index(row["label"]), emoji_data.STYLES.index(row["style"])) for row in rows]
    wanted = [levels[i, j, 0, 0, 0] for i, j in places if order[i] != "Santa Claus"]
    assert np.allclose((found.pixels[:, 0, 0, 0].numpy() + 1) * 127.5, wanted, atol=0.6)
    assert len(read_captioned(tmp_path, 64, words=("noto",), kind="style").pixels) == 16


def test_the_shipped_world_can_be_asked_in_other_languages(emoji_data):
    world = World.load(EMBEDDED)
    names = emoji_data.read_names()
    assert {item.label: item.names for item in world.vocabulary} == names
    labels = {label.casefold() for label in names}
    assert not any(name.casefold() in labels for own in names.values() for name in own.values())
    families = {family.name: family for family in prompt_families(Concept("Santa Claus"), world)}
    asked = [prompt.removesuffix(" in noto style") for prompt in families["languages"].prompts if "noto" in prompt]
    assert asked[:1] == ["Weihnachtsmann"]
    assert len(families["languages"].prompts) == 20
