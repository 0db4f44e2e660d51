"""What a launcher may ask for."""

import pytest

from aizheimer import _processes
from aizheimer.api.forgetting import recipe_of
from aizheimer.errors import InputError


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_a_sharded_model_is_refused_before_processes_meet(monkeypatch, variable):
    monkeypatch.setenv(variable, "true")
    monkeypatch.setattr(_processes, "process_count", lambda: 2)
    _processes.processes.cache_clear()
    with pytest.raises(InputError, match=rf"from the launcher \({variable}\).*--multi_gpu"):
        _processes.processes()
    with pytest.raises(InputError, match=variable):
        recipe_of("uce", {}, None)


@pytest.mark.parametrize(
    ("variable", "value", "field"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", "training.precision=float32"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "training.precision=float32"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "training.accumulation=1"),
    ],
)
def test_what_the_recipe_does_otherwise_is_not_ignored_silently(monkeypatch, variable, value, field):
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=f"{value} .*{variable}.*{field}"):
        recipe_of("esd", {}, None)
    assert recipe_of("uce", {}, None).name == "uce"  # nothing is trained


def test_a_launcher_that_agrees_or_says_nothing_is_followed(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    same = {"training": {"precision": "bf16", "accumulation": 2}}
    assert recipe_of("esd", same, None).method.training.accumulation == 2
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    assert recipe_of("esd", same, None).method.training.precision == "bf16"
