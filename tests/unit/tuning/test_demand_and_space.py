"""What is demanded, as it is typed; and what is searched, held against the methods it is declared for."""

import pytest

from aizheimer._registry import METHODS
from aizheimer.errors import InputError, RecipeError
from aizheimer.recipes import list_recipes, load_recipe
from aizheimer.tuning.demand import Demand, Quantity, values_of
from aizheimer.tuning.record import Trial, TuneRecord
from aizheimer.tuning.space import FIELDS, STRENGTH_RANGE, WITHOUT_STRENGTH, Range, space_for, with_values
from tests.unit.reports.builders import metric, result_of


@pytest.mark.parametrize(
    ("text", "name", "sense", "bound"),
    [
        ("UA>=0.95", "ua", ">=", 0.95),
        ("  ira drop <= .02", "ira drop", "<=", 0.02),
        ("Near  Drop<=-0.1", "near drop", "<=", -0.1),
        ("strength<=1.5", "strength", "<=", 1.5),
    ],
)
def test_demands_are_read(text, name, sense, bound):
    assert Demand.parse(text) == Demand(Quantity(name), sense, bound)
    assert Demand.parse(str(Demand.parse(text))) == Demand.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("UA>0.95", "wanted a figure, >= or <=, and a share"),
        ("UA>=95%", "wanted a figure, >= or <=, and a share"),
        ("UA>=95", "wanted a bound from 0 to 1"),
        ("UA drop>=0.5", "--require: got 'ua drop', wanted one of ua, ira"),
        ("irra>=0.5", "Did you mean 'ira'"),
        ("UA>=nan", "wanted a figure"),
        ("", "wanted a figure"),
    ],
)
def test_what_is_no_demand_is_refused(text, said):
    with pytest.raises(InputError, match=said):
        Demand.parse(text)


def test_few_pictures_rule_out_only_what_they_can():
    """0 of 4 cannot be 0.95 (Wilson: at most 0.49); 3 of 4 can (at most 0.954)."""
    demand = Demand.parse("UA>=0.95")
    assert demand.is_hopeless(result_of(ua=metric([0] * 4, [0] * 4)))
    assert not demand.is_hopeless(result_of(ua=metric([0] * 4, [1, 1, 1, 0])))
    assert Demand.parse("UA<=0.05").is_hopeless(result_of(ua=metric([0] * 4, [1] * 4)))


def test_a_drop_is_what_the_unedited_model_had_more():
    values = values_of(result_of(ira=metric([1] * 4, [1, 1, 1, 0])), strength=0.5)
    assert values["ira drop"] == 0.25
    assert values["strength"] == 0.5
    assert "ua drop" not in values


@pytest.mark.parametrize("name", FIELDS)
def test_every_declared_field_exists_and_takes_both_ends_of_its_range(name):
    assert name in METHODS.names()
    method = load_recipe(name).method
    space = space_for(name, method)
    assert set(FIELDS[name]) <= set(space)
    for end in ("low", "high"):
        values = {key: getattr(own, end) for key, own in space.items()}
        made = with_values(method, values)
        for key, value in values.items():
            if key != "strength":
                place = made
                for part in key.split("."):
                    place = getattr(place, part)
                assert place == value


@pytest.mark.parametrize("name", dict.fromkeys([*METHODS.names(), *list_recipes()]))
def test_every_method_and_recipe_can_be_searched(name):
    recipe = load_recipe(name)
    space = space_for(recipe.method_name, recipe.method)
    assert space
    assert ("strength" in space) == (recipe.method_name not in WITHOUT_STRENGTH)


def test_ranges_of_ones_own_replace_the_declared_fields():
    method = load_recipe("uce").method
    assert space_for("uce", method, ["strength=0.5..0.9"]) == {"strength": Range(low=0.5, high=0.9)}
    own = space_for("uce", method, ["retain_others=0..10"])
    assert own == {"strength": STRENGTH_RANGE, "retain_others": Range(low=0, high=10, whole=True)}
    with pytest.raises(RecipeError, match=r"start\.residual is in a group that is null in this recipe"):
        space_for("aizheimer", METHODS.get("aizheimer")(), ["start.residual=0.1..0.5"])


@pytest.mark.parametrize(
    "text", ["ridge", "ridge=1", "ridge=2..1", "ridge=0..1:log", "ridge=a..b", "=0..1", "ridge=1..1"]
)
def test_what_is_no_range_is_refused(text):
    with pytest.raises(InputError, match=r"--search: got .*, wanted a key and its range"):
        Range.parse(text)


def trial(number, *, ua, drop, change=1.0, strength=1.0):
    values = {"ua": ua, "ira drop": drop, "strength": strength}
    return Trial(
        number=number, settings={"strength": strength}, state="measured", values=values, met=ua >= 0.9, change=change,
        seconds=1,
    )  # fmt: skip


def test_the_weakest_is_the_one_that_costs_least_then_the_one_that_changes_least():
    record = TuneRecord(
        target="cat", method="uce", require=["UA >= 0.9"], minimise="IRA drop", space={},
        trials=[
            trial(0, ua=1.0, drop=0.1, change=3), trial(1, ua=0.9, drop=0.1, change=2), trial(2, ua=0.8, drop=0.0),
            trial(3, ua=1.0, drop=0.2, change=1),
        ],
    )  # fmt: skip
    assert [found.number for found in record.candidates()] == [1, 0, 3]
