"""Methods on the families that they say they work on, and their refusal of the others.

The cells are those of ``aizheimer ls --matrix``: both are read from what each method declares. Less of the battery is
run here than on Stable Diffusion 1 and 2, and with fewer steps: the same checks, on an edit of each cell.
"""

import re

import pytest

from aizheimer._registry import METHODS
from aizheimer.backbones.families import FAMILIES
from aizheimer.cli.matrix import method_matrix
from aizheimer.concepts import Concept
from aizheimer.engine.callbacks import Callbacks
from aizheimer.errors import ConceptError, ModelError, SelectorError
from aizheimer.methods.base import Method
from tests.contracts.quick import has, is_trained, quick_recipe
from tests.contracts.test_methods import (  # noqa: F401 - what is imported is run, on the edits of this file
    CONCEPT,
    RUNTIME,
    cache,
    shared_backbone,
    test_applied_then_removed_is_bit_identical,
    test_it_returns_an_edit_that_says_where_it_comes_from,
    test_only_selected_parameters_changed,
    test_saved_and_loaded_is_the_same,
    test_scale_zero_is_the_identity,
    test_the_pipeline_is_left_as_it_was,
    unlearn,
)
from tests.contracts.test_methods import (
    test_a_behaviour_acts_loaded_or_not_and_off_again_leaves_the_same_bits as acts_loaded_or_not,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Euler and numpy 2
CELLS = [
    (name, family, settings)
    for name in METHODS.names()
    for family, settings in METHODS.get(name).info.families.items()
    if family != "sd"
]
REFUSED = [
    (name, family) for name in METHODS.names() for family in FAMILIES if family not in METHODS.get(name).info.families
]
OWN = {"aizheimer": ("start={average_of: 3, prior_prompts: 8, metric: identity}",)}
"""What small settings must say beside a cell's own, because they name what its default leaves out."""


def quick_for(name: str, settings: tuple[str, ...]) -> Method:
    short = ("training.steps=2", "training.monitor_every=2") if is_trained(name) else ()
    return quick_recipe(name, *short, *OWN.get(name, ()), *settings).method


@pytest.fixture(scope="module", params=CELLS, ids=lambda cell: "-on-".join(cell[:2]))
def unlearned(request, cache):  # noqa: F811
    name, family, settings = request.param
    return unlearn(quick_for(name, settings), name, shared_backbone(family), cache=cache)


def test_the_matrix_is_what_is_tested():
    found = method_matrix()
    working = {(name, family) for name, cells in found.items() for family, cell in cells.items() if cell["works"]}
    assert working == {(name, family) for name, family, _ in CELLS} | {(name, "sd") for name in METHODS.names()}
    assert {(name, family) for name in found for family in FAMILIES} - working == set(REFUSED)
    assert all(found[name][family]["why"] for name, family in REFUSED)


@pytest.mark.parametrize(("name", "family"), [(name, family) for name, family, _ in CELLS if name in RUNTIME])
def test_a_behaviour_acts(name, family, tmp_path):
    acts_loaded_or_not(name, family, tmp_path)


@pytest.mark.parametrize(("name", "family"), REFUSED)
def test_a_family_that_it_is_not_defined_for_is_refused_before_any_work(name, family):
    seen = []
    callbacks = Callbacks(on_progress=lambda *event: seen.append(event), on_step=seen.append, on_data=seen.append)
    method = quick_recipe(name).method
    said = f"{name} does not work on {FAMILIES[family].title}: {method.info.elsewhere[family]}; wanted Stable"
    with pytest.raises(ModelError, match=re.escape(said)):
        method.unlearn(shared_backbone(family), CONCEPT, callbacks=callbacks)
    assert seen == []


@pytest.mark.parametrize(("name", "family", "settings"), CELLS)
def test_unknown_things_are_refused_before_any_work(name, family, settings):
    backbone, seen = shared_backbone(family), []
    callbacks = Callbacks(on_progress=lambda *event: seen.append(event), on_step=seen.append)
    with pytest.raises(ConceptError, match="cut off"):
        quick_for(name, settings).unlearn(backbone, Concept("cat " * 40), callbacks=callbacks)
    if has(quick_recipe(name).method, "layers"):
        with pytest.raises(SelectorError, match="nowhere"):
            quick_for(name, (*settings, "layers=nowhere")).unlearn(backbone, CONCEPT, callbacks=callbacks)
    assert seen == []
