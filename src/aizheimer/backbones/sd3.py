"""Stable Diffusion 3 and 3.5: a transformer in which image and text attend to each other, trained by flow matching."""

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
from aizheimer.backbones.networks import entrance_projection, frozen, joint_attention_modules, networks_of
from aizheimer.backbones.prediction import Guided, classifier_free
from aizheimer.backbones.text_access import no_text_training
from aizheimer.backbones.tokens import TokenPolicy
from aizheimer.backbones.windows import TextWindow, as_list, mean_word_rows
from aizheimer.concepts.world import DEFAULT_WORLD, World
from aizheimer.diffusion.flow import FlowSchedule, flow_schedule

_T5_TOKENS = 256
_PARTS = ("transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "vae")


@dataclass(frozen=True, eq=False)
class SD3Backbone:
    """A view of a ``StableDiffusion3Pipeline``; see :class:`aizheimer.backbones.base.Backbone`.

    The token axis is CLIP's window, in which both CLIP encoders' channels lie side by side, and then T5's, which is
    zeros if the pipeline was loaded without T5. The pooled vector is that of both CLIP encoders: the null prompt has
    its own, which is not the concept's.

    Args:
        pipe: The pipeline.
        world: What it draws, in words.

    Example:
        >>> SD3Backbone(pipe).prediction_type
        'flow'
    """

    pipe: Any
    world: World = DEFAULT_WORLD

    @property
    def family(self) -> Family:
        """``"sd3"``."""
        return "sd3"

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
        """Channels, height and width of the latents of one image."""
        config = self.pipe.transformer.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def schedule(self) -> FlowSchedule:
        """The flow schedule, shifted as the pipeline's scheduler shifts it."""
        return self._schedule

    @cached_property
    def _schedule(self) -> FlowSchedule:
        return flow_schedule(self.pipe.scheduler, image_tokens=self._image_tokens)

    @property
    def _image_tokens(self) -> int:
        _, height, width = self.latent_shape
        return height * width // self.pipe.transformer.config.patch_size**2

    @property
    def prediction_type(self) -> str:
        """``"flow"``: the transformer predicts noise minus image."""
        return "flow"

    @property
    def max_tokens(self) -> int:
        """Rows of text: CLIP's window and T5's."""
        return self._clip_tokens + self._t5_tokens

    @property
    def _clip_tokens(self) -> int:
        return self.pipe.tokenizer.model_max_length

    @property
    def _t5_tokens(self) -> int:
        own = self.pipe.tokenizer_3
        return _T5_TOKENS if own is None else min(_T5_TOKENS, own.model_max_length)

    @property
    def attended_keys(self) -> int:
        """Keys under the softmax of attention to text: its rows and the picture's own tokens."""
        return self.max_tokens + self._image_tokens

    @property
    def one_encoder(self) -> bool:
        """False: three encoders are read, and pooled vectors."""
        return False

    @property
    def keys_read_text(self) -> bool:
        """False: they read what the blocks before have made of the text."""
        return False

    @property
    def windows(self) -> tuple[TextWindow, ...]:
        """The token axis: CLIP's window and, if there is a T5, its."""
        clip = TextWindow(pipe=self.pipe, tokenizer=self.pipe.tokenizer, length=self._clip_tokens)
        if self.pipe.text_encoder_3 is None:
            return (clip,)
        t5 = {"tokenizer": self.pipe.tokenizer_3, "start": self._clip_tokens, "length": self._t5_tokens}
        return (clip, TextWindow(pipe=self.pipe, first=0, causal=False, **t5))

    def tokenize(self, prompts: Sequence[str]) -> TokenIds:
        """Return CLIP's token ids (batch, tokens), padded and truncated as the pipeline does."""
        return self.windows[0].tokenize(prompts).to(self.device)

    @torch.no_grad()
    def condition(self, prompts: Sequence[str]) -> Conditioning:
        """Return rows and pooled vectors, as the pipeline makes them."""

        def encode(batch: list[str]) -> Conditioning:
            encoded = self.pipe.encode_prompt(
                prompt=batch,
                prompt_2=None,
                prompt_3=None,
                device=self.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
                max_sequence_length=self._t5_tokens,
            )
            return Conditioning(encoded[0], encoded[2])

        return encoded_in_batches(as_list(prompts), encode)

    def encode_prompts(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Return the text encoders' rows, without gradients."""
        return self.condition(prompts).tokens

    def read_tokens(self, ids: TokenIds, *, vectors: torch.Tensor | None = None) -> TextEmbeddings:
        """Refuse: what the denoiser reads is of several encoders and a pooled vector, which ids of one do not tell."""
        raise no_text_training(self.family)

    def word_vectors(self, ids: torch.Tensor) -> torch.Tensor:
        """Refuse, as `read_tokens`."""
        raise no_text_training(self.family)

    def embed_concepts(self, words: Sequence[str]) -> WordVectors:
        """Return one vector for each bare word: the mean of its rows in CLIP's window."""
        return mean_word_rows(self.windows, words, self.encode_prompts(words))

    def token_columns(self, prompts: Sequence[str], concept: str, *, policy: TokenPolicy) -> TokenColumns:
        """Mark the concept's tokens in CLIP's and in T5's window; see `aizheimer.backbones.windows.token_columns`."""
        marked = windows.token_columns(self.windows, prompts, concept, policy=policy)
        missing = self.max_tokens - marked.shape[1]  # the zeros that stand for a missing T5
        return torch.nn.functional.pad(marked, (0, missing)).to(self.device)

    def encode_images(self, pixels: Images, generator: torch.Generator | None = None) -> Latents:
        """Return latents as the transformer sees them; see `aizheimer.backbones.autoencoder.encoded`."""
        return autoencoder.encoded(self.pipe.vae, pixels, factor=self.pipe.vae_scale_factor, generator=generator)

    def decode_latents(self, latents: Latents) -> Images:
        """Return pixels, clamped to [-1, 1], of such latents."""
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
        r"""Return the raw prediction, :math:`\epsilon - x_0`, with gradients.

        Args:
            x_t: Noisy latents.
            t: The number of one timestep for each item, or a single one for all.
            conditions: From :meth:`condition`.
            denoiser: Another network to ask in place of the pipeline's.

        Raises:
            ModelError: If the conditions have no pooled vectors.
        """
        network = self.denoiser if denoiser is None else denoiser
        # Not in the latents' format: a thousand times its rounding would be up to four timesteps in bfloat16.
        time = self.schedule.at(torch.as_tensor(t, device=x_t.device)).expand(len(x_t))
        return network(
            hidden_states=x_t,
            timestep=time * self.schedule.num_steps,
            encoder_hidden_states=as_conditioning(conditions).tokens,
            pooled_projections=pooled_of(conditions, family=self.family),
            return_dict=False,
        )[0]

    def predict_guided(
        self, x_t: Latents, t: Timesteps, conditions: Conditions, *, null: Conditions, scale: float
    ) -> Guided:
        """Return the prediction under classifier-free guidance, with the two it is made of."""
        return classifier_free(self.predict, x_t, t, conditions, null=null, scale=scale)

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name the transformer's weights; see `kept_fingerprint`."""
        return kept_fingerprint(self.pipe.transformer, self.__dict__)

    def attention_modules(self) -> dict[str, nn.Module]:
        """Return every joint attention module by its name in the transformer, in order of execution."""
        return joint_attention_modules(self.pipe.transformer)

    def text_projections(self, layers: Sequence[str], parts: Sequence[str]) -> dict[str, nn.Module]:
        """Return the entrance of the text: the one layer that reads text rows themselves; see `entrance_projection`."""
        return entrance_projection(self.pipe.transformer, self.attention_modules(), layers, parts)

    def frozen(self) -> AbstractContextManager[None]:
        """Within the context no parameter asks for gradients."""
        return frozen(self.components.values())
