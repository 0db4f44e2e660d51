"""Stable Diffusion 1 and 2, and every pipeline built like them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import Attention

from aizheimer._typing import Images, Latents, TextEmbeddings, Timesteps, TokenColumns, TokenIds, WordVectors
from aizheimer.backbones import tokens
from aizheimer.backbones.fingerprints import module_fingerprint
from aizheimer.backbones.tokens import TokenPolicy
from aizheimer.concepts.world import DEFAULT_WORLD, World
from aizheimer.diffusion.noise import NoiseSchedule, from_scheduler
from aizheimer.errors import ConceptError, DataError, ModelError

_TEXT_BATCH = 64
_PIXEL_TOLERANCE = 1e-3


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
    def denoiser(self) -> torch.nn.Module:
        """The UNet."""
        return self.pipe.unet

    @property
    def networks(self) -> Mapping[str, torch.nn.Module]:
        """The UNet and the text encoder."""
        return {"unet": self.pipe.unet, "text_encoder": self.pipe.text_encoder}

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
        size = self.pipe.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.pipe.unet.config.in_channels, height, width

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

    def tokenize(self, prompts: Sequence[str]) -> TokenIds:
        """Return token ids (batch, max_tokens), padded and truncated as the pipeline does."""
        texts = self._texts(prompts)
        ids = self.pipe.tokenizer(
            texts, padding="max_length", max_length=self.max_tokens, truncation=True, return_tensors="pt"
        )
        return ids.input_ids.to(self.device)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> TextEmbeddings:
        """Return what the pipeline feeds the UNet, without gradients.

        The pipeline's own code does it, so attention masks, textual inversions and whatever else a
        text encoder asks for are as in generation.
        """
        texts = _as_list(prompts)
        parts = [
            self.pipe.encode_prompt(
                texts[i : i + _TEXT_BATCH],
                device=self.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )[0]
            for i in range(0, len(texts), _TEXT_BATCH)
        ]
        return torch.cat(parts)

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
        hidden = self.encode_prompts(words)
        lengths = torch.tensor([min(len(ids), self.max_tokens - 2) for ids in self._ids(words)], device=hidden.device)
        position = torch.arange(hidden.shape[1], device=hidden.device)
        inside = (position >= 1) & (position <= lengths[:, None] + 1)
        return (hidden * inside[..., None]).sum(1) / inside.sum(1, keepdim=True)

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
        tokens.check_policy(policy)
        (concept_ids,) = self._ids([concept])
        if not concept_ids:
            raise ConceptError(f"concept {concept!r} has no tokens; name what the model must forget.")
        marked = torch.zeros(len(prompts), self.max_tokens, dtype=torch.bool)
        for row, (prompt, prompt_ids) in enumerate(zip(prompts, self._ids(prompts), strict=True)):
            starts = tokens.occurrences(prompt_ids, concept_ids)
            if not any(start + len(concept_ids) <= self.max_tokens - 2 for start in starts):
                raise self._not_found(prompt, prompt_ids, concept, concept_ids, cut=bool(starts))
            size, length = len(concept_ids), len(prompt_ids)
            where = tokens.columns(starts, size, length=length, max_tokens=self.max_tokens, policy=policy)
            marked[row, where] = True
        return marked.to(self.device)

    @torch.no_grad()
    def encode_images(self, pixels: Images, generator: torch.Generator | None = None) -> Latents:
        """Return latents scaled as the UNet sees them.

        Args:
            pixels: Images in [-1, 1], the size a multiple of the autoencoder's factor.
            generator: Draws a sample of the posterior; without one its mean is taken.

        Raises:
            DataError: Pixels outside [-1, 1], or a size that does not fit.
        """
        factor = self.pipe.vae_scale_factor
        if pixels.shape[-2] % factor or pixels.shape[-1] % factor:
            raise DataError(f"images: got {tuple(pixels.shape[-2:])} pixels, wanted multiples of {factor}; crop them.")
        if (largest := pixels.abs().max().item()) > 1 + _PIXEL_TOLERANCE:
            raise DataError(f"images: got pixel values up to {largest:g}, wanted [-1, 1]; divide by 127.5, subtract 1.")
        vae = self.pipe.vae
        posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        latents = posterior.mode() if generator is None else posterior.sample(generator)
        return latents * vae.config.scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Latents) -> Images:
        """Return pixels, clamped to [-1, 1], of scaled latents."""
        vae = self.pipe.vae
        scaled = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
        return vae.decode(scaled, return_dict=False)[0].clamp(-1, 1)

    def predict(
        self,
        x_t: Latents,
        t: Timesteps | int,
        embeddings: TextEmbeddings,
        *,
        denoiser: torch.nn.Module | None = None,
    ) -> Latents:
        """Return the raw prediction, of the kind ``prediction_type``, with gradients.

        Args:
            x_t: Noisy latents.
            t: One timestep for each item, or a single one for all.
            embeddings: From :meth:`encode_prompts`.
            denoiser: Another network to ask in place of the pipeline's.
        """
        network = self.denoiser if denoiser is None else denoiser
        return network(x_t, t, encoder_hidden_states=embeddings, return_dict=False)[0]

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name the UNet's weights, read as float32.

        See `module_fingerprint`. The result is kept until a parameter is changed in place or exchanged; writing
        through ``.data`` is not noticed.
        """
        unet = self.pipe.unet
        state = tuple((id(value), value.data_ptr(), value._version) for _, value in sorted(unet.named_parameters()))
        known = self.__dict__.get("_fingerprint")
        if known is None or known[0] != state:
            # The dataclass is frozen; its dictionary holds caches only, as cached_property does.
            self.__dict__["_fingerprint"] = known = (state, module_fingerprint(unet))
        return known[1]

    def attention_modules(self) -> dict[str, Attention]:
        """Return every cross-attention module by its name in the UNet, in order of execution.

        Down, middle, up. ``named_modules()`` gives down, up, middle, because that is the order in
        which diffusers registers the blocks.
        """
        found = {}
        for part in ("down_blocks", "mid_block", "up_blocks"):
            block = getattr(self.pipe.unet, part, None)
            for name, module in block.named_modules(prefix=part) if block is not None else ():
                if name.endswith(".attn2") and isinstance(module, Attention) and module.is_cross_attention:
                    found[name] = module
        return found

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Within the context no parameter of UNet, autoencoder and text encoder asks for gradients."""
        networks = [self.pipe.unet, self.pipe.vae, self.pipe.text_encoder]
        before = [(p, p.requires_grad) for net in networks if net is not None for p in net.parameters()]
        try:
            for parameter, _ in before:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, requires_grad in before:
                parameter.requires_grad_(requires_grad)

    def _texts(self, prompts: Sequence[str]) -> list[str]:
        """Return the prompts as the pipeline's tokenizer gets them: textual inversions spelt out."""
        texts = self.pipe.maybe_convert_prompt(_as_list(prompts), self.pipe.tokenizer)
        return [texts] if isinstance(texts, str) else texts

    def _ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return token ids without start, end, padding and truncation."""
        return self.pipe.tokenizer(self._texts(prompts), add_special_tokens=False, verbose=False).input_ids

    def _not_found(
        self, prompt: str, prompt_ids: list[int], concept: str, concept_ids: list[int], *, cut: bool
    ) -> ConceptError:
        wanted, there = (" ".join(self.pipe.tokenizer.convert_ids_to_tokens(ids)) for ids in (concept_ids, prompt_ids))
        if cut:
            return ConceptError(
                f"concept {concept!r} (tokens: {wanted}) is cut off: prompt {prompt!r} has {len(prompt_ids)} tokens, "
                f"the model reads {self.max_tokens - 2}; shorten the prompt."
            )
        return ConceptError(
            f"concept {concept!r} (tokens: {wanted}) is not in prompt {prompt!r} (tokens: {there}); "
            "write it in the prompt as it is in the concept."
        )


def _as_list(prompts: Sequence[str]) -> list[str]:
    if isinstance(prompts, str):
        raise TypeError(f"prompts: got the text {prompts!r}, wanted a sequence of texts")
    if not prompts:
        raise ConceptError("prompts: got none, wanted at least one.")
    return list(prompts)
