"""What the families' backbones have in common: a view of a pipeline, whose parts are looked up at every call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Bool
from torch import nn

from aizheimer._typing import Images, Latents, TextEmbeddings, Timesteps, TokenColumns, TokenIds, WordIds, WordVectors
from aizheimer.backbones import autoencoder, windows
from aizheimer.backbones.conditioning import Conditions
from aizheimer.backbones.families import Family
from aizheimer.backbones.fingerprints import kept_fingerprint
from aizheimer.backbones.networks import (
    cross_attention_modules,
    cross_attention_projections,
    entrance_projection,
    frozen,
    joint_attention_modules,
    latent_shape_of,
    networks_of,
)
from aizheimer.backbones.prediction import Guided, classifier_free
from aizheimer.backbones.readers import TextReader, ids_of, vectors_of
from aizheimer.backbones.text_access import no_text_training
from aizheimer.backbones.tokens import TokenPolicy
from aizheimer.backbones.windows import TextWindow, mean_word_rows
from aizheimer.concepts.world import DEFAULT_WORLD, World
from aizheimer.diffusion.flow import FlowSchedule, flow_schedule
from aizheimer.diffusion.noise import NoiseSchedule, from_scheduler


@dataclass(frozen=True, eq=False)
class PipelineView(ABC):
    """A view of a pipeline; see :class:`aizheimer.backbones.base.Backbone`.

    Args:
        pipe: The pipeline. Its parts are looked up at every call, so that moving it or exchanging its denoiser is seen.
        world: What it draws, in words.
    """

    pipe: Any
    world: World = DEFAULT_WORLD

    FAMILY: ClassVar[Family]
    DENOISER: ClassVar[str]
    """The denoiser's name in the pipeline."""
    PARTS: ClassVar[tuple[str, ...]]
    """The names of all networks that turn words into pixels."""

    @property
    def family(self) -> Family:
        """What kind of model this is."""
        return self.FAMILY

    @property
    def denoiser(self) -> nn.Module:
        """The UNet or transformer."""
        return getattr(self.pipe, self.DENOISER)

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The denoiser, called ``unet`` in every family, and the first text encoder."""
        return {"unet": self.denoiser, "text_encoder": self.pipe.text_encoder}

    @property
    def components(self) -> Mapping[str, nn.Module]:
        """All networks that turn words into pixels, by their names in the pipeline."""
        return networks_of(self.pipe, self.PARTS)

    @property
    def device(self) -> torch.device:
        """Where the denoiser is."""
        return getattr(self.pipe, self.DENOISER).device

    @property
    def dtype(self) -> torch.dtype:
        """The denoiser's number format."""
        return getattr(self.pipe, self.DENOISER).dtype

    @property
    @abstractmethod
    def windows(self) -> tuple[TextWindow, ...]:
        """The token axis."""

    @property
    def pipeline_options(self) -> Mapping[str, Any]:
        """Nothing: the pipeline reads prompts as `condition` does by itself."""
        return {}

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Return the text rows that the denoiser reads, without gradients."""

    @abstractmethod
    def attention_modules(self) -> dict[str, nn.Module]:
        """Return every module in which text and picture meet, by its name in the denoiser, in order of execution."""

    @abstractmethod
    def predict(
        self, x_t: Latents, t: Timesteps | int, conditions: Conditions, *, denoiser: nn.Module | None = None
    ) -> Latents:
        """Return the raw prediction, of the kind ``prediction_type``, with gradients."""

    def tokenize(self, prompts: Sequence[str]) -> TokenIds:
        """Return the first window's token ids (batch, tokens), padded and truncated as the pipeline does."""
        return self.windows[0].tokenize(prompts).to(self.device)

    @property
    def text_readers(self) -> tuple[TextReader, ...]:
        """None."""
        return ()

    def token_ids(self, prompts: Sequence[str]) -> WordIds:
        """Return what `read_tokens` reads of prompts: each encoder's own token ids, padded and truncated.

        Raises:
            ModelError: The family's text encoders are not read so.
        """
        return ids_of(self._readers(), prompts).to(self.device)

    def read_tokens(self, ids: WordIds, *, vectors: torch.Tensor | None = None) -> Conditions:
        """Refuse: what the denoiser is told is of T5 too, which is not read so.

        Raises:
            ModelError: Always.
        """
        raise no_text_training(self.family)

    def word_vectors(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the vectors (..., dim) of tokens, before positions are added; of several encoders side by side.

        Args:
            ids: (...) token ids; where several encoders are read, (..., encoders).

        Raises:
            ModelError: The family's text encoders are not read so.
        """
        return vectors_of(self._readers(), ids)

    def _readers(self) -> tuple[TextReader, ...]:
        if not self.text_readers:
            raise no_text_training(self.family)
        return self.text_readers

    def silent(self, prompts: Sequence[str]) -> Bool[torch.Tensor, " prompts"]:
        """Mark none of the prompts: the denoiser is told what is said of the empty one too."""
        return torch.zeros(len(prompts), dtype=torch.bool)

    def embed_concepts(self, words: Sequence[str]) -> WordVectors:
        """Return one vector for each bare word or phrase, to compare them with.

        The vector is the mean of the first window's rows over the word's tokens and the end-of-text after them;
        start-of-text and padding, the same for all words, are left out.
        """
        return mean_word_rows(self.windows, words, self.encode_prompts(words))

    def token_columns(self, prompts: Sequence[str], concept: str, *, policy: TokenPolicy) -> TokenColumns:
        """Mark the tokens of each prompt that carry the concept.

        The token ids of the bare concept, and of its words as the prompt spells them, are searched in the prompt's
        ids. So case and spacing do not matter, for T5 either, whose tokens know capital letters; a part of a longer
        word does not match, and every occurrence counts.

        Args:
            prompts: Prompts that name the concept.
            concept: The concept, its words as they are written in them.
            policy: Which tokens count, see :data:`aizheimer.backbones.tokens.TokenPolicy`.

        Returns:
            True at the marked tokens, on the denoiser's device.

        Raises:
            ConceptError: The concept is empty, not in a prompt, or cut off by the window.
            SelectorError: Unknown policy.
        """
        return windows.token_columns(self.windows, prompts, concept, policy=policy).to(self.device)

    def encode_images(self, pixels: Images, generator: torch.Generator | None = None) -> Latents:
        """Return latents scaled as the denoiser sees them; see `aizheimer.backbones.autoencoder.encoded`."""
        return autoencoder.encoded(self.pipe.vae, pixels, factor=self.pipe.vae_scale_factor, generator=generator)

    def decode_latents(self, latents: Latents) -> Images:
        """Return pixels, clamped to [-1, 1], of scaled latents."""
        return autoencoder.decoded(self.pipe.vae, latents)

    def for_pipeline(self, latents: Latents) -> torch.Tensor:
        """Return latents in the form in which the pipeline wants them given: as they are."""
        return latents

    def predict_guided(
        self, x_t: Latents, t: Timesteps, conditions: Conditions, *, null: Conditions, scale: float
    ) -> Guided:
        """Return the prediction under classifier-free guidance, with the two it is made of."""
        return classifier_free(self.predict, x_t, t, conditions, null=null, scale=scale)

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name the denoiser's weights; see `kept_fingerprint`."""
        # The dataclass is frozen; its dictionary holds caches only, as cached_property does.
        return kept_fingerprint(getattr(self.pipe, self.DENOISER), vars(self))

    def frozen(self) -> AbstractContextManager[None]:
        """Within the context no parameter of the components asks for gradients."""
        return frozen(self.components.values())


@dataclass(frozen=True, eq=False)
class UNetView(PipelineView):
    """A view of a pipeline whose UNet reads text by cross-attention, trained by a noise schedule."""

    DENOISER: ClassVar[str] = "unet"

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
    def keys_read_text(self) -> bool:
        """True: keys and values read the text encoders' rows."""
        return True

    @property
    def windows(self) -> tuple[TextWindow, ...]:
        """The token axis: CLIP's window."""
        return (TextWindow(pipe=self.pipe, tokenizer=self.pipe.tokenizer, length=self.max_tokens),)

    def attention_modules(self) -> dict[str, nn.Module]:
        """Return every cross-attention module by its name in the UNet, in order of execution."""
        return cross_attention_modules(self.pipe.unet)

    def text_projections(self, layers: Sequence[str], parts: Sequence[str]) -> dict[str, nn.Module]:
        """Return the keys and values of cross-attention, which read text rows, by name in the UNet."""
        return cross_attention_projections(self.attention_modules(), layers, parts)


@dataclass(frozen=True, eq=False)
class FlowView(PipelineView):
    """A view of a pipeline whose transformer attends to text and picture jointly, trained by flow matching."""

    DENOISER: ClassVar[str] = "transformer"

    @property
    @abstractmethod
    def image_tokens(self) -> int:
        """Tokens that the transformer makes of a picture."""

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """Rows of text."""

    @property
    @abstractmethod
    def t5_tokens(self) -> int:
        """Rows of text that are T5's, in training and in drawing."""

    @property
    def pipeline_options(self) -> Mapping[str, Any]:
        """T5's length: rows are not masked, so a picture drawn with another number of them is told something else."""
        return {"max_sequence_length": self.t5_tokens}

    @property
    def schedule(self) -> FlowSchedule:
        """The flow schedule, shifted as the pipeline's scheduler shifts it for pictures of this size."""
        return self._schedule

    @cached_property
    def _schedule(self) -> FlowSchedule:
        return flow_schedule(self.pipe.scheduler, image_tokens=self.image_tokens)

    @property
    def prediction_type(self) -> str:
        """``"flow"``: the transformer predicts noise minus image."""
        return "flow"

    @property
    def attended_keys(self) -> int:
        """Keys under the softmax of attention to text: its rows and the picture's own tokens."""
        return self.max_tokens + self.image_tokens

    @property
    def one_encoder(self) -> bool:
        """False: several encoders are read, or a pooled vector beside one."""
        return False

    @property
    def keys_read_text(self) -> bool:
        """False: they read what the blocks before have made of the text."""
        return False

    def attention_modules(self) -> dict[str, nn.Module]:
        """Return every joint attention module by its name, blocks of two streams before those of one."""
        return joint_attention_modules(self.pipe.transformer)

    def text_projections(self, layers: Sequence[str], parts: Sequence[str]) -> dict[str, nn.Module]:
        """Return the entrance of the text: the one layer that reads text rows themselves; see `entrance_projection`."""
        return entrance_projection(self.pipe.transformer, self.attention_modules(), layers, parts)
