"""Fuzz what people write: recipes, overrides, plans, gates and suites, and the names of concepts."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aizheimer.api.forgetting import recipe_of
from aizheimer.bench.plan import BenchPlan, load_plan, slug
from aizheimer.cli.forget import folder_name
from aizheimer.engine.run_folder import RunFolder
from aizheimer.evaluation.suite_file import load_suites
from aizheimer.proof.gate import load_gate
from aizheimer.recipes.load import SHIPPED, list_recipes, load_recipe
from aizheimer.recipes.schema import parameter_keys
from aizheimer.tuning.demand import Demand
from aizheimer.tuning.space import Range
from tests.fuzz.values import NASTY_TEXT, changed_bytes, changed_record, nested, texts
from tests.fuzz.watch import CASES, SHARES, cases, held_to

PACKAGE = SHIPPED.parent
RECIPES = tuple(list_recipes())
KEYS = tuple(dict.fromkeys(key for name in RECIPES for key in parameter_keys(type(load_recipe(name).method))))
PIECES = tuple(text.encode("utf-8", "surrogatepass") for text in NASTY_TEXT)
QUIET = {"suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def as_yaml(value):
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


recipes = st.sampled_from(RECIPES).flatmap(
    lambda name: st.one_of(
        changed_bytes((SHIPPED / f"{name}.yaml").read_bytes(), pieces=PIECES),
        changed_record(yaml.safe_load((SHIPPED / f"{name}.yaml").read_text("utf-8"))).map(as_yaml),
    )
)
overrides = st.lists(
    st.builds("{}={}".format, st.sampled_from(KEYS) | texts, nested().map(json.dumps) | texts), max_size=3
)


@given(content=recipes)
@settings(max_examples=cases("recipes"), **QUIET)
def test_recipes(folder, content):
    file = folder / "recipe.yaml"
    file.write_bytes(content)
    with held_to(folder):
        recipe = load_recipe(file)
        again = folder / "again.yaml"
        again.write_text(yaml.safe_dump(recipe.resolved()), encoding="utf-8")
        assert load_recipe(again).resolved()["parameters"] == recipe.resolved()["parameters"]


@given(name=st.sampled_from(RECIPES) | texts, words=overrides, seed=st.none() | st.integers(-1, 2**70))
@settings(max_examples=cases("overrides"), **QUIET)
def test_overrides(folder, name, words, seed):
    with held_to(folder):
        load_recipe(name, words, seed=seed).resolved()
    with held_to(folder):
        recipe_of(name, dict(word.split("=", 1) for word in words), seed)


plans = st.sampled_from(
    [
        (path, load)
        for pattern, load in (
            ("proof/gates/*.yaml", load_gate),
            ("evaluation/suites/*.yaml", lambda f: load_suites([f])),
        )
        for path in sorted(PACKAGE.glob(pattern))
    ]
).flatmap(lambda pair: st.tuples(st.just(pair[1]), changed_bytes(pair[0].read_bytes(), pieces=PIECES)))
benches = changed_record(
    BenchPlan.model_validate({"methods": ["uce", {"name": "b", "recipe": "esd"}], "concepts": ["cat"]}).model_dump(
        mode="json"
    )
).map(lambda value: (lambda file: load_plan(file, {}), as_yaml(value)))


@given(pair=plans | benches)
@settings(max_examples=cases("plans"), **QUIET)
def test_plans_gates_and_suites(folder, pair):
    load, content = pair
    file = folder / "plan.yaml"
    file.write_bytes(content)
    with held_to(folder):
        load(file)


@given(name=texts | st.text(max_size=400), demand=texts)
@settings(max_examples=cases("names"), **QUIET)
def test_names_of_concepts_stay_one_part_of_a_path(folder, name, demand):
    """Whatever is to be forgotten, its run folder is made in the folder of runs, or refused."""
    for make in (folder_name, slug):
        with held_to(folder):
            made = make(name)
            assert Path(made).name == made or not name.strip()
            assert made not in (".", "..")
            if made:
                RunFolder(folder / "runs" / made).create(overwrite=True)
    for parse in (Demand.parse, Range.parse):
        with held_to(folder):
            parse(demand)


def test_all_cases_are_counted():
    assert sum(cases(kind) for kind in (*SHARES, "overrides")) == CASES >= 500
    assert min(cases(kind) for kind in (*SHARES, "overrides")) > 0
