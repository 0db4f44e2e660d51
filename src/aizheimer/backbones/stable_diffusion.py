"""Stable Diffusion 1 and 2, and every pipeline built like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from aizheimer._typing import Images, Latents, TextEmbeddings, Timesteps, TokenColumns, TokenIds, WordVectors
from aizheimer.backbones import autoencoder, windows
from aizheimer.backbones.conditioning import Conditioning, Conditions, as_conditioning, encoded_in_batches
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
from aizheimer.backbones.tokens import TokenPolicy
from aizheimer.backbones.windows import TextWindow, as_list, mean_word_rows
from aizheimer.concepts.world import DEFAULT_WORLD, World
from aizheimer.diffusion.noise import NoiseSchedule, from_scheduler
from aizheimer.errors import ModelError

_TEXT_BATCH = 64


@dataclass(frozen=True, eq=False)
class StableDiffusionBackbone:
    """A view of a ``StableDiffusionPipeline``; see :class:`aizheimer.backbones.base.Backbone`.

    Args:
        pipe: The pipeline. Its parts are looked up at every call, so moving it or exchanging its
            UNet is seen here.
        world: What it draws, in words.

    Example:
        >>> backbone = StableDiffusionBackbone(pipe)
        >>> backbone.encode_prompts(["a photo of a cat"]).shape
        torch.Size([1, 77, 768])
    """

    pipe: StableDiffusionPipeline
    world: World = DEFAULT_WORLD

    @property
    def family(self) -> Family:
        """``"sd"``."""
        return "sd"

    @property
    def denoiser(self) -> torch.nn.Module:
        """The UNet."""
        return self.pipe.unet

    @property
    def networks(self) -> Mapping[str, torch.nn.Module]:
        """The UNet and the text encoder."""
        return {"unet": self.pipe.unet, "text_encoder": self.pipe.text_encoder}

    @property
    def components(self) -> Mapping[str, torch.nn.Module]:
        """All networks that turn words into pixels, by their names in the pipeline."""
        return networks_of(self.pipe, ("unet", "text_encoder", "vae"))

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
        """What the UNet predicts: ``"epsilon"``, ``"v_prediction"`` or ``"sample"``."""
        return self.pipe.scheduler.config.prediction_type

    @property
    def max_tokens(self) -> int:
        """Tokens in a prompt, with start, end and padding: 77 for the released models."""
        return self.pipe.tokenizer.model_max_length

    @property
    def attended_keys(self) -> int:
        """Keys under the softmax of attention to text: its rows."""
        return self.max_tokens

    @property
    def one_encoder(self) -> bool:
        """True: CLIP is the one encoder."""
        return True

    @property
    def keys_read_text(self) -> bool:
        """True: keys and values read CLIP's rows."""
        return True

    @property
    def windows(self) -> tuple[TextWindow, ...]:
        """The token axis: CLIP's window."""
        return (TextWindow(pipe=self.pipe, tokenizer=self.pipe.tokenizer, length=self.max_tokens),)

    def tokenize(self, prompts: Sequence[str]) -> TokenIds:
        """Return token ids (batch, max_tokens), padded and truncated as the pipeline does."""
        return self.windows[0].tokenize(prompts).to(self.device)

    def condition(self, prompts: Sequence[str]) -> Conditioning:
        """Return all that the UNet is told of prompts: their rows; the empty prompt is what guidance starts from."""
        return Conditioning(self.encode_prompts(prompts))

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Return what the pipeline feeds the UNet, without gradients.

        The pipeline's own code does it, so attention masks, textual inversions and whatever else a
        text encoder asks for are as in generation.
        """

        def encode(texts: list[str]) -> Conditioning:
            options = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
            return Conditioning(self.pipe.encode_prompt(texts, device=self.device, **options)[0])

        return encoded_in_batches(as_list(prompts), encode, size=_TEXT_BATCH).tokens

    def read_tokens(self, ids: TokenIds, *, vectors: torch.Tensor | None = None) -> TextEmbeddings:
        """Return the text encoder's last hidden state, with gradients into its weights and into ``vectors``.

        Of ids from :meth:`tokenize` and without ``vectors`` it is what :meth:`encode_prompts` returns.

        Args:
            ids: Padded token ids; where ``vectors`` are given they only say where the text ends.
            vectors: (batch, tokens, dim) to read in the place of the ids' own, see :meth:`word_vectors`: free vectors
                may stand for words that no token has.

        Raises:
            ModelError: The text encoder reads an attention mask, which ids do not tell.
        """
        encoder = self.pipe.text_encoder
        if getattr(encoder.config, "use_attention_mask", False):
            raise ModelError(
                "this text encoder reads an attention mask, wanted one that reads all tokens (as in Stable Diffusion 1 "
                "and 2); choose a method that edits the denoiser."
            )
        handle = None
        if vectors is not None:
            # CLIP takes no vectors from outside: what its table of words returns is exchanged for this one pass.
            handle = encoder.get_input_embeddings().register_forward_hook(lambda *_: vectors)
        try:
            return encoder(ids.to(encoder.device))[0]
        finally:
            if handle is not None:
                handle.remove()

    def word_vectors(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the vectors (..., dim) that stand for token ids (...), before positions are added."""
        encoder = self.pipe.text_encoder
        return encoder.get_input_embeddings()(ids.to(encoder.device))

    def embed_concepts(self, words: Sequence[str]) -> WordVectors:
        """Return one vector for each bare word or phrase, to compare them with.

        The vector is the mean of the text encoder's last hidden state over the word's tokens and the
        end-of-text after them; start-of-text and padding, the same for all words, are left out.
        """
        return mean_word_rows(self.windows, words, self.encode_prompts(words))

    def token_columns(self, prompts: Sequence[str], concept: str, *, policy: TokenPolicy) -> TokenColumns:
        """Mark the tokens of each prompt that carry the concept.

        The token ids of the bare concept are searched in the prompt's ids, so case and spacing do
        not matter, a part of a longer word does not match, and every occurrence counts.

        Args:
            prompts: Prompts that name the concept.
            concept: The concept, as it is written in them.
            policy: Which tokens count, see :data:`aizheimer.backbones.tokens.TokenPolicy`.

        Returns:
            True at the marked tokens, on the UNet's device.

        Raises:
            ConceptError: The concept is empty, not in a prompt, or cut off by the window.
            SelectorError: Unknown policy.
        """
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
        denoiser: torch.nn.Module | None = None,
    ) -> Latents:
        """Return the raw prediction, of the kind ``prediction_type``, with gradients.

        Args:
            x_t: Noisy latents.
            t: One timestep for each item, or a single one for all.
            conditions: From :meth:`condition`, or text rows alone.
            denoiser: Another network to ask in place of the pipeline's.
        """
        network = self.denoiser if denoiser is None else denoiser
        rows = as_conditioning(conditions).tokens
        return network(x_t, t, encoder_hidden_states=rows, return_dict=False)[0]

    def predict_guided(
        self, x_t: Latents, t: Timesteps, conditions: Conditions, *, null: Conditions, scale: float
    ) -> Guided:
        """Return the prediction under classifier-free guidance, with the two it is made of."""
        return classifier_free(self.predict, x_t, t, conditions, null=null, scale=scale)

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name the UNet's weights; see `kept_fingerprint`."""
        # The dataclass is frozen; its dictionary holds caches only, as cached_property does.
        return kept_fingerprint(self.pipe.unet, self.__dict__)

    def attention_modules(self) -> dict[str, nn.Module]:
        """Return every cross-attention module by its name in the UNet, in order of execution."""
        return cross_attention_modules(self.pipe.unet)

    def text_projections(self, layers: Sequence[str], parts: Sequence[str]) -> dict[str, nn.Module]:
        """Return the keys and values of cross-attention, which read text rows, by name in the UNet."""
        return cross_attention_projections(self.attention_modules(), layers, parts)

    def frozen(self) -> AbstractContextManager[None]:
        """Within the context no parameter of UNet, autoencoder and text encoder asks for gradients."""
        return frozen(self.components.values())
