"""Stable Diffusion XL: a UNet that reads two text encoders side by side, a pooled vector, and the picture's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import nn

from aizheimer._typing import Latents, TextEmbeddings, Timesteps, WordIds
from aizheimer.backbones.conditioning import Conditioning, Conditions, as_conditioning, encoded_in_batches, pooled_of
from aizheimer.backbones.families import Family
from aizheimer.backbones.readers import TextReader, check_encoders
from aizheimer.backbones.views import UNetView
from aizheimer.backbones.windows import TextWindow, as_list


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

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The denoiser, called ``unet`` in every family, and both text encoders."""
        return {"unet": self.denoiser, **{reader.network: reader.encoder for reader in self.text_readers}}

    @property
    def text_readers(self) -> tuple[TextReader, ...]:
        """Both encoders, each up to its last block but one; the second one's projection, through all, is pooled."""
        pipe = self.pipe
        second = TextWindow(pipe=pipe, tokenizer=pipe.tokenizer_2, length=pipe.tokenizer_2.model_max_length)
        return (
            TextReader(network="text_encoder", encoder=pipe.text_encoder, window=self.windows[0], skipped=1),
            TextReader(network="text_encoder_2", encoder=pipe.text_encoder_2, window=second, skipped=1, pooled=True),
        )

    def read_tokens(self, ids: WordIds, *, vectors: torch.Tensor | None = None) -> Conditioning:
        """Return rows and pooled vectors, with gradients into both encoders' weights and into ``vectors``.

        Of ids from :meth:`token_ids` and without ``vectors`` it is what the pipeline's ``encode_prompt`` returns; of
        the empty prompt too, see :meth:`silent`.

        Args:
            ids: (batch, tokens, 2) padded token ids; where ``vectors`` are given they only say where the text ends.
            vectors: (batch, tokens, dim) to read in the place of the ids' own, the first encoder's entries before the
                second's, see :meth:`word_vectors`.

        Raises:
            InputError: The ids are not those of two encoders.
        """
        readers = self.text_readers
        check_encoders(readers, ids)
        widths = [reader.width for reader in readers]
        own = [None] * len(readers) if vectors is None else vectors.split(widths, dim=-1)
        told = [reader.read(ids[..., i], vectors=own[i]) for i, reader in enumerate(readers)]
        rows = torch.cat([rows for rows, _ in told], dim=-1).to(self.pipe.text_encoder_2.dtype)
        return Conditioning(rows, told[-1][1])

    def silent(self, prompts: Sequence[str]) -> Bool[torch.Tensor, " prompts"]:
        """Mark the empty prompts where the pipeline guides by zeros."""
        zeros = self.pipe.config.force_zeros_for_empty_prompt
        return torch.tensor([bool(zeros) and not prompt for prompt in prompts])

    @torch.no_grad()
    def condition(self, prompts: Sequence[str]) -> Conditioning:
        """Return rows and pooled vectors; the empty prompt is all zeros where the pipeline guides by zeros.

        SDXL was trained with zeros in the place of the dropped prompt (``force_zeros_for_empty_prompt``), and guides by
        them whenever no negative prompt is given.
        """
        texts = as_list(prompts)
        return self._read(texts).silenced(self.silent(texts))

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
