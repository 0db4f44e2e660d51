"""ESD on a tiny pipeline: what it changes, what it leaves, and what it refuses."""

import pytest
from pydantic import ValidationError

from aizheimer.concepts import Concept
from aizheimer.errors import ConceptError, SelectorError
from aizheimer.methods.esd import ESD
from tests.trained import check_method, small, tiny_backbone

CONCEPT = Concept("santa claus")


def test_student_rollouts_change_cross_attention_only():
    edit, steps, data = check_method(small(ESD), CONCEPT)
    assert all(".attn2." in name for name in edit.deltas)
    assert len(data["layers"]) == 7
    assert [row["losses"].keys() for row in steps] == [{"erase"}] * 4


@pytest.mark.long
def test_teacher_rollouts_with_retention_on_velocity_predictions():
    method = small(ESD, rollout="teacher", convention="2024", eta=2.0, group="esd-u", retain_weight=1.0)
    edit, steps, data = check_method(method, CONCEPT, pipeline={"prediction_type": "v_prediction", "pad_token": "!"})
    assert not any(".attn2." in name for name in edit.deltas)
    assert data["layers"] == []
    assert [("cosine" in row) for row in steps] == [False, True, False, True]
    assert all(-1 <= row["cosine"] <= 1 for row in steps[1::2])


def test_both_conventions_are_one_method():
    """With the concept itself as the start, eta of 2024 is eta of 2023 plus one."""
    edits = [
        small(ESD, rollout="teacher", convention=convention, eta=eta, training={"steps": 1}).unlearn(
            tiny_backbone(), CONCEPT
        )
        for convention, eta in (("2023", 1.0), ("2024", 2.0))
    ]
    # Adam's first step is the sign of the gradient, so rounding may flip entries whose gradient is zero.
    for name, delta in edits[0].deltas.items():
        assert ((delta - edits[1].deltas[name]).abs() > 1e-4).float().mean() < 0.01


def test_the_error_to_the_target_falls():
    looks = []
    from aizheimer.engine.callbacks import Callbacks

    method = small(ESD, rollout="teacher", training={"steps": 20, "batch_size": 4, "monitor_every": 10, "lr": 3e-3})
    method.unlearn(tiny_backbone(), CONCEPT, callbacks=Callbacks(on_monitor=looks.append))
    assert looks[0]["erase_error"] == pytest.approx(1.0)
    assert looks[-1]["erase_error"] < 0.9


def test_an_attribute_is_erased_from_other_words():
    method = small(ESD, convention="2024", erase_from="man", rollout="teacher")
    check_method(method, CONCEPT)
    with pytest.raises(ConceptError, match="is the concept to forget itself"):
        small(ESD, convention="2024", erase_from="Santa Claus").unlearn(tiny_backbone(), CONCEPT)


def test_what_cannot_be_is_refused():
    with pytest.raises(SelectorError, match=r"esd-y.*Did you mean 'esd-x'"):
        small(ESD, group="esd-y").unlearn(tiny_backbone(), CONCEPT)
    with pytest.raises(ConceptError, match="cut off"):
        small(ESD).unlearn(tiny_backbone(), Concept("cat " * 40))
    with pytest.raises(ValidationError, match="convention=2024"):
        ESD(erase_from="man")
    with pytest.raises(ValidationError, match="stop_mass_ratio watches attention"):
        ESD(training={"stop_mass_ratio": 0.5})
