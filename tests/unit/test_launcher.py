"""What a launcher may ask for."""

import pytest

from aizheimer import _processes, api
from aizheimer._launcher import Sharding, asked_sharding
from aizheimer.api.forgetting import recipe_of
from aizheimer.errors import InputError


def test_deepspeed_is_refused_before_processes_meet(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr(_processes, "process_count", lambda: 2)
    _processes.processes.cache_clear()
    for meet in (_processes.processes, lambda: recipe_of("uce", {}, None), lambda: recipe_of("esd", {}, None)):
        with pytest.raises(InputError, match=r"DeepSpeed from the launcher \(ACCELERATE_USE_DEEPSPEED\).*--multi_gpu"):
            meet()


@pytest.mark.parametrize(
    ("said", "reshard"),
    [
        ({}, True),
        ({"FSDP_SHARDING_STRATEGY": "FULL_SHARD", "FSDP_RESHARD_AFTER_FORWARD": "false"}, True),
        ({"FSDP_SHARDING_STRATEGY": "2"}, False),
        ({"FSDP_SHARDING_STRATEGY": "SHARD_GRAD_OP"}, False),
        ({"FSDP_VERSION": "2"}, True),
        ({"FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "false"}, False),
    ],
)
def test_both_versions_of_fsdp_say_when_weights_are_given_up(monkeypatch, said, reshard):
    assert asked_sharding() is None
    for name, value in {"ACCELERATE_USE_FSDP": "true", **said}.items():
        monkeypatch.setenv(name, value)
    assert asked_sharding() == Sharding(reshard=reshard)
    assert recipe_of("esd", {}, None).name == "esd"


@pytest.mark.parametrize(
    ("variable", "value", "parameters", "message"),
    [
        ("FSDP_SHARDING_STRATEGY", "HYBRID_SHARD", {}, "HYBRID_SHARD .*FSDP_SHARDING_STRATEGY.*wanted FULL_SHARD or"),
        ("FSDP_OFFLOAD_PARAMS", "true", {}, "FSDP_OFFLOAD_PARAMS.*leave --fsdp_offload_params out"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", {}, "training.checkpointing=false of the recipe"),
        ("FSDP_VERSION", "2", {"training": {"compile": True}}, "training.compile=true.*training.compile=false"),
        ("FSDP_VERSION", "2", {"training": {"channels_last": True}}, "training.channels_last=true"),
    ],
)
def test_fsdp_that_no_run_has_is_refused(monkeypatch, variable, value, parameters, message):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=message):
        recipe_of("esd", parameters, None)


def test_fsdp_is_refused_where_nothing_is_trained(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match=r"uce, which trains nothing: got FSDP .*--multi_gpu"):
        recipe_of("uce", {}, None)
    with pytest.raises(InputError, match=r"evaluate: got FSDP .*--multi_gpu"):
        api.evaluate("emoji", None, concept="cat")
    with pytest.raises(InputError, match=r"evaluate: got FSDP .*--multi_gpu"):
        api.evaluate_suites("emoji", None, ["families"], concept="cat")


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
