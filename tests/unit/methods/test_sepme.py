"""SepME on a tiny pipeline, whose embeddings are few dimensions: a loose tolerance makes room."""

import pytest
import torch

from aizheimer.concepts import Concept
from aizheimer.errors import ConceptError
from aizheimer.methods.sepme import SepME
from tests.trained import check_method, small, tiny_backbone

CONCEPT = Concept("santa claus", keep=("cat",))
ROOM = {"protect": 1, "tolerance": 0.01, "beta": 0.1, "images": "generate:4", "stop_below": -100.0}


def test_it_changes_keys_and_values_inside_the_null_space():
    edit, steps, data = check_method(small(SepME, **ROOM), CONCEPT)
    assert all(name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")) for name in edit.deltas)
    assert steps[0]["losses"].keys() == {"correlation", "l1"}
    record = edit.provenance.extra["null_space"]
    assert record["rank"] + record["dimensions"] == 32
    assert record["leakage"] < record["reach"]
    backbone = tiny_backbone()
    protected = backbone.encode_prompts(["", data["retain_prompts"][0]]).flatten(0, 1).double()
    forgotten = backbone.encode_prompts(data["forget_prompts"]).flatten(0, 1).double()
    for delta in edit.deltas.values():
        size = torch.linalg.matrix_norm(delta.double(), ord=2)
        assert torch.linalg.vector_norm(protected @ delta.double().T, dim=1).max() <= 1.01 * size * record["bound"]
        assert (forgotten @ delta.double().T).abs().max() > 0


def test_the_correlation_ends_the_run_at_zero():
    options = ROOM | {"stop_below": 1e9, "stop_after": 2}
    edit = small(SepME, **options).unlearn(tiny_backbone(), CONCEPT)
    assert (edit.provenance.extra["stopped"], edit.provenance.extra["step"]) == ("loss", 2)


def test_undecoupled_it_trains_all_of_cross_attention():
    edit, _, _ = check_method(
        small(SepME, decoupled=False, images="generate:2", stop_below=-100.0),
        CONCEPT,
        pipeline={"prediction_type": "v_prediction", "pad_token": "!"},
    )
    assert any(".to_q." in name for name in edit.deltas)


def test_more_prompts_than_fit_are_refused_with_how_many_do():
    with pytest.raises(ConceptError, match=r"4 protected prompts leave no null space in 32 dimensions.*0 fit"):
        small(SepME, protect=4, tolerance=0.0, images="generate:1").unlearn(tiny_backbone(), CONCEPT)
