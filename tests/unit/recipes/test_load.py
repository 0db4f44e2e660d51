"""Recipes: shipped ones load, overrides apply, and every mistake is told at once with a suggestion."""

import pytest
import yaml

from aizheimer.errors import RecipeError
from aizheimer.recipes import list_recipes, load_recipe

SHIPPED = list(list_recipes())


def test_the_shipped_recipes_are_listed_with_a_line_each():
    recipes = list_recipes()
    assert list(recipes) == sorted(recipes)
    assert {"aizheimer", "aizheimer-notebook", "aizheimer-paper"} <= recipes.keys()
    assert all(0 < len(line) < 120 and "\n" not in line for line in recipes.values())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_resolved_recipe_is_a_recipe(name, tmp_path):
    recipe = load_recipe(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.resolved()))
    again = load_recipe(path)
    assert again.method == recipe.method
    assert again.resolved() == recipe.resolved()


def test_the_notebook_is_the_notebook():
    method = load_recipe("aizheimer-notebook").method
    training = method.training
    assert (method.reconstruction, method.token_policy, method.variant) == ("none", "last", "notebook")
    assert (training.optimizer, training.weight_decay, training.lr) == ("adam", 1e-3, 2e-5)
    assert (training.schedule, training.plateau_every, training.plateau_patience) == ("plateau", 5, 10)
    assert (training.steps, training.batch_size, training.clip) == (200, 2, None)
    assert set(method.parts) == {"q", "k", "v", "out"}


def test_the_robust_one_is_the_default_with_a_firmer_ridge():
    default, robust = (load_recipe(name).resolved()["parameters"] for name in ("aizheimer", "aizheimer-robust"))
    assert robust["start"].pop("ridge") > default["start"].pop("ridge")
    assert robust == default


def test_the_paper_is_the_paper():
    method = load_recipe("aizheimer-paper").method
    assert (method.reconstruction, method.variant, method.anchor_weight) == ("forget", "paper", 0.0)
    assert set(method.parts) == {"q", "k", "v", "out"}
    assert method.images is not None


def test_a_method_name_gives_its_defaults(monkeypatch, tmp_path):
    import aizheimer.recipes.load as load
    from aizheimer.methods.aizheimer import AIzheimer

    monkeypatch.setattr(load, "SHIPPED", tmp_path)  # without a recipe of the same name
    assert load_recipe("aizheimer").method == AIzheimer()


def test_overrides_are_yaml():
    overrides = [
        "training.steps=7",
        "training.lr=1e-3",
        "layers=[a, b]",
        "training.clip=null",
        "noise=false",
        "parts=[k]",
    ]
    method = load_recipe("aizheimer", overrides).method
    assert (method.training.steps, method.training.lr, method.training.clip) == (7, 1e-3, None)
    assert (method.layers, method.noise, method.parts) == (["a", "b"], False, ("k",))
    assert method.training.schedule == load_recipe("aizheimer").method.training.schedule


def test_the_last_override_wins():
    assert load_recipe("aizheimer", ["training.steps=7", "training.steps=9"]).method.training.steps == 9


def test_all_mistakes_are_told_at_once_in_one_line():
    wrong = ["losss=distraction", "training.steps=-3", "loss=distractoin", "layers", "training.lrr=1"]
    with pytest.raises(RecipeError) as error:
        load_recipe("aizheimer", wrong)
    text = str(error.value)
    assert text.startswith("recipe 'aizheimer': 5 problems: ")
    assert "\n" not in text
    for part in (
        "unknown key 'losss'. Did you mean 'loss'?",
        "training.steps: got -3, input should be greater than or equal to 1",
        "loss: got 'distractoin'",
        "Did you mean 'distraction'?",
        "override 'layers' is not key=value",
        "unknown key 'training.lrr'. Did you mean 'training.lr'?",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("key", "meant"),
    [("steps", "'rollouts.steps' or 'training.steps'"), ("lr", "'training.lr'"), ("guidence", "'rollouts.guidance'")],
)
def test_a_key_in_the_wrong_place_is_suggested_where_it_belongs(key, meant):
    with pytest.raises(RecipeError, match=rf"unknown key '{key}'\. Did you mean {meant}\?"):
        load_recipe("aizheimer", [f"{key}=1"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("layers.x=1", "'layers' is a value, not a group"),
        ("=1", "is not key=value"),
        ("a..b=1", "is not key=value"),
        ("loss=[", "is not YAML"),
        ("images=generate:0", "generate:N with N of 1 or more"),
        ("parts=[]", "parts: got"),
        ("training.lr=.nan", "training.lr: got nan"),
        ("reconstruction=forget", "needs the concept's images"),
    ],
)
def test_each_wrong_override(override, said):
    with pytest.raises(RecipeError, match="recipe 'aizheimer'") as error:
        load_recipe("aizheimer", [override])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_forget_without_noise_is_refused():
    with pytest.raises(RecipeError, match="set noise to true"):
        load_recipe("aizheimer-paper", ["noise=false"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("aizheimr", "unknown recipe or method 'aizheimr'. Did you mean 'aizheimer'?"),
        ("../recipes/aizheimer", "unknown recipe or method"),
        ("missing.yaml", "does not exist"),
    ],
)
def test_unknown_names(name, said):
    with pytest.raises(RecipeError) as error:
        load_recipe(name)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("method: [", "not a readable YAML file"),
        ("- a", "holds no recipe"),
        ("", "holds no recipe"),
        ("parameters: {}", "method is missing"),
        ("method: aizheimer\nparamters: {}", "unknown key 'paramters'. Did you mean 'parameters'?"),
        ("method: aizhimer", "unknown method 'aizhimer'. Did you mean 'aizheimer'?"),
        ("method: aizheimer\nparameters: {training: {stepz: 1}}", "Did you mean 'training.steps'?"),
        ("method: aizheimer\nparameters: 3", "parameters: got 3"),
    ],
)
def test_broken_files_are_one_line(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_never_runs_code(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text(f"method: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']")
    with pytest.raises(RecipeError, match="not a readable YAML"):
        load_recipe(path)
    assert not (tmp_path / "made").exists()
