"""DoCo on a tiny pipeline."""

import pytest
from pydantic import ValidationError

from aizheimer.concepts import Concept
from aizheimer.errors import ConceptError
from aizheimer.methods.doco import DoCo
from tests.trained import check_method, check_resume, small, tiny_backbone

CONCEPT = Concept("santa claus", anchor="old man")


@pytest.mark.long
def test_first_the_discriminator_learns_then_both():
    edit, steps, _ = check_method(small(DoCo, images="generate:4", warmup=1), CONCEPT)
    assert all(name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")) for name in edit.deltas)
    assert [set(row["losses"]) for row in steps] == [{"discriminator"}] + [{"discriminator", "deceive", "noise"}] * 3
    assert steps[0]["grad_norm"] == 0
    assert "cosine" in steps[1]


@pytest.mark.long
def test_without_surgery_on_velocity_predictions():
    method = small(DoCo, images="generate:2", warmup=0, surgery=False, empty_anchor="template", latest_timestep=500)
    check_method(method, Concept("santa claus"), pipeline={"prediction_type": "v_prediction", "pad_token": "!"})


@pytest.mark.long
def test_it_resumes_to_the_same_bits(tmp_path):
    method = small(DoCo, images="generate:4", warmup=1, fidelity="repository", training={"checkpoint_every": 2})
    check_resume(method, CONCEPT, tmp_path / "run", at=3)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConceptError, match="doco needs an anchor"):
        small(DoCo, warmup=1).unlearn(tiny_backbone(), Concept("santa claus"))
    with pytest.raises(ValidationError, match="none are left to forget"):
        DoCo(warmup=10, training={"steps": 10})
    with pytest.raises(ValidationError, match="surgery needs the gradient of preservation"):
        DoCo(preserve_weight=0)
