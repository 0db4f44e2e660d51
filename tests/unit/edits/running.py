"""Edits of a hook, and the pictures drawn with them."""

import numpy as np
import torch

from aizheimer.backbones.base import backbone_for
from aizheimer.concepts.world import DEFAULT_WORLD
from aizheimer.edits import ConceptRecord, Edit, Provenance
from tests.snapshot import same_snapshot, snapshot

state, same_state = snapshot, same_snapshot


def edit_of(pipe, hook, **options):
    base = backbone_for(pipe).fingerprint()
    concept = ConceptRecord(target="santa claus")
    return Edit({}, Provenance(method="test", concept=concept, base_fingerprint=base, **options), hook)


def draw(pipe, prompts, *, steps=3, guidance=5.0, seeds=None, **options):
    """Return float pictures (n, height, width, 3), each prompt from its own seed."""
    prompts = [prompts] if isinstance(prompts, str) else prompts
    seeds = range(len(prompts)) if seeds is None else seeds
    latents = torch.cat([torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    begun = backbone_for(pipe, world=DEFAULT_WORLD).for_pipeline(latents)
    return pipe(
        prompts, latents=begun, num_inference_steps=steps, guidance_scale=guidance, output_type="np", **options
    ).images


def apart(a, b):
    return float(np.abs(a - b).max())
