"""Every file that the documentation shows is read by what it is for: plan, gate, suite, world, entry point."""

import json
import tomllib

import pytest
import yaml

from aizheimer.bench.plan import load_plan
from aizheimer.concepts.world import World
from aizheimer.data.captioned import captions_of, shows
from aizheimer.evaluation.suite_file import load_suite
from aizheimer.proof.gate import load_gate
from aizheimer.recipes import load_recipe
from tests.docs.snippets import DATA, aizheimer_words


def is_plan(file):
    plan = load_plan(file, {})
    assert plan.methods
    assert plan.concepts


def is_part_of_a_plan(file):
    assert load_plan(file, {"methods": ["uce"], "concepts": ["cat"]}).attacks


def is_world(file):
    (file.parent / "pipeline").mkdir()
    file.rename(file.parent / "world.json")
    world = World.load(file.parent / "pipeline")
    assert world.name == json.loads((file.parent / "world.json").read_text())["name"]
    assert world.kind_of(world.styles[0]) == "style"


def is_workflow(file):
    """A workflow of GitHub's: steps that each do one thing, and commands that the command line understands."""
    from tests.cli.test_docs import parse

    steps = [step for job in yaml.safe_load(file.read_text())["jobs"].values() for step in job["steps"]]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    ours = [words for step in steps if (words := aizheimer_words(step.get("run", "true"))) is not None]
    assert ours
    for words in ours:
        parse(words)


def is_metadata(file):
    record = json.loads(file.read_text())
    assert captions_of(record)
    assert shows(record, [record["label"]], kind="object")


def is_entry_point(file):
    """Its group is one that the package reads."""
    groups = tomllib.loads(file.read_text())["project"]["entry-points"]
    assert set(groups) <= {"aizheimer.methods", "aizheimer.attacks"}
    assert all(":" in target for group in groups.values() for target in group.values())


READERS = {
    "methods:": is_plan,
    "jobs:": is_workflow,
    "min_ua:": lambda file: load_gate(file),
    "attacks:": is_part_of_a_plan,
    "suite:": lambda file: load_suite(file),
    "method:": lambda file: load_recipe(file),
    '"object_templates":': is_world,
    '"file_name":': is_metadata,
    "[project.entry-points.": is_entry_point,
}
"""By a key that only this kind of file has, who reads it. The first that fits is taken."""


def reader(block):
    found = [read for key, read in READERS.items() if any(key in line for line in block.body.splitlines())]
    assert found, f"{block}: say in tests/docs/test_data_blocks.py who reads it"
    return found[0]


@pytest.mark.parametrize("block", DATA, ids=str)
def test_what_is_shown_is_read(block, tmp_path):
    file = tmp_path / f"shown.{block.language}"
    file.write_text(block.body, encoding="utf-8")
    reader(block)(file)


@pytest.mark.parametrize("block", [b for b in DATA if b.language == "yaml" and "jobs:" not in b.body], ids=str)
def test_a_wrong_key_in_it_would_be_found(block, tmp_path):
    file = tmp_path / "shown.yaml"
    file.write_text(block.body + "\nno_such_key: 1\n", encoding="utf-8")
    with pytest.raises(Exception, match="no_such_key"):
        reader(block)(file)


def test_there_is_no_block_of_data_that_is_not_collected():
    assert len(DATA) >= 8
    assert {block.language for block in DATA} == {"yaml", "json", "toml"}
