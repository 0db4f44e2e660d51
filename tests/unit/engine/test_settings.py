"""Nonsense is refused where it is written down."""

import pytest
from pydantic import ValidationError

from aizheimer.engine.settings import TrainSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": -1},
        {"steps": 0},
        {"lr": 0},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"schedule": "linear"},
        {"batch_size": 0},
        {"clip": -1},
        {"stop_mass_ratio": 1.5},
        {"drift_limit": 0},
        {"unknown": 1},
    ],
    ids=str,
)
def test_refused(wrong):
    with pytest.raises(ValidationError):
        TrainSettings(**wrong)


def test_frozen():
    with pytest.raises(ValidationError):
        TrainSettings().steps = 3
