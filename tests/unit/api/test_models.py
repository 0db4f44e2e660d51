"""Where a model that is loaded goes."""

import pytest
import torch

from aizheimer.api import chosen_device, environment, load_model
from aizheimer.api import models as api_models
from aizheimer.errors import InputError


@pytest.fixture
def gpus(monkeypatch):
    """A machine that says it has two GPUs, and the device that a loaded pipeline was sent to."""
    monkeypatch.delenv(api_models.DEVICE_VARIABLE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: f"card {place.index or 0}")


@pytest.fixture
def sent(monkeypatch, tiny_pipeline):
    """The devices that a loaded pipeline was sent to; it stays on the CPU."""
    asked = []
    monkeypatch.setattr(api_models, "load_pipeline", lambda name: tiny_pipeline)
    monkeypatch.setattr(tiny_pipeline, "to", lambda place: (asked.append(str(place)), tiny_pipeline)[1])
    return asked


@pytest.mark.parametrize(
    ("named", "variable", "wanted"),
    [(None, None, "cuda"), ("cpu", None, "cpu"), (None, "cpu", "cpu"), ("cuda:1", "cpu", "cuda:1")],
)
def test_one_process_uses_a_gpu_unless_it_is_told_otherwise(gpus, sent, monkeypatch, named, variable, wanted):
    if variable is not None:
        monkeypatch.setenv(api_models.DEVICE_VARIABLE, variable)
    load_model("somewhere", device=named)
    assert sent == [wanted]
    assert environment(chosen_device(named))["device"].startswith(wanted)


def test_the_environment_names_the_card(gpus):
    assert environment()["device"] == "cuda (card 0)"
    assert environment(torch.device("cpu"))["device"] == "cpu"


def test_a_pipeline_that_is_given_stays_where_it_is(gpus, sent, tiny_pipeline):
    load_model(load_model(tiny_pipeline, device="cuda"), device="cuda")
    assert sent == []


@pytest.mark.parametrize("name", ["cuda:2", "gpu", "meta", "cpu:1"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(gpus, sent, name):
    with pytest.raises(InputError, match=rf"device: got '{name}'; this machine has cpu, cuda:0 to cuda:1, so"):
        load_model("somewhere", device=name)
    assert sent == []


def test_without_a_gpu_it_is_the_cpu(monkeypatch):
    monkeypatch.delenv(api_models.DEVICE_VARIABLE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert chosen_device() == torch.device("cpu")
    with pytest.raises(InputError, match="device: got 'cuda'; this machine has cpu, so"):
        chosen_device("cuda")


def test_processes_have_devices_of_their_own(monkeypatch):
    class Group:
        device = torch.device("cuda:1")

    monkeypatch.setattr(api_models, "process_count", lambda: 2)
    monkeypatch.setattr(api_models, "processes", Group)
    assert str(chosen_device()) == str(chosen_device("cuda")) == "cuda:1"
    with pytest.raises(InputError, match="device: got 'cpu' for 2 processes, of which each has its own cuda"):
        chosen_device("cpu")
