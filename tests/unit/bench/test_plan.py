"""Bench files: what they may say, and how their mistakes are told."""

import pytest

from aizheimer.bench.plan import BenchPlan, load_plan, slug
from aizheimer.errors import InputError


def written(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return path


def test_every_method_forgets_every_concept_with_every_seed():
    plan = BenchPlan.model_validate({"methods": ["esd", "uce"], "concepts": ["cat", "dog"], "seeds": [0, 1]})
    keys = [cell.key for cell in plan.cells()]
    assert len(keys) == len(set(keys)) == 8
    assert keys[:3] == ["esd--cat--seed0", "uce--cat--seed0", "esd--cat--seed1"]


def test_one_recipe_twice_with_other_parameters(tmp_path):
    text = "methods:\n- esd\n- {name: esd-long, recipe: esd, parameters: {training.steps: 7}}\nconcepts: [cat]\n"
    plan = load_plan(written(tmp_path, text), {"seeds": [3]})
    short, long = (plan.recipe(cell).method for cell in plan.cells())
    assert (long.training.steps, long.training.seed) == (7, 3)
    assert short.training.steps != 7


def test_the_command_line_replaces_what_the_file_says(tmp_path):
    plan = load_plan(written(tmp_path, "methods: [esd]\nconcepts: [cat]\n"), {"methods": ["uce", "mace"]})
    assert [entry.name for entry in plan.methods] == ["uce", "mace"]


def test_attacks_may_have_parameters(tmp_path):
    text = "methods: [esd]\nconcepts: [cat]\nattacks: [seed-search, {name: relearn, parameters: {steps: 7}}]\n"
    search, relearn = (entry.loaded().attack for entry in load_plan(written(tmp_path, text), {}).attacks)
    assert (search.name, relearn.name, relearn.steps) == ("seed-search", "relearn", 7)


def test_one_attack_under_two_labels(tmp_path):
    full = "{label: relearn-full, name: relearn, parameters: {weights: full}}"
    plan = load_plan(written(tmp_path, f"methods: [esd]\nconcepts: [cat]\nattacks: [relearn, {full}]\n"), {})
    found = [(loaded.label, loaded.attack.weights) for loaded in (entry.loaded() for entry in plan.attacks)]
    assert found == [("relearn", "lora"), ("relearn-full", "full")]


def test_the_plan_says_how_pictures_are_drawn():
    fields = {"methods": ["esd"], "concepts": ["cat"], "steps": 8, "precision": "bfloat16", "evaluation_seed": 3}
    plans = [BenchPlan.model_validate(fields | size) for size in ({}, {"samples": 9}, {"full": True})]
    assert {(s.steps, s.precision, s.seed) for s in (plan.settings() for plan in plans)} == {(8, "bfloat16", 3)}
    assert [plan.settings().target_images for plan in plans] == [25, 3, 100]


def test_a_long_concept_has_a_short_folder_of_its_own():
    long = [slug("cat " * 60), slug("cat " * 61)]
    assert len(set(long)) == 2
    assert all(len(name) <= 60 for name in long)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("metods: [esd]\nconcepts: [cat]", "methods is missing; unknown key 'metods'. Did you mean 'methods'?"),
        ("methods: [esdd, ucee]\nconcepts: [cat]", "unknown recipe or method 'esdd'. Did you mean 'esd'?"),
        ("methods: [esdd, ucee]\nconcepts: [cat]", "unknown recipe or method 'ucee'"),
        ("methods: [{name: esd, parameters: {steps: 3}}]\nconcepts: [cat]", "unknown key 'steps'"),
        ("methods: [esd]\nconcepts: [cat]\nattacks: [seed-serch]", "unknown attack 'seed-serch'"),
        ("methods: [esd]\nconcepts: [cat]\nattacks: [p4d, p4d]", "'p4d' and 'p4d' would share a folder"),
        ("methods: [esd]\nconcepts: [cat]\nattacks: [{name: p4d, parameters: {stps: 1}}]", "unknown key 'stps'"),
        ("methods: [esd]\nconcepts: [cat]\nattacks: [{label: far, name: p4d}]", "got the label 'far', wanted p4d-"),
        ("methods: [esd]\nconcepts: [cat]\nsuites: [nothing, gone.yaml]", "unknown suite 'nothing'"),
        ("methods: [esd]\nconcepts: [cat]\nsuites: [nothing, gone.yaml]", "the suite file gone.yaml does not exist"),
        ("methods: [esd]\nconcepts: [cat]\nsuites: [safety, safety]", "suite 'safety' is given more than once"),
        ("methods: [esd]\nconcepts: [cat, Cat]", "'cat' and 'Cat' would share a folder"),
        ("methods: [esd, esd]\nconcepts: [cat]", "'esd' and 'esd' would share a folder"),
        ("methods: [esd]\nconcepts: []", "concepts"),
        ("methods: [esd]\nconcepts: [cat]\nfull: true\nsamples: 9", "choose one"),
        ("- esd", "holds no bench"),
    ],
)
def test_a_mistake_is_one_line_before_anything_costs_time(tmp_path, text, wanted):
    with pytest.raises(InputError) as caught:
        load_plan(written(tmp_path, text), {})
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)
