"""HiRM on a tiny pipeline: what it changes, where it goes, what it keeps, and what it refuses."""

import pytest
import torch

from aizheimer.concepts import Concept
from aizheimer.edits import load_edit
from aizheimer.engine.callbacks import Callbacks
from aizheimer.errors import ConceptError, SelectorError
from aizheimer.methods.hirm import HiRM
from aizheimer.modules.text_encoder import captured, last_attention_output
from tests.trained import check_method, small, tiny_backbone

CONCEPT = Concept("santa claus", anchor="old man")
LONGER = {"steps": 40, "lr": 5e-3, "batch_size": 4, "monitor_every": 20}


def looks_of(method, concept=CONCEPT):
    looks = []
    method.unlearn(tiny_backbone(), concept, callbacks=Callbacks(on_monitor=looks.append))
    return looks


def test_the_first_block_alone_changes():
    edit, steps, data = check_method(small(HiRM), CONCEPT)
    assert data["network"] == "text_encoder"
    assert len(data["parameters"]) == 12
    # A key's bias shifts all of a query's scores alike: softmax cannot see it.
    assert edit.deltas.keys() >= {f"text_encoder.{n}" for n in data["parameters"] if not n.endswith("k_proj.bias")}
    assert all(".layers.0." in name for name in edit.deltas)
    assert [row["losses"].keys() for row in steps] == [{"misdirection"}] * 4


def test_towards_a_super_category_on_another_family():
    method = small(HiRM, direction="anchor", rows="last..end", prompts="both", retain_weight=1.0)
    edit, steps, _ = check_method(method, CONCEPT, pipeline={"prediction_type": "v_prediction", "pad_token": "!"})
    assert edit.provenance.text_fingerprint
    assert steps[0]["losses"].keys() == {"misdirection", "words"}
    assert "cosine" in steps[1]


def test_the_distance_to_the_super_category_falls():
    looks = looks_of(small(HiRM, direction="anchor", training=LONGER))
    assert looks[0]["erase_error"] == pytest.approx(1.0)
    assert looks[-1]["erase_error"] < 0.5


def test_keeping_words_keeps_the_predictions():
    """The same run with and without the term: what the denoiser predicts for retain prompts moves less."""
    options = {"direction": "anchor", "rows": "last..end", "training": LONGER}
    free, held = (looks_of(small(HiRM, retain_weight=weight, **options))[-1] for weight in (0.0, 10.0))
    assert held["retention_drift"] < 0.5 * free["retention_drift"]


def test_the_last_sub_token_goes_to_the_super_categorys():
    """ "santa cla us" ends at position 3 and "old man" at 2; only these two rows count, at the coefficient's length."""
    backbone, steps = tiny_backbone(), []
    method = small(HiRM, direction="anchor", rows="last", coefficient=2.0)
    method.unlearn(backbone, CONCEPT, callbacks=Callbacks(on_step=steps.append))
    layer = last_attention_output(backbone.networks["text_encoder"])
    with captured(layer) as outputs, torch.no_grad():
        backbone.read_tokens(backbone.tokenize(["santa claus", "old man"]))
    expected = (outputs[0][0, 3] - 2.0 * outputs[0][1, 2]).square().mean()
    assert steps[0]["losses"]["misdirection"] == pytest.approx(expected.item(), rel=1e-4)


def test_the_directions_of_paper_and_published_code_differ():
    edits = [
        small(HiRM, fidelity=f, coefficient=5.0).unlearn(tiny_backbone(), CONCEPT) for f in ("paper", "repository")
    ]
    assert any(not torch.equal(edits[0].deltas[name], edits[1].deltas[name]) for name in edits[0].deltas)


def test_the_edit_is_saved_loaded_and_applied_to_the_text_encoder(tmp_path):
    backbone = tiny_backbone()
    edit = small(HiRM).unlearn(backbone, CONCEPT)
    edit.save(tmp_path)
    before = backbone.encode_prompts(["santa claus"])
    with load_edit(tmp_path).applied(backbone.pipe):
        during = backbone.encode_prompts(["santa claus"])
    assert not torch.equal(before, during)
    assert torch.equal(before, backbone.encode_prompts(["santa claus"]))


def test_what_cannot_be_is_refused():
    with pytest.raises(ConceptError, match=r"hirm with direction=anchor needs a super-category of 'santa claus'"):
        small(HiRM, direction="anchor").unlearn(tiny_backbone(), Concept("santa claus"))
    with pytest.raises(SelectorError, match="blocks: got 3, this text encoder has 2"):
        small(HiRM, blocks=3).unlearn(tiny_backbone(), CONCEPT)
    with pytest.raises(ConceptError, match="cut off"):
        small(HiRM).unlearn(tiny_backbone(), Concept("cat " * 40))
    with pytest.raises(ValueError, match="stop_mass_ratio watches attention"):
        HiRM(training={"stop_mass_ratio": 0.5})
