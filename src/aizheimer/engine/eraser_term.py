"""Receler's objective: erase under an attacked prompt, and only where the concept is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditioning, Conditions, as_conditioning, expanded
from aizheimer.data.sources import Draw, Source
from aizheimer.engine.batch_shares import predict
from aizheimer.engine.problem import Loss
from aizheimer.engine.prompt_adversary import PromptAdversary
from aizheimer.modules.adapters import Adapters
from aizheimer.modules.attention import attention_probe
from aizheimer.objectives.localised import concept_mask, outside_energy
from aizheimer.objectives.noise_target import negative_guidance, target_mse


@dataclass(frozen=True, kw_only=True)
class EraserTerm:
    r"""Move the prediction for the concept's prompts, attacked, and hold the erasers down outside of the concept.

    .. math:: L = \operatorname{MSE}\big(\epsilon_\theta(x_t, [c, v]),\; y\big) + \lambda R, \qquad
              y = \epsilon_0(\varnothing) - \eta\,(\epsilon_0(c) - \epsilon_0(\varnothing))

    with the vectors v of `PromptAdversary`, and R of `outside_energy` under the frozen model's `concept_mask` at the
    same latents.

    Args:
        backbone: The network.
        adapters: Its erasers.
        source: Where latents come from.
        embeddings: The concept's prompts, :math:`c`; the source's ``prompt_index`` counts in it.
        columns: (prompts, tokens), True at the concept's tokens.
        ends: (prompts,) where each prompt's text ends: the first token that an attack may write over.
        null_embedding: The empty prompt, :math:`\varnothing`.
        eta: :math:`\eta`.
        batch_size: Examples in a batch.
        attack: The adversary; None for the prompts as they are.
        mask_shrink: See `concept_mask`.
        mask_threshold: See `concept_mask`.
        weight: :math:`\lambda`.
    """

    backbone: Backbone
    adapters: Adapters
    source: Source
    embeddings: Conditions
    columns: Tensor
    ends: Tensor
    null_embedding: Conditions
    eta: float
    batch_size: int
    attack: PromptAdversary | None
    mask_shrink: int
    mask_threshold: float
    weight: float

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Loss]:
        """Return "erase", "outside", and the attack's own loss at weight 0, for the log."""
        draw = self.source.draw(self.batch_size, step=step, generator=generator)
        words = as_conditioning(self.embeddings[draw.prompt_index]).to(draw.x_t)
        concept, target, mask = self._frozen(draw, words)
        losses = {}
        if self.attack is not None:
            starts = self.ends[draw.prompt_index]
            attacked = self.attack.strengthen(
                lambda rows: predict(self.backbone, draw.x_t, draw.t, words.with_tokens(rows)),
                words.tokens,
                starts=starts,
                concept=concept,
            )
            losses["attack"] = Loss(attacked, 0.0, role="adversarial")
            words = words.with_tokens(self.attack.written(words.tokens, starts).detach())
        erase = target_mse(self.backbone.predict(draw.x_t, draw.t, words), target)
        outside = outside_energy(self.adapters.additions, mask, size=self.backbone.latent_shape[1:])
        return {
            "erase": Loss(erase.total, 1.0, erase.parts),
            "outside": Loss(outside.total, self.weight, outside.parts, "retain"),
            **losses,
        }

    @torch.no_grad()
    def _frozen(self, draw: Draw, words: Conditioning) -> tuple[Tensor, Tensor, Tensor]:
        """Return the frozen model's predictions for the concept, the target made of them, and where the concept is."""
        backbone, columns = self.backbone, self.columns[draw.prompt_index]
        null = expanded(self.null_embedding.to(words.tokens), len(words))
        with self.adapters.off():
            with attention_probe(backbone.denoiser, list(backbone.attention_modules()), columns) as probe:
                concept = backbone.predict(draw.x_t, draw.t, words)
                maps = dict(probe.maps)
            neutral = predict(backbone, draw.x_t, draw.t, null)
        mask = concept_mask(
            maps, size=backbone.latent_shape[1:], shrink=self.mask_shrink, threshold=self.mask_threshold
        )
        return concept, negative_guidance(concept, neutral, eta=self.eta), mask
