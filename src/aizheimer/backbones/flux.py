"""Flux.1: a guidance-distilled transformer that reads T5's rows and CLIP's pooled vector, trained by flow matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from aizheimer._typing import Images, Latents, TextEmbeddings, Timesteps
from aizheimer.backbones import autoencoder
from aizheimer.backbones.conditioning import (
    Conditioning,
    Conditions,
    as_conditioning,
    encoded_in_batches,
    joined,
    pooled_of,
)
from aizheimer.backbones.families import Family
from aizheimer.backbones.prediction import Guided
from aizheimer.backbones.views import FlowView
from aizheimer.backbones.windows import TextWindow, as_list
from aizheimer.concepts.world import DEFAULT_WORLD, World

_T5_TOKENS = {True: 512, False: 256}
"""Rows of text, of the guided model (dev) and of the one without a guidance input (schnell). The pipeline's default is
512 for both; the authors of both draw schnell with 256."""
_PLAIN_GUIDANCE = 1.0
"""What the guidance input says in training, where no picture is drawn: the plain prediction."""
_PATCH = 2

FLUX_WORLD = replace(DEFAULT_WORLD, guidance=3.5)
"""What Flux draws when no ``world.json`` says more: everything, best with less guidance than the others."""


@dataclass(frozen=True, eq=False)
class FluxBackbone(FlowView):
    """A view of a ``FluxPipeline``; see :class:`aizheimer.backbones.base.Backbone`.

    Latents are unpacked, (batch, channels, height, width), here as everywhere; the transformer's packing of 2 x 2
    patches is this file's business. Guidance is an input of the transformer: a picture is drawn by one prediction at
    the wanted scale, and training sees the prediction at scale 1, plain, for the prompt and for the empty prompt.

    Args:
        pipe: The pipeline.
        world: What it draws, in words; by default with the guidance that Flux draws best with.

    Example:
        >>> FluxBackbone(pipe).prediction_type
        'flow'
    """

    world: World = FLUX_WORLD

    FAMILY: ClassVar[Family] = "flux"
    PARTS: ClassVar[tuple[str, ...]] = ("transformer", "text_encoder", "text_encoder_2", "vae")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents of one image, not packed."""
        side = int(self.pipe.default_sample_size)
        return self.pipe.transformer.config.in_channels // _PATCH**2, side, side

    @property
    def image_tokens(self) -> int:
        """Tokens that the transformer makes of a picture: one for each patch."""
        _, height, width = self.latent_shape
        return height * width // _PATCH**2

    @property
    def max_tokens(self) -> int:
        """Rows of text: T5's."""
        return self.t5_tokens

    @property
    def t5_tokens(self) -> int:
        """Rows of text that are T5's: all."""
        return min(_T5_TOKENS[self._has_guidance], self.pipe.tokenizer_2.model_max_length)

    @property
    def _has_guidance(self) -> bool:
        return bool(self.pipe.transformer.config.guidance_embeds)

    @property
    def windows(self) -> tuple[TextWindow, ...]:
        """The token axis: T5's window. CLIP gives a pooled vector only, which no position belongs to."""
        length, tokenizer = self.max_tokens, self.pipe.tokenizer_2
        return (TextWindow(pipe=self.pipe, tokenizer=tokenizer, length=length, first=0, causal=False),)

    @torch.no_grad()
    def condition(self, prompts: Sequence[str]) -> Conditioning:
        """Return T5's rows and CLIP's pooled vectors, as the pipeline makes them."""

        def encode(batch: list[str]) -> Conditioning:
            rows, pooled, _ = self.pipe.encode_prompt(
                prompt=batch,
                device=self.device,
                num_images_per_prompt=1,
                **self.pipeline_options,
            )
            return Conditioning(rows, pooled)

        return encoded_in_batches(as_list(prompts), encode)

    def encode_prompts(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Return T5's rows, without gradients."""
        return self.condition(prompts).tokens

    def encode_images(self, pixels: Images, generator: torch.Generator | None = None) -> Latents:
        """Return latents as the transformer sees them, not packed."""
        factor = self.pipe.vae_scale_factor * _PATCH
        return autoencoder.encoded(self.pipe.vae, pixels, factor=factor, generator=generator)

    def for_pipeline(self, latents: Latents) -> torch.Tensor:
        """Return latents in the form in which the pipeline wants them given: packed."""
        return packed(latents)

    def predict(
        self,
        x_t: Latents,
        t: Timesteps | int,
        conditions: Conditions,
        *,
        denoiser: nn.Module | None = None,
        guidance: float = _PLAIN_GUIDANCE,
    ) -> Latents:
        r"""Return the raw prediction, :math:`\epsilon - x_0`, with gradients.

        Args:
            x_t: Noisy latents, not packed.
            t: The number of one timestep for each item, or a single one for all.
            conditions: From :meth:`condition`.
            denoiser: Another network to ask in place of the pipeline's.
            guidance: What the guidance input says, if the transformer has one.

        Raises:
            ModelError: If the conditions have no pooled vectors.
        """
        network = self.denoiser if denoiser is None else denoiser
        rows = as_conditioning(conditions).tokens
        batch, _, height, width = x_t.shape
        told = torch.full((batch,), guidance, device=x_t.device, dtype=torch.float32) if self._has_guidance else None
        predicted = network(
            hidden_states=packed(x_t),
            timestep=self.schedule.at(torch.as_tensor(t, device=x_t.device)).to(x_t.dtype).expand(batch),
            guidance=told,
            pooled_projections=pooled_of(conditions, family=self.family),
            encoder_hidden_states=rows,
            txt_ids=torch.zeros(rows.shape[1], 3, device=x_t.device, dtype=x_t.dtype),
            img_ids=_places(height // _PATCH, width // _PATCH).to(x_t),
            return_dict=False,
        )[0]
        return unpacked(predicted, height=height, width=width)

    def predict_guided(
        self, x_t: Latents, t: Timesteps, conditions: Conditions, *, null: Conditions, scale: float
    ) -> Guided:
        """Return the prediction with the scale as the transformer's guidance input, and the plain ones beside it.

        The model without that input (schnell) is not guided at all; its plain prediction is what it draws by.
        """
        t = t.to(x_t.device)
        both = self.predict(torch.cat([x_t, x_t]), torch.cat([t, t]), joined([null, conditions]))
        unprompted, prompted = both.chunk(2)
        if not self._has_guidance or scale == _PLAIN_GUIDANCE:
            return Guided(guided=prompted, prompted=prompted, null=unprompted)
        guided = self.predict(x_t, t, conditions, guidance=scale)
        return Guided(guided=guided, prompted=prompted, null=unprompted)


def packed(latents: Latents) -> torch.Tensor:
    """Return latents as the transformer reads them: (batch, patches, channels * 4), one row for each 2 x 2 patch."""
    batch, channels, height, width = latents.shape
    patches = latents.view(batch, channels, height // _PATCH, _PATCH, width // _PATCH, _PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * _PATCH**2)


def unpacked(rows: torch.Tensor, *, height: int, width: int) -> Latents:
    """Return the latents whose patches these are: the inverse of `packed`."""
    batch, _, channels = rows.shape
    patches = rows.view(batch, height // _PATCH, width // _PATCH, channels // _PATCH**2, _PATCH, _PATCH)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // _PATCH**2, height, width)


def _places(height: int, width: int) -> torch.Tensor:
    """Return (patches, 3) where each patch is, as the rotary embedding wants it: 0, its row, its column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)
