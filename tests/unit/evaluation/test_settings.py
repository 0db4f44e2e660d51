import pytest
from pydantic import ValidationError

from aizheimer.evaluation.settings import EvaluationSettings


def drawn(settings):
    return settings.target_images + settings.retain_images


def test_the_default_is_what_a_laptop_draws_in_a_minute():
    assert drawn(EvaluationSettings()) == 85


@pytest.mark.parametrize("samples", [3, 5, 20, 60, 85, 86, 170, 500, 1000])
def test_sized_draws_what_was_asked(samples):
    settings = EvaluationSettings.sized(samples, steps=7)
    assert abs(drawn(settings) - samples) <= max(2, 0.05 * samples)
    assert settings.steps == 7


def test_full_is_larger_in_every_respect():
    full, default = EvaluationSettings.full(), EvaluationSettings()
    for name in ("target_images", "neighbours", "neighbour_images", "others"):
        assert getattr(full, name) > getattr(default, name)


@pytest.mark.parametrize("bad", [{"steps": -1}, {"target_images": 0}, {"guidance": -1}, {"level": 1}, {"stpes": 5}])
def test_numbers_out_of_range_and_unknown_names(bad):
    with pytest.raises(ValidationError):
        EvaluationSettings(**bad)


def test_too_few_samples():
    with pytest.raises(ValueError, match="wanted 3 or more"):
        EvaluationSettings.sized(2)
