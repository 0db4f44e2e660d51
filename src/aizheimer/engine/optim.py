"""The optimiser, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from aizheimer._imports import require
from aizheimer.engine.settings import TrainSettings

_EIGHT_BIT = {"adam8bit": "Adam8bit", "adamw8bit": "AdamW8bit"}


def build_optimizer(parameters: Mapping[str, Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """Return Adam (weight decay coupled into the gradient) or AdamW (decoupled) over the parameters.

    Raises:
        MissingDependencyError: If averages in 8 bits are asked for and bitsandbytes is not installed.
    """
    kinds: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if settings.optimizer in _EIGHT_BIT:
        module: Any = require("bitsandbytes", extra="8bit")
        kinds[settings.optimizer] = getattr(module.optim, _EIGHT_BIT[settings.optimizer])
    return kinds[settings.optimizer](
        list(parameters.values()), lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """Return the optimiser's state as ``"<state>/<parameter>"``; parameters that never had a gradient have none.

    What an optimiser keeps in a dictionary of its own is ``"<dictionary>.<state>/<parameter>"``; a number is a tensor.

    Args:
        optimizer: From `build_optimizer`.
        names: The parameters' names, in the order they were given to it.
    """
    state = optimizer.state_dict()["state"]
    return {f"{key}/{names[i]}": value for i, values in state.items() for key, value in _flat(values).items()}


def load_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` returned, bit for bit."""
    state: dict[int, dict[str, Any]] = {}
    plain = not isinstance(optimizer, torch.optim.Adam)  # bitsandbytes counts its steps in plain numbers
    for label, tensor in tensors.items():
        key, _, name = label.partition("/")
        values = state.setdefault(names.index(name), {})
        *inside, key = key.split(".")
        for dictionary in inside:
            values = values.setdefault(dictionary, {})
        values[key] = int(tensor) if plain and key == "step" else tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value if isinstance(value, Tensor) else torch.tensor(value)
    return found
