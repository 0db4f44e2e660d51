"""Stable Diffusion XL: a UNet that reads two text encoders side by side, a pooled vector, and the picture's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from aizheimer._typing import Latents, TextEmbeddings, Timesteps
from aizheimer.backbones.conditioning import Conditioning, Conditions, as_conditioning, encoded_in_batches, pooled_of
from aizheimer.backbones.families import Family
from aizheimer.backbones.views import UNetView
from aizheimer.backbones.windows import as_list


@dataclass(frozen=True, eq=False)
class SDXLBackbone(UNetView):
    r"""A view of a ``StableDiffusionXLPipeline``; see :class:`aizheimer.backbones.base.Backbone`.

    Latents are those of the variance-preserving process, :math:`x_t = \sqrt{\bar\alpha_t} x_0 + \sqrt{1 - \bar\alpha_t}
    \epsilon`, which is what the UNet was trained on. SDXL's own Euler scheduler keeps :math:`x_0 + \sigma\epsilon`
    instead, and divides by :math:`\sqrt{\sigma^2 + 1}` before every call of the UNet: the same numbers. Whoever hands
    the UNet the scheduler's latents undivided trains it on inputs it never meets.

    Args:
        pipe: The pipeline.
        world: What it draws, in words.

    Example:
        >>> backbone = SDXLBackbone(pipe)
        >>> told = backbone.condition(["a photo of a cat"])
        >>> told.tokens.shape, told.pooled.shape
        (torch.Size([1, 77, 2048]), torch.Size([1, 1280]))
    """

    FAMILY: ClassVar[Family] = "sdxl"
    PARTS: ClassVar[tuple[str, ...]] = ("unet", "text_encoder", "text_encoder_2", "vae")

    @property
    def one_encoder(self) -> bool:
        """False: two encoders are read."""
        return False

    @torch.no_grad()
    def condition(self, prompts: Sequence[str]) -> Conditioning:
        """Return rows and pooled vectors; the empty prompt is all zeros where the pipeline guides by zeros.

        SDXL was trained with zeros in the place of the dropped prompt (``force_zeros_for_empty_prompt``), and guides by
        them whenever no negative prompt is given.
        """
        texts = as_list(prompts)
        told = self._read(texts)
        if not self.pipe.config.force_zeros_for_empty_prompt or told.pooled is None:
            return told
        named = torch.tensor([bool(text) for text in texts], device=told.tokens.device)
        return Conditioning(
            torch.where(named[:, None, None], told.tokens, torch.zeros_like(told.tokens)),
            torch.where(named[:, None], told.pooled, torch.zeros_like(told.pooled)),
        )

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Return what the two text encoders say, their channels side by side; of the empty prompt too."""
        return self._read(as_list(prompts)).tokens

    def _read(self, texts: list[str]) -> Conditioning:
        def encode(batch: list[str]) -> Conditioning:
            options = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
            encoded = self.pipe.encode_prompt(prompt=batch, device=self.device, **options)
            return Conditioning(encoded[0], encoded[2])

        return encoded_in_batches(texts, encode)

    def predict(
        self,
        x_t: Latents,
        t: Timesteps | int,
        conditions: Conditions,
        *,
        denoiser: nn.Module | None = None,
    ) -> Latents:
        """Return the raw prediction, of the kind ``prediction_type``, with gradients.

        Args:
            x_t: Noisy latents of the variance-preserving process.
            t: One timestep for each item, or a single one for all.
            conditions: From :meth:`condition`.
            denoiser: Another network to ask in place of the pipeline's.

        Raises:
            ModelError: If the conditions have no pooled vectors.
        """
        network = self.denoiser if denoiser is None else denoiser
        rows, pooled = as_conditioning(conditions).tokens, pooled_of(conditions, family=self.family)
        added = {"text_embeds": pooled, "time_ids": self._time_ids(x_t).expand(len(x_t), -1)}
        return network(x_t, t, encoder_hidden_states=rows, added_cond_kwargs=added, return_dict=False)[0]

    def _time_ids(self, x_t: Latents) -> torch.Tensor:
        """Return (1, 6) what the UNet is told of the picture: its size, no crop, and the size that is asked for."""
        size = tuple(side * self.pipe.vae_scale_factor for side in x_t.shape[-2:])
        return torch.tensor([[*size, 0, 0, *size]], device=x_t.device, dtype=x_t.dtype)
