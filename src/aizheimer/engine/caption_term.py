"""The loss that a model was trained with, on captioned pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from aizheimer.backbones.base import Backbone
from aizheimer.data.sources import NoisedSource
from aizheimer.engine.batch_shares import predict
from aizheimer.engine.problem import Loss
from aizheimer.objectives.reconstruction import noise_mse


@dataclass(frozen=True, kw_only=True)
class CaptionTerm:
    r"""Denoise pictures under their captions: :math:`L = \lVert \epsilon - \epsilon_\theta(x_t, c)\rVert^2`, the mean.

    :math:`x_t` is a picture with noise :math:`\epsilon` at a random timestep, c one of its captions, or the empty
    prompt, which guidance needs. A model that predicts velocities or clean latents is asked for those. Captions are
    encoded as they are drawn: there may be more of them than would fit into memory.

    Args:
        backbone: The network being trained.
        source: The pictures' latents; ``prompt_index`` is the picture's place in ``captions``.
        captions: (pictures,) the captions of each picture, one or more.
        dropout: Share of examples that get the empty prompt, 0 to 1.
        batch_size: Examples in a batch.
    """

    backbone: Backbone
    source: NoisedSource
    captions: Sequence[Sequence[str]]
    dropout: float
    batch_size: int

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Loss]:
        """Return the one loss, "noise"."""
        draw = self.source.draw(self.batch_size, step=step, generator=generator)
        if draw.target is None:
            raise ValueError("captioned pictures are learnt from with noise; the source must add it")
        chances = torch.rand(2, self.batch_size, generator=generator).tolist()
        rows = zip(draw.prompt_index.tolist(), *chances, strict=True)
        texts = [self._caption(picture, drop=drop, choice=choice) for picture, drop, choice in rows]
        conditions = self.backbone.condition(texts).to(draw.x_t)
        term = noise_mse(predict(self.backbone, draw.x_t, draw.t, conditions), draw.target)
        return {"noise": Loss(term.total, 1.0, term.parts)}

    def _caption(self, picture: int, *, drop: float, choice: float) -> str:
        """Return one of a picture's captions or none; both chances are uniform in [0, 1)."""
        own = self.captions[picture]
        return "" if drop < self.dropout else own[min(int(choice * len(own)), len(own) - 1)]
