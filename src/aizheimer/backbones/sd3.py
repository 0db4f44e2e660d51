"""Stable Diffusion 3 and 3.5: a transformer in which image and text attend to each other, trained by flow matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from aizheimer._typing import Latents, TextEmbeddings, Timesteps, TokenColumns
from aizheimer.backbones import windows
from aizheimer.backbones.conditioning import Conditioning, Conditions, as_conditioning, encoded_in_batches, pooled_of
from aizheimer.backbones.families import Family
from aizheimer.backbones.tokens import TokenPolicy
from aizheimer.backbones.views import FlowView
from aizheimer.backbones.windows import TextWindow, as_list

_T5_TOKENS = 256


@dataclass(frozen=True, eq=False)
class SD3Backbone(FlowView):
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

    FAMILY: ClassVar[Family] = "sd3"
    PARTS: ClassVar[tuple[str, ...]] = ("transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "vae")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents of one image."""
        config = self.pipe.transformer.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def image_tokens(self) -> int:
        """Tokens that the transformer makes of a picture: one for each patch."""
        _, height, width = self.latent_shape
        return height * width // self.pipe.transformer.config.patch_size**2

    @property
    def max_tokens(self) -> int:
        """Rows of text: CLIP's window and T5's."""
        return self._clip_tokens + self.t5_tokens

    @property
    def _clip_tokens(self) -> int:
        return self.pipe.tokenizer.model_max_length

    @property
    def t5_tokens(self) -> int:
        """Rows of text that are T5's, or the zeros in its place: 256, as the pipeline's default is."""
        own = self.pipe.tokenizer_3
        return _T5_TOKENS if own is None else min(_T5_TOKENS, own.model_max_length)

    @property
    def windows(self) -> tuple[TextWindow, ...]:
        """The token axis: CLIP's window and, if there is a T5, its."""
        clip = TextWindow(pipe=self.pipe, tokenizer=self.pipe.tokenizer, length=self._clip_tokens)
        if self.pipe.text_encoder_3 is None:
            return (clip,)
        t5 = {"tokenizer": self.pipe.tokenizer_3, "start": self._clip_tokens, "length": self.t5_tokens}
        return (clip, TextWindow(pipe=self.pipe, first=0, causal=False, **t5))

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
                **self.pipeline_options,
            )
            return Conditioning(encoded[0], encoded[2])

        return encoded_in_batches(as_list(prompts), encode)

    def encode_prompts(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Return the text encoders' rows, without gradients."""
        return self.condition(prompts).tokens

    def token_columns(self, prompts: Sequence[str], concept: str, *, policy: TokenPolicy) -> TokenColumns:
        """Mark the concept's tokens in CLIP's and in T5's window; see `aizheimer.backbones.windows.token_columns`."""
        marked = windows.token_columns(self.windows, prompts, concept, policy=policy)
        missing = self.max_tokens - marked.shape[1]  # the zeros that stand for a missing T5
        return torch.nn.functional.pad(marked, (0, missing)).to(self.device)

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
