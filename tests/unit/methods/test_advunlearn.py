"""AdvUnlearn on a tiny pipeline: what it changes, that it holds what it should, and what it refuses."""

import pytest
from pydantic import ValidationError

from aizheimer.concepts import Concept
from aizheimer.engine.callbacks import Callbacks
from aizheimer.errors import ConceptError, SelectorError
from aizheimer.methods.advunlearn import AdvUnlearn
from tests.tiny import MAX_TOKENS
from tests.trained import check_method, small, tiny_backbone

CONCEPT = Concept("santa claus")
QUICK = {"warmup": 1, "attack": {"steps": 2, "lr": 0.01}}


@pytest.mark.long
def test_all_blocks_change_and_the_word_vectors_do_not():
    edit, steps, data = check_method(small(AdvUnlearn, **QUICK), CONCEPT)
    assert all(name.startswith("text_encoder.") for name in edit.deltas)
    assert not any("embedding" in name for name in edit.deltas)
    assert {name for name in edit.deltas if "final_layer_norm" in name}
    assert data["layers"] == []
    assert [row["losses"].keys() for row in steps] == [{"erase", "teacher"}] * 4
    assert ["attack_start" in row["parts"]["erase"] for row in steps] == [False, True, True, True]
    assert "cosine" in steps[1]


@pytest.mark.long
def test_the_published_codes_attack_on_another_family():
    method = small(AdvUnlearn, **QUICK, fidelity="repository", blocks=1, parts=("mlp",), retain_weight=0.0)
    edit, steps, _ = check_method(method, CONCEPT, pipeline={"prediction_type": "v_prediction", "pad_token": "!"})
    assert all(".layers.0.mlp." in name for name in edit.deltas)
    assert steps[-1]["losses"].keys() == {"erase"}


@pytest.mark.long
def test_the_distance_to_the_target_falls_and_retention_holds():
    training = {"steps": 24, "batch_size": 4, "monitor_every": 12, "lr": 3e-3}
    ends = []
    for weight in (0.0, 3.0):
        looks = []
        method = small(AdvUnlearn, **QUICK, retain_weight=weight, training=training)
        method.unlearn(tiny_backbone(), CONCEPT, callbacks=Callbacks(on_monitor=looks.append))
        assert looks[0]["erase_error"] == pytest.approx(1.0)
        ends.append(looks[-1])
    assert all(end["erase_error"] < 0.9 for end in ends)
    assert ends[1]["retention_drift"] < ends[0]["retention_drift"]


@pytest.mark.long
def test_new_rollouts_for_every_update_reach_what_the_bank_reaches():
    """The same model draws both; only the latents are others, so the ends are near and not the same."""
    training = {"steps": 24, "batch_size": 4, "monitor_every": 24, "lr": 3e-3}
    ends = {}
    for rollout in ("bank", "step"):
        looks = []
        method = small(AdvUnlearn, **QUICK, rollout=rollout, training=training)
        method.unlearn(tiny_backbone(), CONCEPT, callbacks=Callbacks(on_monitor=looks.append))
        ends[rollout] = looks[-1]["erase_error"]
    assert ends["bank"] != ends["step"]
    assert ends["step"] < 0.9
    assert ends["step"] == pytest.approx(ends["bank"], abs=0.1)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValidationError, match=r"warmup is 200 of 100 training\.steps; none are left for the attack"):
        AdvUnlearn(training={"steps": 100})
    with pytest.raises(ConceptError, match=r"40 free tokens do not fit before"):
        small(AdvUnlearn, warmup=1, attack={"tokens": 40}).unlearn(tiny_backbone(), CONCEPT)
    with pytest.raises(ConceptError, match="cut off"):
        small(AdvUnlearn, **QUICK).unlearn(tiny_backbone(), Concept("cat " * MAX_TOKENS))
    with pytest.raises(SelectorError, match="blocks: got 7, this text encoder has 2"):
        small(AdvUnlearn, **QUICK, blocks=7).unlearn(tiny_backbone(), CONCEPT)
    with pytest.raises(ValidationError, match="stop_mass_ratio watches attention"):
        AdvUnlearn(training={"stop_mass_ratio": 0.5})
