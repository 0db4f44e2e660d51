"""SPM on a tiny pipeline: what it makes, what it refuses, and what becomes of it when it is merged."""

import pytest
import torch
from pydantic import ValidationError

from aizheimer.concepts import Concept
from aizheimer.edits import load_edit
from aizheimer.errors import ConceptError, EditError
from aizheimer.methods.spm import SPM
from tests.trained import check_method, same_edit, small, tiny_backbone

CONCEPT = Concept("santa claus", keep=("cat",))


@pytest.mark.long
def test_it_trains_an_adapter_on_every_projection_of_the_transformers():
    edit, steps, data = check_method(small(SPM, also=("old man",)), CONCEPT)
    assert not edit.deltas
    assert data["parameters"] == []
    assert len(data["layers"]) == 7
    modules = {name.rpartition(".")[0] for name in edit.hook.tensors}
    # Two attentions of four projections, two of feed-forward, one in and one out.
    assert len(modules) == 7 * (4 + 4 + 2 + 2)
    assert all(min(tensor.shape) == 1 for tensor in edit.hook.tensors.values())
    assert edit.hook.words == ("santa claus", "old man")
    assert [row["losses"].keys() for row in steps] == [{"erase", "anchoring"}] * 4
    assert all(-1 <= row["cosine"] <= 1 for row in steps[1::2])


@pytest.mark.long
def test_the_anchor_takes_the_empty_prompts_place_on_velocity_predictions():
    pipeline = {"prediction_type": "v_prediction", "pad_token": "!"}
    anchored, _, _ = check_method(small(SPM, rank=2), Concept("santa claus", anchor="old man"), pipeline=pipeline)
    plain = small(SPM, rank=2).unlearn(tiny_backbone(**pipeline), Concept("santa claus"))
    assert not same_edit(anchored, plain)


@pytest.mark.long
def test_without_anchoring_there_is_one_loss():
    _, steps, _ = check_method(small(SPM, anchors=0), CONCEPT)
    assert all(row["losses"].keys() == {"erase"} for row in steps)


@pytest.mark.long
def test_gated_it_is_not_merged_and_with_gamma_one_it_is(tmp_path):
    backbone = tiny_backbone()
    edit = small(SPM).unlearn(backbone, CONCEPT)
    assert not edit.mergeable
    with pytest.raises(EditError, match=r"cannot be merged into weights; keep it, or merge as_weights\(pipe\)"):
        edit.merged_state(backbone.pipe)
    weights = edit.as_weights(backbone.pipe)
    assert weights.hook is None
    merged = weights.merged_state(backbone.pipe)
    for name, value in merged.items():
        module = name.removeprefix("unet.").removesuffix(".weight")
        down, up = (edit.hook.tensors[f"{module}.{part}"] for part in ("down", "up"))
        original = backbone.denoiser.get_parameter(f"{module}.weight")
        torch.testing.assert_close(value, original + (up @ down).reshape(original.shape))
    assert len(merged) == 7 * 12
    weights.save(tmp_path)
    assert load_edit(tmp_path).provenance.extra["as_weights"] == "spm"
    open_gate = small(SPM, gate="none").unlearn(backbone, CONCEPT)
    assert open_gate.mergeable
    assert all(torch.equal(tensor, merged[name]) for name, tensor in open_gate.merged_state(backbone.pipe).items())


def test_what_cannot_be_is_refused():
    with pytest.raises(ConceptError, match="cut off"):
        small(SPM, also=("cat " * 40,)).unlearn(tiny_backbone(), CONCEPT)
    with pytest.raises(ValidationError, match="also has an empty entry"):
        SPM(also=("old man", " "))
    with pytest.raises(ValidationError, match="stop_mass_ratio watches attention"):
        SPM(training={"stop_mass_ratio": 0.5})
