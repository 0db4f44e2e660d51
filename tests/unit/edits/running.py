"""What the tests of hooks look at: everything an edit could leave behind on a pipeline."""

import numpy as np
import torch

from aizheimer.backbones.base import backbone_for
from aizheimer.edits import ConceptRecord, Edit, Provenance

OWNERS = ("unet", "text_encoder", "vae", "tokenizer", "scheduler", "image_processor")


def edit_of(pipe, hook, **options):
    base = backbone_for(pipe).fingerprint()
    concept = ConceptRecord(target="santa claus")
    return Edit({}, Provenance(method="test", concept=concept, base_fingerprint=base, **options), hook)


def state(pipe):
    """Return every attribute of the pipeline, its parts and their modules, as identities, and every tensor's bits."""
    owners = {"pipe": pipe, **{name: getattr(pipe, name) for name in OWNERS}}
    for part in ("unet", "text_encoder", "vae"):
        owners |= {f"{part}.{name}": module for name, module in getattr(pipe, part).named_modules()}
    found = {}
    for name, owner in owners.items():
        found |= {f"{name}:{key}": id(value) for key, value in vars(owner).items() if key != "_progress_bar_config"}
        if isinstance(owner, torch.nn.Module):
            kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_buffers")
            found |= {f"{name}:{kind}": list(getattr(owner, kind)) for kind in kinds}
    for part in ("unet", "text_encoder", "vae"):
        found |= {
            f"{part}:{name}": tensor.clone().view(torch.uint8)
            for name, tensor in getattr(pipe, part).state_dict().items()
        }
    return found


def same_state(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key] for key in a
    )


def draw(pipe, prompts, *, steps=3, guidance=5.0, seeds=None, **options):
    """Return float pictures (n, height, width, 3), each prompt from its own seed."""
    prompts = [prompts] if isinstance(prompts, str) else prompts
    seeds = range(len(prompts)) if seeds is None else seeds
    latents = torch.cat([torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    return pipe(
        prompts, latents=latents, num_inference_steps=steps, guidance_scale=guidance, output_type="np", **options
    ).images


def apart(a, b):
    return float(np.abs(a - b).max())
