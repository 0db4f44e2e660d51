"""The optimiser's state survives being named, stored and loaded."""

import pytest
import torch
from torch.nn import Parameter

from aizheimer.engine.optim import build_optimizer, load_optimizer, optimizer_tensors
from aizheimer.engine.settings import TrainSettings


def steps(parameters, optimizer, count):
    for i in range(count):
        optimizer.zero_grad()
        (parameters["a"] * (i + 1)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_a_copy_goes_on_with_the_same_bits(kind):
    settings = TrainSettings(lr=0.1, optimizer=kind, weight_decay=0.01)
    first = {"a": Parameter(torch.arange(3.0)), "never": Parameter(torch.ones(2))}
    optimizer = build_optimizer(first, settings)
    steps(first, optimizer, 3)
    tensors = optimizer_tensors(optimizer, list(first))
    assert sorted(tensors) == ["exp_avg/a", "exp_avg_sq/a", "step/a"]
    second = {name: Parameter(p.detach().clone()) for name, p in first.items()}
    copy = build_optimizer(second, settings)
    load_optimizer(copy, list(second), {name: tensor.clone() for name, tensor in tensors.items()})
    steps(first, optimizer, 3)
    steps(second, copy, 3)
    assert torch.equal(first["a"], second["a"])


def test_adam_couples_weight_decay_and_adamw_does_not():
    """With a zero gradient, coupled decay passes through Adam's normalisation: a step of lr, whatever the decay."""
    moved = {}
    for kind in ("adam", "adamw"):
        x = Parameter(torch.full((1,), 2.0))
        optimizer = build_optimizer({"x": x}, TrainSettings(lr=0.1, optimizer=kind, weight_decay=0.01))
        x.grad = torch.zeros(1)
        optimizer.step()
        moved[kind] = 2.0 - x.item()
    assert moved["adam"] == pytest.approx(0.1, rel=1e-3)
    assert moved["adamw"] == pytest.approx(2.0 * 0.1 * 0.01, rel=1e-3)
