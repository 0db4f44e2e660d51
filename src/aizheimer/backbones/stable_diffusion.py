"""Stable Diffusion 1 and 2, and every pipeline built like them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from aizheimer._typing import Latents, TextEmbeddings, Timesteps, TokenIds
from aizheimer.backbones.conditioning import Conditioning, Conditions, as_conditioning, encoded_in_batches
from aizheimer.backbones.families import Family
from aizheimer.backbones.readers import TextReader
from aizheimer.backbones.views import UNetView
from aizheimer.backbones.windows import as_list
from aizheimer.errors import ModelError

_TEXT_BATCH = 64


@dataclass(frozen=True, eq=False)
class StableDiffusionBackbone(UNetView):
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

    FAMILY: ClassVar[Family] = "sd"
    PARTS: ClassVar[tuple[str, ...]] = ("unet", "text_encoder", "vae")

    @property
    def one_encoder(self) -> bool:
        """True: CLIP is the one encoder."""
        return True

    @property
    def text_readers(self) -> tuple[TextReader, ...]:
        """CLIP, through all blocks and the last norm."""
        return (TextReader(network="text_encoder", encoder=self.pipe.text_encoder, window=self.windows[0]),)

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
        (reader,) = self.text_readers
        if getattr(reader.encoder.config, "use_attention_mask", False):
            raise ModelError(
                "this text encoder reads an attention mask, wanted one that reads all tokens (as in Stable Diffusion 1 "
                "and 2); choose a method that edits the denoiser."
            )
        return reader.read(ids, vectors=vectors)[0]

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
