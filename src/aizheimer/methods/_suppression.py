"""MACE's second stage: rank-1 updates of keys and values, trained until a concept's pixels look away from its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditioning
from aizheimer.data.latents import rollout_bank
from aizheimer.modules.attention import attention_probe
from aizheimer.modules.maps import AttentionMap

_DRAW_STEPS = 30
"""Denoising steps of a picture to train on, as in the paper."""


def importance(steps: int) -> Float[Tensor, " steps"]:
    r"""Return how often a timestep is drawn: :math:`\sigma(0.05 (t - 200)) - \sigma(0.05 (t - 400))`, not normalised.

    Most of it lies between 200 and 400 of 1000 timesteps, where MACE's authors found a concept's outline decided.
    """
    t = torch.arange(steps, dtype=torch.float64) * (1000 / steps)
    return torch.sigmoid(0.05 * (t - 200)) - torch.sigmoid(0.05 * (t - 400))


def attended(attention: AttentionMap, *, threshold: float) -> Bool[Tensor, "batch queries"]:
    """Mark the pixels that look at a concept: its words' mean attention, stretched to [0, 1], above a threshold."""
    weight = attention.probabilities.detach().float().sum(dim=-1).mean(dim=1)
    low, high = weight.amin(dim=1, keepdim=True), weight.amax(dim=1, keepdim=True)
    return (weight - low) >= threshold * (high - low)


def suppression_loss(
    maps: Mapping[str, AttentionMap], masks: Mapping[str, Bool[Tensor, "batch queries"]] | None
) -> Float[Tensor, ""]:
    r"""Return :math:`\sum_l \lVert A_l[\text{pixels of the mask}] \rVert_2`, or over all pixels without masks."""
    parts = []
    for layer, attention in maps.items():
        seen = attention.probabilities
        if masks is not None:
            seen = seen * masks[layer][:, None, :, None]
        parts.append(torch.linalg.vector_norm(seen.float()))
    return torch.stack(parts).sum()


def suppress(
    backbone: Backbone,
    weights: Mapping[str, Tensor],
    *,
    layers: Sequence[str],
    prompts: Sequence[str],
    concept: str,
    masked: bool,
    steps: int,
    lr: float,
    pictures: int,
    threshold: float,
    seed: int,
) -> dict[str, Float[Tensor, "out dim"]]:
    r"""Train rank-1 updates :math:`B A` of projections until masked pixels do not attend to the concept.

    Args:
        backbone: The original model. It draws the pictures, and its own attention makes the masks; it is not changed.
        weights: Weights to start from, by parameter name.
        layers: The attention modules whose attention is suppressed.
        prompts: Prompts with the concept.
        concept: Its words.
        masked: Suppress only where the model looks at the concept; for a style, everywhere.
        steps: Steps of AdamW.
        lr: Learning rate.
        pictures: Pictures that are drawn to train on.
        threshold: See `attended`.
        seed: Of pictures, noise and the updates' start.

    Returns:
        :math:`B A` in float64 by parameter name.
    """
    generator, asked = generator_for(seed, "suppression"), _Asked(backbone)
    texts = [prompts[i % len(prompts)] for i in range(pictures)]
    clean = rollout_bank(backbone, texts, steps=_DRAW_STEPS, guidance=backbone.world.guidance, generator=generator).x_0
    conditions = backbone.condition(texts)
    words, ends = (backbone.token_columns(texts, concept, policy=policy) for policy in ("concept", "concept+eot"))
    base = {name: weight.to(backbone.device, torch.float32) for name, weight in weights.items()}
    down = {name: torch.randn(1, w.shape[1], generator=generator).to(w) / w.shape[1] ** 0.5 for name, w in base.items()}
    up = {name: torch.zeros(len(weight), 1, device=weight.device) for name, weight in base.items()}
    trained = [tensor.requires_grad_(True) for tensor in (*down.values(), *up.values())]
    optimizer, chances = torch.optim.AdamW(trained, lr=lr), importance(backbone.schedule.num_steps)
    for step in range(steps):
        i = step % pictures
        inputs = _noised(backbone, clean[i : i + 1], chances=chances, generator=generator)
        inputs = (*inputs, conditions[i : i + 1])
        masks = None
        if masked:
            with torch.no_grad(), attention_probe(backbone.denoiser, layers, words[i : i + 1]) as probe:
                backbone.predict(*inputs)
            masks = {layer: attended(seen, threshold=threshold) for layer, seen in probe.maps.items()}
        current = {f"denoiser.{name}": (base[name] + up[name] @ down[name]).to(backbone.dtype) for name in base}
        with attention_probe(backbone.denoiser, layers, ends[i : i + 1]) as probe:
            functional_call(asked, current, inputs)
            loss = suppression_loss(probe.maps, masks)
        for tensor, gradient in zip(trained, torch.autograd.grad(loss, trained), strict=True):
            tensor.grad = gradient  # backward() would leave gradients on the pipeline's own parameters
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    return {name: up[name].detach().cpu().double() @ down[name].detach().cpu().double() for name in base}


class _Asked(nn.Module):
    """A denoiser as its backbone asks it, so that `functional_call` can lend it other weights."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.denoiser = backbone.denoiser
        self._backbone = backbone

    def forward(self, x_t: Tensor, t: Tensor, conditions: Conditioning) -> Tensor:
        return self._backbone.predict(x_t, t, conditions, denoiser=self.denoiser)


def _noised(backbone: Backbone, x_0: Tensor, *, chances: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a picture noised to a timestep drawn by its chance, and that timestep, where the denoiser is."""
    t = torch.multinomial(chances, 1, generator=generator)
    noise = torch.randn(x_0.shape, generator=generator)
    x_t = backbone.schedule.add_noise(x_0, noise.to(x_0), t)
    return x_t.to(backbone.device, backbone.dtype), t.to(backbone.device)
