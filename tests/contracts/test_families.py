"""Methods on the kinds of model that they say they work on, and their refusal of the others.

The cells are those of ``aizheimer ls --matrix``: both are read from what each method declares of families. Less of the
battery is run here than on Stable Diffusion 1, and with fewer steps: the same checks, on an edit of each cell.
"""

import re

import pytest

from aizheimer._registry import METHODS
from aizheimer.backbones.families import FAMILIES, kinds
from aizheimer.cli.matrix import method_matrix
from aizheimer.concepts import Concept
from aizheimer.engine.callbacks import Callbacks
from aizheimer.errors import ConceptError, ModelError, SelectorError
from aizheimer.methods.base import Method
from tests.contracts.quick import has, is_trained, quick_recipe
from tests.contracts.test_methods import (  # noqa: F401 - what is imported is run, on the edits of this file
    CONCEPT,
    RUNTIME,
    SD,
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
    (name, kind, METHODS.get(name).info.families[of.family])
    for name in METHODS.names()
    for kind, of in kinds().items()
    if of.family in METHODS.get(name).info.families and kind != "sd"
]
REFUSED = [
    (name, kind)
    for name in METHODS.names()
    for kind, of in kinds().items()
    if of.family not in METHODS.get(name).info.families
]
OWN = {"aizheimer": ("start={average_of: 3, prior_prompts: 8, metric: identity}",)}
"""What small settings must say beside a cell's own, because they name what its default leaves out."""


def quick_for(name: str, settings: tuple[str, ...]) -> Method:
    short = ("training.steps=2", "training.monitor_every=2") if is_trained(name) else ()
    return quick_recipe(name, *short, *OWN.get(name, ()), *settings).method


@pytest.fixture(scope="module", params=CELLS, ids=lambda cell: "-on-".join(cell[:2]))
def unlearned(request, cache):  # noqa: F811
    name, kind, settings = request.param
    return unlearn(quick_for(name, settings), name, shared_backbone(kind), cache=cache)


def test_the_matrix_is_what_is_tested():
    found = method_matrix()
    working = {(name, kind) for name, cells in found.items() for kind, cell in cells.items() if cell["works"]}
    assert working == {(name, kind) for name, kind, _ in CELLS} | {(name, "sd") for name in METHODS.names()}
    assert {(name, kind) for name in found for kind in kinds()} - working == set(REFUSED)
    assert all(found[name][kind]["why"] for name, kind in REFUSED)


@pytest.mark.parametrize("kind", kinds())
def test_a_column_is_tested_on_a_model_of_its_kind(kind):
    backbone = shared_backbone(kind)
    assert backbone.family == kinds()[kind].family
    assert (backbone.prediction_type == "v_prediction") == (kind == "sd2-v")
    assert len({tuple(shared_backbone(one).tokenize(["cat"])[0].tolist()) for one in SD}) == 2


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, kind, _ in CELLS if name in RUNTIME and kind not in SD]
)
def test_a_behaviour_acts(name, kind, tmp_path):
    acts_loaded_or_not(name, kind, tmp_path)


@pytest.mark.parametrize(("name", "kind"), REFUSED)
def test_a_family_that_it_is_not_defined_for_is_refused_before_any_work(name, kind):
    seen, family = [], kinds()[kind].family
    callbacks = Callbacks(on_progress=lambda *event: seen.append(event), on_step=seen.append, on_data=seen.append)
    method = quick_recipe(name).method
    said = f"{name} does not work on {FAMILIES[family].title}: {method.info.elsewhere[family]}; wanted Stable"
    with pytest.raises(ModelError, match=re.escape(said)):
        method.unlearn(shared_backbone(kind), CONCEPT, callbacks=callbacks)
    assert seen == []


@pytest.mark.parametrize(("name", "kind", "settings"), CELLS)
def test_unknown_things_are_refused_before_any_work(name, kind, settings):
    backbone, seen = shared_backbone(kind), []
    callbacks = Callbacks(on_progress=lambda *event: seen.append(event), on_step=seen.append)
    with pytest.raises(ConceptError, match="cut off"):
        quick_for(name, settings).unlearn(backbone, Concept("cat " * 40), callbacks=callbacks)
    if has(quick_recipe(name).method, "layers"):
        with pytest.raises(SelectorError, match="nowhere"):
            quick_for(name, (*settings, "layers=nowhere")).unlearn(backbone, CONCEPT, callbacks=callbacks)
    assert seen == []
