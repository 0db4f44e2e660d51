"""When to stop and what to keep."""

import pytest
import torch

from aizheimer.engine.guard import Guard
from aizheimer.engine.settings import TrainSettings


def verdicts(looks, **settings):
    guard = Guard(TrainSettings(**settings))
    found = []
    for step, (mass, drift) in enumerate(looks):
        verdict = guard.look({"attention_mass": mass, "retention_drift": drift})
        if verdict.keep:
            guard.keep(step, verdict.mass_ratio, {"x": torch.tensor(float(step))})
        found.append(verdict)
    return guard, found


def test_the_first_look_is_the_baseline():
    guard, (verdict,) = verdicts([(0.4, 0.0)])
    assert (verdict.mass_ratio, verdict.keep, verdict.stop) == (1.0, True, "")
    assert guard.best_step == 0


def test_stops_when_the_mass_has_fallen_enough():
    _, found = verdicts([(0.4, 0), (0.21, 0), (0.2, 0)], stop_mass_ratio=0.5)
    assert [v.stop for v in found] == ["", "", "mass"]
    assert not found[-1].roll_back


def test_the_best_state_has_the_lowest_mass_within_the_limit():
    guard, found = verdicts([(0.4, 0), (0.2, 0.09), (0.3, 0.05), (0.1, 0.11)], drift_limit=0.1)
    assert [v.stop for v in found] == ["", "", "", "drift"]
    assert found[-1].roll_back
    assert not found[-1].keep
    assert (guard.best_step, guard.best["x"].item()) == (1, 1.0)


@pytest.mark.parametrize("off", [{"allow_overfit": True}, {"drift_limit": None}])
def test_the_guard_can_be_switched_off(off):
    _, found = verdicts([(0.4, 0), (0.1, 99.0)], **off)
    assert found[-1].stop == ""


def test_overfitting_on_purpose_still_stops_early_when_asked():
    _, found = verdicts([(0.4, 0), (0.1, 99.0)], allow_overfit=True, stop_mass_ratio=0.5)
    assert found[-1].stop == "mass"


@pytest.mark.parametrize("bad", [(float("nan"), 0.0), (0.1, float("inf"))])
def test_what_is_not_a_number_is_never_kept(bad):
    guard, found = verdicts([(0.4, 0), (0.3, 0), bad], allow_overfit=True)
    assert found[-1].stop == "diverged"
    assert found[-1].roll_back
    assert guard.best_step == 1


def test_without_attention_the_latest_state_within_the_limit_is_best():
    guard = Guard(TrainSettings(drift_limit=0.1, stop_mass_ratio=0.5))
    for step, drift in enumerate((0.0, 0.05, 0.2)):
        verdict = guard.look({"retention_drift": drift})
        assert verdict.mass_ratio is None
        if verdict.keep:
            guard.keep(step, None, {})
    assert guard.best_step == 1


def test_no_mass_at_the_start_is_no_reason_to_stop():
    _, found = verdicts([(0.0, 0), (0.0, 0)], stop_mass_ratio=0.5)
    assert [v.mass_ratio for v in found] == [1.0, 1.0]
    assert found[-1].stop == ""


def test_the_kept_state_does_not_move_with_the_parameters():
    guard = Guard(TrainSettings())
    x = torch.zeros(1)
    guard.keep(0, None, {"x": x})
    x += 1
    assert guard.best["x"].item() == 0
