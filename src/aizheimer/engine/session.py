"""Borrow a model's weights for training, and put them back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

from aizheimer.backbones.base import Backbone, Part
from aizheimer.backbones.networks import trained_network
from aizheimer.modules.parameters import ParameterSelection, trainable


@dataclass(frozen=True, kw_only=True)
class Borrowed:
    """Weights that may be trained in place.

    Args:
        parameters: The selected parameters by name; they alone ask for gradients.
        originals: Copies of their values.
    """

    parameters: dict[str, Parameter]
    originals: dict[str, Tensor]


@contextmanager
def borrowed(backbone: Backbone, selection: ParameterSelection, *, part: Part = "unet") -> Iterator[Borrowed]:
    """Let the selected parameters be trained for the length of a ``with`` block.

    On leaving, by whatever way, their values are the old bits and every flag is what it was.

    Args:
        backbone: The model.
        selection: What may be trained.
        part: What it is of.

    Yields:
        The parameters and their original values.
    """
    with backbone.frozen(), trainable(trained_network(backbone.networks, part), selection) as parameters:
        originals = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        try:
            yield Borrowed(parameters=parameters, originals=originals)
        finally:
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(originals[name])
