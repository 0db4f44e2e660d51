"""Every trained method logs the cosine between what erases and what retains, and is trained no differently for it."""

import pytest
import torch

from aizheimer.concepts import Concept
from aizheimer.engine.callbacks import Callbacks
from tests.contracts.quick import TRAINED, quick_recipe
from tests.tiers import all_but
from tests.trained import same_edit, tiny_backbone

CONCEPT = Concept("santa claus", anchor="old man", keep=("cat",))
OWN = {"hirm": ("retain_weight=0",)}
"""What the battery sets for other ends."""
BANK = ("bank={forget: 2, retain: 2}", "parts=[k, v]", "reconstruction=none", "start=null")


def steps_of(name, *overrides):
    """Return the steps' rows and the edit of a run of four steps, of which the second and the fourth are measured."""
    rows = []
    recipe = quick_recipe(name, "training.monitor_every=2", *OWN.get(name, ()), *overrides)
    edit = recipe.method.unlearn(tiny_backbone(), CONCEPT, callbacks=Callbacks(on_step=rows.append))
    return rows, edit


@pytest.mark.parametrize("name", all_but(["esd", "hirm"], TRAINED))
def test_it_is_logged(name):
    rows, _ = steps_of(name)
    assert ["cosine" in row for row in rows] == [False, True, False, True]
    assert all(-1 <= row["cosine"] <= 1 for row in rows[1::2])


@pytest.mark.parametrize("name", all_but(["esd"], ["esd", "forget-me-not", "hirm", "data-censoring"]))
def test_the_edit_is_the_same_bits_without(name):
    """These have no loss that retains: the gradient of the held-out error is taken for the log alone."""
    state = torch.get_rng_state()
    rows, edit = steps_of(name)
    plain, unwatched = steps_of(name, "training.monitor_every=100")
    assert torch.equal(torch.get_rng_state(), state)
    assert not any("cosine" in row for row in plain)
    assert [row["losses"] for row in rows] == [row["losses"] for row in plain]
    assert same_edit(edit, unwatched)


def test_kept_queries_have_a_held_out_error_too():
    rows, edit = steps_of("aizheimer", *BANK)
    assert all(-1 <= row["cosine"] <= 1 for row in rows[1::2])
    assert same_edit(edit, steps_of("aizheimer", *BANK, "training.monitor_every=100")[1])


def test_recomputed_blocks_log_the_same():
    plain, checkpointed = (steps_of("esd", *options)[0] for options in ((), ("training.checkpointing=true",)))
    assert [row["cosine"] for row in checkpointed[1::2]] == pytest.approx(
        [row["cosine"] for row in plain[1::2]], abs=1e-4
    )
