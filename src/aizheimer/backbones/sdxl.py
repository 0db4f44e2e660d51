"""Stable Diffusion XL: a UNet that reads two text encoders side by side, a pooled vector, and the picture's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from aizheimer._typing import Images, Latents, TextEmbeddings, Timesteps, TokenColumns, TokenIds, WordVectors
from aizheimer.backbones import autoencoder, windows
from aizheimer.backbones.conditioning import Conditioning, Conditions, as_conditioning, encoded_in_batches, pooled_of
from aizheimer.backbones.families import Family
from aizheimer.backbones.fingerprints import kept_fingerprint
from aizheimer.backbones.networks import (
    cross_attention_modules,
    cross_attention_projections,
    frozen,
    latent_shape_of,
    networks_of,
)
from aizheimer.backbones.prediction import Guided, classifier_free
from aizheimer.backbones.text_access import no_text_training
from aizheimer.backbones.tokens import TokenPolicy
from aizheimer.backbones.windows import TextWindow, as_list, mean_word_rows
from aizheimer.concepts.world import DEFAULT_WORLD, World
from aizheimer.diffusion.noise import NoiseSchedule, from_scheduler

_PARTS = ("unet", "text_encoder", "text_encoder_2", "vae")


@dataclass(frozen=True, eq=False)
class SDXLBackbone:
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

    pipe: Any
    world: World = DEFAULT_WORLD

    @property
    def family(self) -> Family:
        """``"sdxl"``."""
        return "sdxl"

    @property
    def denoiser(self) -> nn.Module:
        """The UNet."""
        return self.pipe.unet

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The UNet and the first text encoder."""
        return {"unet": self.pipe.unet, "text_encoder": self.pipe.text_encoder}

    @property
    def components(self) -> Mapping[str, nn.Module]:
        """All networks that turn words into pixels, by their names in the pipeline."""
        return networks_of(self.pipe, _PARTS)

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return self.pipe.unet.device

    @property
    def dtype(self) -> torch.dtype:
        """The UNet's number format."""
        return self.pipe.unet.dtype

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents of one image."""
        return latent_shape_of(self.pipe.unet)

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule the UNet was trained with."""
        return self._schedule

    @cached_property
    def _schedule(self) -> NoiseSchedule:
        return from_scheduler(self.pipe.scheduler)

    @property
    def prediction_type(self) -> str:
        """What the UNet predicts: ``"epsilon"`` or ``"v_prediction"``."""
        return self.pipe.scheduler.config.prediction_type

    @property
    def max_tokens(self) -> int:
        """Tokens in a prompt, with start, end and padding: 77."""
        return self.pipe.tokenizer.model_max_length

    @property
    def attended_keys(self) -> int:
        """Keys under the softmax of attention to text: its rows."""
        return self.max_tokens

    @property
    def one_encoder(self) -> bool:
        """False: two encoders are read."""
        return False

    @property
    def keys_read_text(self) -> bool:
        """True: keys and values read the encoders' rows."""
        return True

    @property
    def windows(self) -> tuple[TextWindow, ...]:
        """The token axis: one window. Both encoders split words alike; they differ in what they pad with."""
        return (TextWindow(pipe=self.pipe, tokenizer=self.pipe.tokenizer, length=self.max_tokens),)

    def tokenize(self, prompts: Sequence[str]) -> TokenIds:
        """Return the first encoder's token ids (batch, max_tokens), padded and truncated as the pipeline does."""
        return self.windows[0].tokenize(prompts).to(self.device)

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

    def read_tokens(self, ids: TokenIds, *, vectors: torch.Tensor | None = None) -> TextEmbeddings:
        """Refuse: what the denoiser reads is of two encoders and a pooled vector, which ids of one do not tell."""
        raise no_text_training(self.family)

    def word_vectors(self, ids: torch.Tensor) -> torch.Tensor:
        """Refuse, as `read_tokens`."""
        raise no_text_training(self.family)

    def embed_concepts(self, words: Sequence[str]) -> WordVectors:
        """Return one vector for each bare word: the mean of its rows; see `mean_word_rows`."""
        return mean_word_rows(self.windows, words, self.encode_prompts(words))

    def token_columns(self, prompts: Sequence[str], concept: str, *, policy: TokenPolicy) -> TokenColumns:
        """Mark the tokens of each prompt that carry the concept; see `aizheimer.backbones.windows.token_columns`."""
        return windows.token_columns(self.windows, prompts, concept, policy=policy).to(self.device)

    def encode_images(self, pixels: Images, generator: torch.Generator | None = None) -> Latents:
        """Return latents scaled as the UNet sees them; see `aizheimer.backbones.autoencoder.encoded`."""
        return autoencoder.encoded(self.pipe.vae, pixels, factor=self.pipe.vae_scale_factor, generator=generator)

    def decode_latents(self, latents: Latents) -> Images:
        """Return pixels, clamped to [-1, 1], of scaled latents."""
        return autoencoder.decoded(self.pipe.vae, latents)

    def for_pipeline(self, latents: Latents) -> torch.Tensor:
        """Return latents in the form in which the pipeline wants them given: as they are."""
        return latents

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

    def predict_guided(
        self, x_t: Latents, t: Timesteps, conditions: Conditions, *, null: Conditions, scale: float
    ) -> Guided:
        """Return the prediction under classifier-free guidance, with the two it is made of."""
        return classifier_free(self.predict, x_t, t, conditions, null=null, scale=scale)

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name the UNet's weights; see `kept_fingerprint`."""
        return kept_fingerprint(self.pipe.unet, self.__dict__)

    def attention_modules(self) -> dict[str, nn.Module]:
        """Return every cross-attention module by its name in the UNet, in order of execution."""
        return cross_attention_modules(self.pipe.unet)

    def text_projections(self, layers: Sequence[str], parts: Sequence[str]) -> dict[str, nn.Module]:
        """Return the keys and values of cross-attention, which read text rows, by name in the UNet."""
        return cross_attention_projections(self.attention_modules(), layers, parts)

    def frozen(self) -> AbstractContextManager[None]:
        """Within the context no parameter asks for gradients."""
        return frozen(self.components.values())
