"""Trajectories of the frozen model, denoised once and kept on the disk with every step of theirs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditioning
from aizheimer.data.cache import TensorCache, backbone_key, tensor_hash, tensor_hashes
from aizheimer.data.latents import LatentBank, Progress, RolloutPlan, rollout


def kept_trajectories(
    backbone: Backbone,
    embeddings: Conditioning,
    *,
    null_embedding: Conditioning,
    prompt_index: Tensor,
    plan: RolloutPlan,
    name: str,
    seed: int,
    cache: TensorCache,
    pictures: bool = False,
    progress: Progress | None = None,
) -> LatentBank:
    """Return rollouts of the frozen model: from the disk, where they are mapped and not read, or denoised now.

    The key is everything they depend on, so two methods that ask alike share them.

    Args:
        backbone: The frozen model.
        embeddings: Encoded prompts.
        null_embedding: The encoded empty prompt.
        prompt_index: (trajectories,) the prompt of each.
        plan: Steps, guidance and the number format that is kept.
        name: What they are for; with the seed it fixes noise and timesteps.
        seed: Fixes noise and timesteps.
        cache: Where they are kept.
        pictures: Take the steps of a picture, and keep it whole.
        progress: Called with (trajectories done, trajectories).
    """
    steps = plan.picture_steps if pictures else plan.steps
    guidance = plan.guidance_or(backbone.world.guidance)
    keep = torch.float16 if plan.keep == "float16" and not pictures else None

    def compute() -> dict[str, Tensor]:
        return rollout(
            backbone,
            embeddings,
            null_embedding=null_embedding,
            prompt_index=prompt_index,
            steps=steps,
            guidance=guidance,
            generator=generator_for(seed, "rollout", name),
            keep=keep,
            progress=progress,
        ).tensors()

    if cache.folder is None:
        return LatentBank(**cache.get("", compute))
    asked = {"steps": steps, "guidance": guidance, "keep": str(keep), "seed": seed, "name": name}
    key = _key(backbone, embeddings, null_embedding=null_embedding, prompt_index=prompt_index, asked=asked)
    return LatentBank(**cache.get(key, compute))


def _key(
    backbone: Backbone,
    embeddings: Conditioning,
    *,
    null_embedding: Conditioning,
    prompt_index: Tensor,
    asked: Mapping[str, object],
) -> str:
    """Return the key of rollouts: what is asked for, of which prompts, and what the model makes of them."""
    content = {
        "embeddings": tensor_hashes(embeddings.tensors()),
        "null": tensor_hashes(null_embedding.tensors()),
        "index": prompt_index.tolist(),
        **asked,
        "latents": list(backbone.latent_shape),  # the same weights draw pictures of several sizes
        "schedule": tensor_hash(backbone.schedule.table),
        "prediction": backbone.prediction_type,
        "denoiser": backbone.fingerprint(),
    }
    return backbone_key(backbone, kind="rollout", content=content)
