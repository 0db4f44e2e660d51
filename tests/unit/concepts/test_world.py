from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from aizheimer.concepts import DEFAULT_WORLD, Concept, World, WorldItem, templates
from aizheimer.errors import ModelError

ASSETS = Path(sys.modules["aizheimer.concepts"].__file__ or "").parents[1] / "assets"


def test_json_round_trip(tiny_world: World) -> None:
    assert World.from_json(tiny_world.to_json()) == tiny_world


def test_json_round_trip_with_everything(tiny_world: World, tmp_path: Path) -> None:
    world = dataclasses.replace(tiny_world, judges={"object": "judges/object"}, guidance=5.0, name="Zürich")
    assert World.from_json(world.to_json(), folder=tmp_path) == dataclasses.replace(world, folder=tmp_path)
    assert "folder" not in json.loads(world.to_json())


def test_load_from_the_parent_folder(tiny_folder: Path, tiny_world: World) -> None:
    world = World.load(tiny_folder)
    assert world == dataclasses.replace(tiny_world, folder=tiny_folder.parent)


def test_the_pipelines_own_folder_comes_first(tiny_folder: Path, tiny_world: World) -> None:
    own = dataclasses.replace(tiny_world, name="own")
    (tiny_folder / "world.json").write_text(own.to_json(), encoding="utf-8")
    assert World.load(tiny_folder) == dataclasses.replace(own, folder=tiny_folder)


def test_load_finds_the_parent_of_a_relative_folder(
    tiny_folder: Path, tiny_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_folder)
    assert World.load(Path()).name == tiny_world.name


def test_without_a_file_the_default_world(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    assert World.load(tmp_path / "pipeline") is DEFAULT_WORLD


def test_a_damaged_file_is_named_with_all_its_errors(tiny_folder: Path) -> None:
    path = tiny_folder.parent / "world.json"
    fields = json.loads(path.read_text())
    del fields["styles"]
    fields["subjets"] = fields.pop("subjects")
    fields["vocabulary"][1]["lable"] = "x"
    path.write_text(json.dumps(fields))
    with pytest.raises(ModelError) as caught:
        World.load(tiny_folder)
    message = str(caught.value)
    assert str(path) in message
    for field in ("styles", "subjects", "subjets", "vocabulary.1.lable"):
        assert field in message
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe"])
def test_a_file_that_is_not_a_world(tiny_folder: Path, content: bytes) -> None:
    (tiny_folder.parent / "world.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"world\.json") as caught:
        World.load(tiny_folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"object_templates": ("a photo",)}, r"object_templates: 'a photo' must have \{concept\}"),
        ({"object_templates": ("{concept} by {subject}",)}, "and no other field"),
        ({"style_templates": ("a {concept}",)}, r"must have \{concept\} and \{subject\}"),
        ({"style_templates": ("{subject} in {concept",)}, "is not a template"),
        ({"object_templates": ("{} {concept}",)}, "and no other field"),
    ],
)
def test_templates_are_checked(tiny_world: World, change: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        dataclasses.replace(tiny_world, **change)


def test_kind_of_ignores_case(tiny_world: World) -> None:
    assert tiny_world.kind_of(" Noto ") == "style"
    assert tiny_world.kind_of("cat") == "object"


def test_prompts_of_an_object(tiny_world: World) -> None:
    wanted = ["red apple in noto style", "red apple in flat style", "red apple in twemoji style"]
    assert tiny_world.prompts(Concept("red apple")) == wanted
    assert tiny_world.prompts_for("red apple") == wanted


def test_prompts_of_a_style(tiny_world: World) -> None:
    prompts = tiny_world.prompts(Concept("flat", kind="style"))
    assert prompts == [f"{subject} in flat style" for subject in tiny_world.subjects]


def test_braces_in_a_concept_are_only_text(tiny_world: World) -> None:
    assert tiny_world.prompts(Concept("{subject}", kind="style"))[0] == "santa claus in {subject} style"


def test_judge_folder(tiny_world: World, tmp_path: Path) -> None:
    world = dataclasses.replace(tiny_world, judges={"object": "judges/object", "clip": "clip"}, folder=tmp_path)
    (tmp_path / "judges" / "object").mkdir(parents=True)
    assert world.judge_folder("object") == tmp_path / "judges" / "object"
    assert world.judge_folder("clip") is None  # named, but not on disk
    assert world.judge_folder("style") is None
    assert dataclasses.replace(world, folder=None).judge_folder("object") is None


def test_worlds_can_be_keys(tiny_world: World) -> None:
    assert len({tiny_world, World.from_json(tiny_world.to_json())}) == 1


def test_default_world_is_large_and_without_repetitions() -> None:
    labels = [item.label for item in DEFAULT_WORLD.vocabulary]
    assert 290 <= len(labels) == len(set(labels))
    assert {item.group for item in DEFAULT_WORLD.vocabulary} == set(templates.NOUNS)
    assert all(
        isinstance(item, WorldItem) and item.label == item.label.strip().lower() for item in DEFAULT_WORLD.vocabulary
    )
    for words in (DEFAULT_WORLD.subjects, DEFAULT_WORLD.styles, DEFAULT_WORLD.general_prompts):
        assert len(words) == len(set(words)) >= 15
    assert not set(DEFAULT_WORLD.styles) & set(labels)


def test_default_world_round_trips() -> None:
    assert World.from_json(DEFAULT_WORLD.to_json()) == DEFAULT_WORLD


def test_the_bundled_world_loads() -> None:
    world = World.load(ASSETS / "emoji" / "pipeline")
    assert world.name == "emoji"
    assert world.kind_of("twemoji") == "style"
    assert len(world.vocabulary) >= 160
    assert world.prompts(Concept("Santa Claus"))[0] == "Santa Claus in noto style"


def test_words_without_a_kind_are_what_the_world_lists_or_like_the_concept(tiny_world: World) -> None:
    world, style, thing = tiny_world, Concept("noto", kind="style"), Concept("cat")
    kinds = [[world.beside(words, one).kind for words in ("Flat", "Dog", "unknown")] for one in (style, thing)]
    assert kinds == [["style", "object", "style"], ["style", "object", "object"]]


def test_words_need_no_torch() -> None:
    code = "import sys, aizheimer.concepts, aizheimer.backbones; print({'torch', 'diffusers'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert out.stdout.strip() == "set()"


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ASSETS.parents[1])}
