"""Flux.1: a guidance-distilled transformer that reads T5's rows and CLIP's pooled vector, trained by flow matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from aizheimer._typing import Images, Latents, TextEmbeddings, Timesteps, TokenColumns, TokenIds, WordVectors
from aizheimer.backbones import autoencoder, windows
from aizheimer.backbones.conditioning import (
    Conditioning,
    Conditions,
    as_conditioning,
    encoded_in_batches,
    joined,
    pooled_of,
)
from aizheimer.backbones.families import Family
from aizheimer.backbones.fingerprints import kept_fingerprint
from aizheimer.backbones.networks import entrance_projection, frozen, joint_attention_modules, networks_of
from aizheimer.backbones.prediction import Guided
from aizheimer.backbones.text_access import no_text_training
from aizheimer.backbones.tokens import TokenPolicy
from aizheimer.backbones.windows import TextWindow, as_list, mean_word_rows
from aizheimer.concepts.world import DEFAULT_WORLD, World
from aizheimer.diffusion.flow import FlowSchedule, flow_schedule

_T5_TOKENS = {True: 512, False: 256}
"""Rows of text, of the guided model (dev) and of the one without a guidance input (schnell)."""
_PARTS = ("transformer", "text_encoder", "text_encoder_2", "vae")
_PLAIN_GUIDANCE = 1.0
"""What the guidance input says in training, where no picture is drawn: the plain prediction."""
_PATCH = 2

FLUX_WORLD = replace(DEFAULT_WORLD, guidance=3.5)
"""What Flux draws when no ``world.json`` says more: everything, best with less guidance than the others."""


@dataclass(frozen=True, eq=False)
class FluxBackbone:
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

    pipe: Any
    world: World = FLUX_WORLD

    @property
    def family(self) -> Family:
        """``"flux"``."""
        return "flux"

    @property
    def denoiser(self) -> nn.Module:
        """The transformer."""
        return self.pipe.transformer

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The transformer, called ``unet`` as every denoiser is, and the first text encoder."""
        return {"unet": self.pipe.transformer, "text_encoder": self.pipe.text_encoder}

    @property
    def components(self) -> Mapping[str, nn.Module]:
        """All networks that turn words into pixels, by their names in the pipeline."""
        return networks_of(self.pipe, _PARTS)

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return self.pipe.transformer.device

    @property
    def dtype(self) -> torch.dtype:
        """The transformer's number format."""
        return self.pipe.transformer.dtype

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents of one image, not packed."""
        side = int(self.pipe.default_sample_size)
        return self.pipe.transformer.config.in_channels // _PATCH**2, side, side

    @property
    def schedule(self) -> FlowSchedule:
        """The flow schedule, shifted as the pipeline's scheduler shifts it for pictures of this size."""
        return self._schedule

    @cached_property
    def _schedule(self) -> FlowSchedule:
        return flow_schedule(self.pipe.scheduler, image_tokens=self._image_tokens)

    @property
    def _image_tokens(self) -> int:
        _, height, width = self.latent_shape
        return height * width // _PATCH**2

    @property
    def prediction_type(self) -> str:
        """``"flow"``: the transformer predicts noise minus image."""
        return "flow"

    @property
    def max_tokens(self) -> int:
        """Rows of text: T5's."""
        return min(_T5_TOKENS[self._has_guidance], self.pipe.tokenizer_2.model_max_length)

    @property
    def _has_guidance(self) -> bool:
        return bool(self.pipe.transformer.config.guidance_embeds)

    @property
    def attended_keys(self) -> int:
        """Keys under the softmax of attention to text: its rows and the picture's own tokens."""
        return self.max_tokens + self._image_tokens

    @property
    def one_encoder(self) -> bool:
        """False: CLIP's pooled vector is told beside T5's rows."""
        return False

    @property
    def keys_read_text(self) -> bool:
        """False: they read what the blocks before have made of the text."""
        return False

    @property
    def windows(self) -> tuple[TextWindow, ...]:
        """The token axis: T5's window. CLIP gives a pooled vector only, which no position belongs to."""
        length, tokenizer = self.max_tokens, self.pipe.tokenizer_2
        return (TextWindow(pipe=self.pipe, tokenizer=tokenizer, length=length, first=0, causal=False),)

    def tokenize(self, prompts: Sequence[str]) -> TokenIds:
        """Return T5's token ids (batch, max_tokens), padded and truncated as the pipeline does."""
        return self.windows[0].tokenize(prompts).to(self.device)

    @torch.no_grad()
    def condition(self, prompts: Sequence[str]) -> Conditioning:
        """Return T5's rows and CLIP's pooled vectors, as the pipeline makes them."""

        def encode(batch: list[str]) -> Conditioning:
            rows, pooled, _ = self.pipe.encode_prompt(
                prompt=batch,
                device=self.device,
                num_images_per_prompt=1,
                max_sequence_length=self.max_tokens,
            )
            return Conditioning(rows, pooled)

        return encoded_in_batches(as_list(prompts), encode)

    def encode_prompts(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Return T5's rows, without gradients."""
        return self.condition(prompts).tokens

    def read_tokens(self, ids: TokenIds, *, vectors: torch.Tensor | None = None) -> TextEmbeddings:
        """Refuse: what the denoiser reads is T5's rows and CLIP's pooled vector, which ids of one do not tell."""
        raise no_text_training(self.family)

    def word_vectors(self, ids: torch.Tensor) -> torch.Tensor:
        """Refuse, as `read_tokens`."""
        raise no_text_training(self.family)

    def embed_concepts(self, words: Sequence[str]) -> WordVectors:
        """Return one vector for each bare word: the mean of its rows."""
        return mean_word_rows(self.windows, words, self.encode_prompts(words))

    def token_columns(self, prompts: Sequence[str], concept: str, *, policy: TokenPolicy) -> TokenColumns:
        """Mark the tokens of each prompt that carry the concept; see `aizheimer.backbones.windows.token_columns`."""
        return windows.token_columns(self.windows, prompts, concept, policy=policy).to(self.device)

    def encode_images(self, pixels: Images, generator: torch.Generator | None = None) -> Latents:
        """Return latents as the transformer sees them, not packed."""
        factor = self.pipe.vae_scale_factor * _PATCH
        return autoencoder.encoded(self.pipe.vae, pixels, factor=factor, generator=generator)

    def decode_latents(self, latents: Latents) -> Images:
        """Return pixels, clamped to [-1, 1], of such latents."""
        return autoencoder.decoded(self.pipe.vae, latents)

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

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name the transformer's weights; see `kept_fingerprint`."""
        return kept_fingerprint(self.pipe.transformer, self.__dict__)

    def attention_modules(self) -> dict[str, nn.Module]:
        """Return every joint attention module by its name, blocks of two streams before those of one."""
        return joint_attention_modules(self.pipe.transformer)

    def text_projections(self, layers: Sequence[str], parts: Sequence[str]) -> dict[str, nn.Module]:
        """Return the entrance of the text: the one layer that reads text rows themselves; see `entrance_projection`."""
        return entrance_projection(self.pipe.transformer, self.attention_modules(), layers, parts)

    def frozen(self) -> AbstractContextManager[None]:
        """Within the context no parameter asks for gradients."""
        return frozen(self.components.values())


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
