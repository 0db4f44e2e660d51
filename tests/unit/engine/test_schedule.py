"""Learning rates: the formulas, and the plateau against PyTorch's own."""

import pytest
import torch

from aizheimer.engine.schedule import Plateau, scheduled_rate
from aizheimer.engine.settings import TrainSettings


def rates(**options):
    settings = TrainSettings(lr=1.0, **options)
    return [scheduled_rate(step, settings) for step in range(1, settings.steps + 1)]


def test_constant_after_a_linear_warmup():
    assert rates(steps=5, warmup=2) == [0.5, 1, 1, 1, 1]


def test_cosine_starts_at_the_peak_and_falls_to_almost_nothing():
    values = rates(steps=8, schedule="cosine")
    assert values[0] == 1
    assert values[4] == pytest.approx(0.5)
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] < 0.05


def test_cosine_is_pytorchs():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)
    expected = []
    for _ in range(8):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates(steps=8, schedule="cosine") == pytest.approx(expected)


LOSSES = [5, 4, 4.5, 4.2, 4.0, 3.99995, 3.5, 3.6, 3.6, 3.6, 3.6, 3.6, 3.6, 2.0, 2.1, 2.2, 2.3]


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_the_plateau_is_pytorchs_once_an_epoch(patience):
    settings = TrainSettings(schedule="plateau", plateau_every=2, plateau_patience=patience, plateau_factor=0.5)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, threshold=1e-4)
    plateau, fired = Plateau(), False
    for loss in LOSSES:
        plateau = plateau.after(loss - 0.25, settings)
        plateau = plateau.after(loss + 0.25, settings)
        reference.step(loss)
        assert plateau.scale == pytest.approx(optimizer.param_groups[0]["lr"])
        fired |= plateau.scale < 1
    assert fired


def test_other_schedules_have_no_plateau():
    assert Plateau().after(1.0, TrainSettings(schedule="cosine")) == Plateau()
