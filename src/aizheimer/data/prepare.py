"""Everything about a concept that training needs, computed once and cached."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone, Part
from aizheimer.backbones.conditioning import Conditioning, joined
from aizheimer.backbones.networks import trained_names
from aizheimer.concepts.concept import Concept
from aizheimer.data.cache import TensorCache, backbone_key, tensor_hash
from aizheimer.data.images import read_images
from aizheimer.data.latents import LatentBank, RolloutPlan
from aizheimer.data.trajectories import kept_trajectories
from aizheimer.errors import DataError

PROMPTS_LIMIT = 64
"""Most forget prompts that are encoded; a style has one for each subject, of which this many are drawn."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class ConceptData:
    """What a concept looks like to the denoiser. All tensors are on the CPU.

    Args:
        forget_prompts: Prompts that ask for the concept.
        forget_ids: (forget prompts, tokens) their token ids.
        forget_embeddings: The forget prompts, encoded.
        retain_prompts: Prompts whose pictures must stay.
        retain_embeddings: The retain prompts, encoded.
        null_embedding: The empty prompt, encoded: what guidance starts from.
        forget_latents: (images, channels, height, width) clean latents of the concept's images, when there are any.
        forget_latents_prompt: (images,) the forget prompt of each, or None when the images came without prompts.
        retain_latents: (images, channels, height, width) clean latents the teacher drew for retain prompts.
        forget_bank: Teacher trajectories of forget prompts, when there are no images; held-out ones last.
        retain_bank: Teacher trajectories of retain prompts; held-out ones last.
        hashes: What the tensors were made from, for the record.
    """

    forget_prompts: list[str]
    forget_ids: Tensor
    forget_embeddings: Conditioning
    retain_prompts: list[str]
    retain_embeddings: Conditioning
    null_embedding: Conditioning
    forget_latents: Tensor | None
    forget_latents_prompt: Tensor | None
    retain_latents: Tensor | None
    forget_bank: LatentBank | None
    retain_bank: LatentBank
    hashes: dict[str, str] = field(default_factory=dict)


def prepare(
    backbone: Backbone,
    concept: Concept,
    *,
    images: str | Path | None = None,
    retain_prompts: Sequence[str],
    seed: int = 0,
    cache_dir: Path | None = None,
    plan: RolloutPlan | None = None,
    progress: Progress | None = None,
    forget_latents: bool = True,
) -> ConceptData:
    """Encode the prompts, then read, draw or roll out the latents.

    Args:
        backbone: The frozen model.
        concept: What to forget.
        images: A folder of the concept's pictures; ``"generate:N"`` to let the model draw N of them; or None to start
            from noise, with short rollouts of the model in place of images.
        retain_prompts: Prompts whose pictures must stay, the most important first.
        seed: Fixes noise, timesteps and the choice of prompts.
        cache_dir: Where results are cached by content; None for no cache.
        plan: How many rollouts, and how pictures are drawn.
        progress: Called with (stage, done, total).
        forget_latents: False makes no latents of the concept, for a method that starts from others.

    Returns:
        Prompts, embeddings and latents for forget and retain.

    Raises:
        DataError: If ``images`` is neither of the three, or the folder holds no image.
    """
    plan = plan or RolloutPlan()
    maker = _Maker(backbone, TensorCache(cache_dir), seed, plan, progress or (lambda *_: None))
    forget_prompts = forget_prompts_of(backbone, concept, seed=seed)
    forget_embeddings = maker.embeddings(forget_prompts)
    retain_embeddings = maker.embeddings(list(retain_prompts))
    null_embedding = maker.embeddings([""])
    retain_count = plan.retain + plan.holdout
    retain_bank = maker.bank("retain", retain_embeddings, null_embedding, _cycle(len(retain_prompts), retain_count))
    latents, latents_prompt, forget_bank = None, None, None
    if forget_latents and images is not None:
        latents, latents_prompt = maker.pictures("generate", forget_embeddings, null_embedding, images=images)
    elif forget_latents:
        index = _cycle(len(forget_prompts), plan.forget + plan.holdout)
        forget_bank = maker.bank("forget", forget_embeddings, null_embedding, index)
    return ConceptData(
        forget_prompts=forget_prompts,
        forget_ids=backbone.tokenize(forget_prompts).cpu(),
        forget_embeddings=forget_embeddings,
        retain_prompts=list(retain_prompts),
        retain_embeddings=retain_embeddings,
        null_embedding=null_embedding,
        forget_latents=latents,
        forget_latents_prompt=latents_prompt,
        retain_latents=retain_bank.x_0,
        forget_bank=forget_bank,
        retain_bank=retain_bank,
        hashes=_hashes(forget=latents if forget_bank is None else forget_bank.x_t, retain=retain_bank.x_t),
    )


def _hashes(**made: Tensor | None) -> dict[str, str]:
    return {name: tensor_hash(tensor) for name, tensor in made.items() if tensor is not None}


def forget_prompts_of(backbone: Backbone, concept: Concept, *, seed: int) -> list[str]:
    """Return the prompts of a concept: at most `PROMPTS_LIMIT`, a random choice in random order when there are more."""
    prompts = backbone.world.prompts(concept)
    if len(prompts) <= PROMPTS_LIMIT:
        return prompts
    order = torch.randperm(len(prompts), generator=generator_for(seed, "prompts"))[:PROMPTS_LIMIT]
    return [prompts[i] for i in order.tolist()]


def picture_latents(
    backbone: Backbone,
    prompts: Sequence[str],
    *,
    images: str | Path,
    seed: int = 0,
    cache_dir: Path | None = None,
    plan: RolloutPlan | None = None,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return clean latents of pictures of some prompts: an anchor's, or a concept's that is only named in them.

    Args:
        backbone: The frozen model.
        prompts: What is on the pictures; ``"generate:N"`` draws them in turn.
        images: A folder of pictures, or ``"generate:N"`` to let the model draw N of them.
        seed: Fixes the noise.
        cache_dir: Where results are cached by content; None for no cache.
        plan: Names the guidance and the steps of pictures that are drawn.
        progress: Called with (stage, done, total).

    Returns:
        (images, channels, height, width) on the CPU, and (images,) the prompt of each, None for a folder's.

    Raises:
        DataError: If ``images`` is neither, or the folder holds no image.
    """
    maker = _Maker(backbone, TensorCache(cache_dir), seed, plan or RolloutPlan(), progress or (lambda *_: None))
    return maker.pictures("pictures", maker.embeddings(list(prompts)), maker.embeddings([""]), images=images)


def encoded_pictures(
    backbone: Backbone, pixels: Tensor, *, cache_dir: Path | None = None, progress: Progress | None = None
) -> Tensor:
    """Return clean latents (images, channels, height, width) of pictures, on the CPU.

    Args:
        backbone: Whose autoencoder.
        pixels: (images, 3, size, size) in [-1, 1].
        cache_dir: Where results are cached by content; None for no cache.
        progress: Called with (stage, done, total).
    """
    maker = _Maker(backbone, TensorCache(cache_dir), 0, RolloutPlan(), progress or (lambda *_: None))
    return maker.image_latents(pixels)


def picture_size(backbone: Backbone) -> int:
    """Return the side, in pixels, of the square pictures that a model draws."""
    return backbone.latent_shape[-1] * backbone.pipe.vae_scale_factor


def generate_count(images: str | Path | None) -> int | None:
    """Return N when ``images`` says ``"generate:N"``, None when it names a folder or is None.

    Raises:
        DataError: If it starts with ``generate:`` and N is not a number of images, 1 or more.
    """
    if not isinstance(images, str) or not images.startswith("generate:"):
        return None
    match = re.fullmatch(r"generate:(\d+)", images)
    if match is None or int(match[1]) < 1:
        raise DataError(f"images: got '{images}'; wanted a folder, or generate:N with N of 1 or more")
    return int(match[1])


@contextlib.contextmanager
def parked(backbone: Backbone, *, part: Part = "unet") -> Iterator[None]:
    """Move what is not needed off the accelerator while a network is trained; put it back after.

    That is the autoencoder, and the text encoders unless they are what learns.

    On a CPU pipeline there is no other memory to move them to and nothing happens.
    """
    kept = {"unet", "transformer", *trained_names(backbone.networks, part)}
    nets = [net for name, net in backbone.components.items() if name not in kept]
    moved: list[tuple[Any, torch.device]] = [(net, _device(net)) for net in nets if _device(net).type != "cpu"]
    try:
        for net, _ in moved:
            net.to("cpu")
        yield
    finally:
        for net, device in moved:
            net.to(device)


@contextlib.contextmanager
def reading(backbone: Backbone) -> Iterator[None]:
    """Have the text encoders beside the denoiser, for a method that encodes prompts while it trains."""
    readers: list[Any] = [net for name, net in backbone.components.items() if name.startswith("text_encoder")]
    before = [(net, _device(net)) for net in readers]
    try:
        for net in readers:
            net.to(backbone.device)
        yield
    finally:
        for net, device in before:
            net.to(device)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


@dataclass(frozen=True)
class _Maker:
    """Computes tensors through the cache, with everything they depend on in the key."""

    backbone: Backbone
    cache: TensorCache
    seed: int
    plan: RolloutPlan
    progress: Progress

    def embeddings(self, prompts: list[str]) -> Conditioning:
        def compute() -> dict[str, Tensor]:
            batches = [self.backbone.condition(prompts[i : i + 32]) for i in range(0, len(prompts), 32)]
            return joined(batches).tensors()

        readers = [name for name in self.backbone.components if name.startswith("text_encoder")]
        ids = [tensor_hash(window.tokenize(prompts)) for window in self.backbone.windows]
        key = self._key("embeddings", *readers, ids=ids, texts=prompts)
        return Conditioning.from_tensors(self.cache.get(key, compute))

    def image_latents(self, pixels: Tensor) -> Tensor:
        def compute() -> dict[str, Tensor]:
            batches = []
            for done in range(0, len(pixels), 4):
                self.progress("images", done, len(pixels))
                batches.append(self.backbone.encode_images(pixels[done : done + 4]))
            return {"latents": torch.cat(batches)}

        return self.cache.get(self._key("images", "vae", pixels=tensor_hash(pixels)), compute)["latents"]

    def pictures(
        self, name: str, embeddings: Conditioning, null_embedding: Conditioning, *, images: str | Path
    ) -> tuple[Tensor, Tensor | None]:
        """Return the clean latents of a folder's pictures, or of those the model draws, and the prompt of each."""
        count = generate_count(images)
        if count is None:
            return self.image_latents(read_images(Path(images), picture_size(self.backbone)).pixels), None
        index = _cycle(len(embeddings), count)
        return self.bank(name, embeddings, null_embedding, index, pictures=True).x_0, index

    def bank(
        self,
        name: str,
        embeddings: Conditioning,
        null_embedding: Conditioning,
        index: Tensor,
        *,
        pictures: bool = False,
    ) -> LatentBank:
        return kept_trajectories(
            self.backbone,
            embeddings,
            null_embedding=null_embedding,
            prompt_index=index,
            plan=self.plan,
            name=name,
            seed=self.seed,
            cache=self.cache,
            pictures=pictures,
            progress=lambda done, total: self.progress(name, done, total),
        )

    def _key(self, kind: str, *components: str, **content: object) -> str:
        if self.cache.folder is None:
            return ""
        return backbone_key(self.backbone, kind=kind, content=content, components=components)


def _cycle(prompts: int, count: int) -> Tensor:
    """Return the prompt of each of ``count`` trajectories, all prompts in turn."""
    return torch.arange(count) % prompts
