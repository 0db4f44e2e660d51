"""The optimiser, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import Parameter

from aizheimer.engine.settings import TrainSettings

_STATE = ("exp_avg", "exp_avg_sq", "step")


def build_optimizer(parameters: Mapping[str, Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """Return Adam (weight decay coupled into the gradient) or AdamW (decoupled) over the parameters."""
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[settings.optimizer](
        list(parameters.values()), lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """Return the optimiser's state as ``"<state>/<parameter>"``; parameters that never had a gradient have none.

    Args:
        optimizer: From `build_optimizer`.
        names: The parameters' names, in the order they were given to it.
    """
    state = optimizer.state_dict()["state"]
    return {f"{key}/{names[i]}": values[key] for i, values in state.items() for key in _STATE}


def load_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` returned, bit for bit."""
    state = {
        i: {key: tensors[f"{key}/{name}"] for key in _STATE}
        for i, name in enumerate(names)
        if f"step/{name}" in tensors
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
