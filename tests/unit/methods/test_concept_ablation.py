"""Concept Ablation on a tiny pipeline."""

import pytest
from pydantic import ValidationError

from aizheimer.concepts import Concept
from aizheimer.errors import ConceptError, SelectorError
from aizheimer.methods.concept_ablation import ConceptAblation
from tests.trained import check_method, small, tiny_backbone

CONCEPT = Concept("santa claus", anchor="old man")


def test_model_based_changes_keys_and_values_only():
    method = small(ConceptAblation, images="generate:4", regularization_weight=0.2)
    edit, steps, _ = check_method(method, CONCEPT)
    assert all(name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")) for name in edit.deltas)
    assert steps[0]["weights"] == {"erase": 1.0, "noise": 0.2}
    assert "cosine" in steps[1]


def test_noise_based_without_an_anchor_on_velocity_predictions():
    method = small(ConceptAblation, variant="noise", images="generate:2", empty_anchor="auto", weights="attention")
    check_method(method, Concept("santa claus"), pipeline={"prediction_type": "v_prediction", "pad_token": "!"})


def test_what_cannot_be_is_refused():
    with pytest.raises(ConceptError, match=r"concept-ablation needs an anchor.*empty_anchor"):
        small(ConceptAblation).unlearn(tiny_backbone(), Concept("santa claus"))
    with pytest.raises(SelectorError, match="nowhere"):
        small(ConceptAblation, layers="nowhere").unlearn(tiny_backbone(), CONCEPT)
    with pytest.raises(ValidationError, match="generate:N with N of 1 or more"):
        ConceptAblation(images="generate:0")
