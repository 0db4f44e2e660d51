"""What a forget prompt should look like instead: the frozen teacher under the anchor's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditions
from aizheimer.data.sources import Draw, Source
from aizheimer.engine.batch_shares import predict
from aizheimer.modules.parameters import swapped


class Anchor(Protocol):
    """Knows the teacher's prediction for the anchor prompt."""

    def predict(self, draw: Draw) -> Tensor:
        """Return the teacher's raw predictions, one for each forget example."""
        ...


@dataclass(frozen=True)
class BankAnchor:
    """Predictions that were computed beforehand and came with the draw as its target."""

    def predict(self, draw: Draw) -> Tensor:
        """Return the draw's targets."""
        if draw.target is None:
            raise ValueError("BankAnchor needs a source whose targets are the anchor's predictions")
        return draw.target


@dataclass(frozen=True, kw_only=True)
class LiveAnchor:
    """Asks the teacher at every step, by swapping the original values into the network being trained.

    Args:
        backbone: The network.
        originals: Original values of everything that is trained, by name.
        embeddings: Each forget prompt with the anchor in place of the concept.
    """

    backbone: Backbone
    originals: Mapping[str, Tensor]
    embeddings: Conditions

    @torch.no_grad()
    def predict(self, draw: Draw) -> Tensor:
        """Return the teacher's predictions for the draw's examples under the anchor prompts."""
        embeddings = self.embeddings[draw.prompt_index].to(draw.x_t)
        with swapped(self.backbone.denoiser, self.originals):
            return predict(self.backbone, draw.x_t, draw.t, embeddings)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Latents of a source that knows no targets, with those of an anchor, asked for at every draw.

    Args:
        source: Where latents come from.
        anchor: Knows the targets.
    """

    source: Source
    anchor: Anchor

    def draw(self, count: int, *, step: int, generator: torch.Generator) -> Draw:
        """Return the source's draw with the anchor's predictions as its target."""
        draw = self.source.draw(count, step=step, generator=generator)
        return replace(draw, target=self.anchor.predict(draw))


@torch.no_grad()
def anchor_predictions(backbone: Backbone, draw: Draw, *, embeddings: Conditions, batch_size: int = 32) -> Tensor:
    """Return the predictions of an unedited backbone under the anchor prompts for many examples at once.

    Args:
        backbone: The teacher, before any training.
        draw: The examples.
        embeddings: Each forget prompt with the anchor in place of the concept.
        batch_size: Examples at a time.

    Returns:
        (examples, channels, height, width), on the CPU.
    """
    parts = []
    for start in range(0, len(draw), batch_size):
        rows = slice(start, start + batch_size)
        x_t = draw.x_t[rows].to(backbone.device, backbone.dtype)
        conditions = embeddings[draw.prompt_index[rows]].to(x_t)
        parts.append(backbone.predict(x_t, draw.t[rows].to(backbone.device), conditions).cpu())
    return torch.cat(parts)
