"""SalUn on a tiny pipeline."""

import pytest
from pydantic import ValidationError

from aizheimer.concepts import Concept
from aizheimer.errors import ConceptError
from aizheimer.methods.salun import SalUn
from tests.trained import check_method, check_resume, small, tiny_backbone

CONCEPT = Concept("santa claus", anchor="old man")


@pytest.mark.long
def test_it_changes_no_more_than_the_asked_share_of_all_weights():
    edit, steps, data = check_method(small(SalUn, images="generate:4", fraction=0.1), CONCEPT)
    denoiser = tiny_backbone().denoiser
    everything = sum(parameter.numel() for parameter in denoiser.parameters())
    changed = sum(int((delta != 0).sum()) for delta in edit.deltas.values())
    assert 0.05 * everything < changed <= round(0.1 * everything)
    assert len(data["parameters"]) == len(list(denoiser.parameters()))
    assert steps[0]["weights"] == {"erase": 1.0, "noise": 0.5}


@pytest.mark.long
def test_without_an_anchor_it_becomes_other_things():
    method = small(SalUn, images="generate:2", group="esd-x", fraction=0.5)
    check_method(method, Concept("santa claus"), pipeline={"prediction_type": "v_prediction", "pad_token": "!"})
    labels = method._labels(tiny_backbone(), Concept("Santa Claus"))
    assert "santa claus" not in labels
    assert "cat" in labels


@pytest.mark.long
def test_it_resumes_to_the_same_bits(tmp_path):
    method = small(SalUn, images="generate:2", group="esd-x", training={"checkpoint_every": 2})
    check_resume(method, CONCEPT, tmp_path / "run", at=3)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConceptError, match="relabel=anchor needs an anchor"):
        small(SalUn, relabel="anchor").unlearn(tiny_backbone(), Concept("santa claus"))
    with pytest.raises(ValidationError, match="outside the mask"):
        SalUn(training={"weight_decay": 0.1})
