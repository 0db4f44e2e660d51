"""A noise-target term with latent anchoring: what is far from the concept stays, on the same latents."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from aizheimer.backbones.conditioning import Conditioning, Conditions, as_conditioning, expanded, joined
from aizheimer.data.random_embeddings import random_embeddings
from aizheimer.data.sources import Draw
from aizheimer.engine.batch_shares import predict
from aizheimer.engine.noise_problem import TargetTerm
from aizheimer.engine.problem import Loss
from aizheimer.objectives.reconstruction import teacher_mse


@dataclass(frozen=True, kw_only=True)
class AnchoredTerm:
    r"""Move the prediction for the concept, and hold it under random embeddings, on the very same latents.

    .. math:: L = \operatorname{MSE}(\epsilon_\theta(x_t, c), y)
              + \lambda\,\operatorname{MSE}(\epsilon_\theta(x_t, a), \epsilon_0(x_t, a))

    Args:
        target: The first part; also names the network, the latents and the batch size.
        teacher: Makes the network the frozen one for the length of a ``with`` block.
        null_embedding: The empty prompt.
        anchors: Random embeddings :math:`a` for each latent; see `random_embeddings`.
        null_anchors: Copies of the empty prompt beside them.
        weight: :math:`\lambda`.

    References:
        Lyu et al., One-dimensional Adapter to Rule Them All, arXiv:2312.16145, section 3.2.
    """

    target: TargetTerm
    teacher: Callable[[], AbstractContextManager[None]]
    null_embedding: Conditions
    anchors: int
    null_anchors: int
    weight: float

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Loss]:
        """Return the losses "erase" and "anchoring"; no anchors, no second one."""
        draw = self.target.source.draw(self.target.batch_size, step=step, generator=generator)
        losses = self.target.on(draw)
        if self.anchors + self.null_anchors > 0 and self.weight > 0:
            losses["anchoring"] = self._anchoring(draw, generator)
        return losses

    def _anchoring(self, draw: Draw, generator: torch.Generator) -> Loss:
        backbone = self.target.backbone
        concepts = as_conditioning(self.target.embeddings[draw.prompt_index])
        a: list[Conditions] = []
        if self.anchors:
            a.append(_random(concepts, self.anchors, generator))
        if self.null_anchors:
            a.append(expanded(self.null_embedding.to(concepts.tokens), len(draw) * self.null_anchors))
        x_t = torch.cat([draw.x_t.repeat_interleave(self.anchors, 0), draw.x_t.repeat_interleave(self.null_anchors, 0)])
        t = torch.cat([draw.t.repeat_interleave(self.anchors), draw.t.repeat_interleave(self.null_anchors)])
        embeddings = joined(a).to(x_t)
        with torch.no_grad(), self.teacher():
            kept = predict(backbone, x_t, t, embeddings)
        term = teacher_mse(predict(backbone, x_t, t, embeddings), kept)
        return Loss(term.total, self.weight, term.parts, "retain")


def _random(concepts: Conditioning, count: int, generator: torch.Generator) -> Conditioning:
    """Return random prompts for each concept; pooled vectors, where there are any, are as random as the rows."""
    rows = random_embeddings(concepts.tokens, count, generator=generator)
    if concepts.pooled is None:
        return Conditioning(rows)
    return Conditioning(rows, random_embeddings(concepts.pooled[:, None], count, generator=generator)[:, 0])
