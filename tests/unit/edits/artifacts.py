"""Edits of every kind on the tiny pipeline, and every kind of artifact loaded by diffusers alone."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import backbone_for
from aizheimer.backbones.fingerprints import module_fingerprint
from aizheimer.edits import ConceptRecord, Edit, Provenance
from aizheimer.edits.export import Exported

PROMPTS = ["santa claus in noto style", "cat in flat style"]
MID = "unet.mid_block.attentions.0"
CROSS = tuple(f"{MID}.transformer_blocks.0.attn2.to_{part}.weight" for part in "qkv")
CONVOLUTIONS = (
    f"{MID}.proj_in.weight",
    "unet.up_blocks.0.attentions.1.proj_out.weight",
    "unet.down_blocks.1.resnets.0.conv1.weight",
    "unet.down_blocks.0.downsamplers.0.conv.weight",
    "unet.up_blocks.1.upsamplers.0.conv.weight",
    "unet.conv_out.weight",
)
OTHERS = (
    "unet.time_embedding.linear_1.weight",
    "unet.mid_block.resnets.1.time_emb_proj.weight",
    "unet.up_blocks.2.resnets.1.conv_shortcut.weight",
    f"{MID}.transformer_blocks.0.ff.net.0.proj.weight",
    f"{MID}.transformer_blocks.0.attn1.to_out.0.weight",
)
TEXT = ("text_encoder.encoder.layers.1.self_attn.v_proj.weight", "text_encoder.encoder.layers.0.mlp.fc1.weight")
"""Without ``out_proj``, by which diffusers tells kohya's names of attention in a text encoder."""
BIAS = f"{MID}.transformer_blocks.0.attn2.to_out.0.bias"
NORM = f"{MID}.transformer_blocks.0.norm2.weight"


def edit_of_weights(pipe, names, *, rank: int | None = None, size: float = 0.2, strength: float = 1.0) -> Edit:
    """Return random changes, each ``size`` times the weight it changes, of a rank or of all of them."""
    networks = backbone_for(pipe).networks
    deltas = {}
    for name in names:
        part, _, own = name.partition(".")
        weight = networks[part].get_parameter(own).detach()
        generator = generator_for(0, "artifacts", name)
        if rank is None or weight.ndim < 2:
            change = torch.randn(weight.shape, generator=generator)
        else:
            flat = weight.flatten(1)
            change = torch.randn(len(flat), rank, generator=generator) @ torch.randn(
                rank, flat.shape[1], generator=generator
            )
        deltas[name] = (change * size * weight.norm() / change.norm()).reshape(weight.shape)
    text = any(name.startswith("text_encoder.") for name in names)
    provenance = Provenance(
        method="test",
        concept=ConceptRecord(target="santa claus"),
        base_fingerprint=backbone_for(pipe).fingerprint(),
        text_fingerprint=module_fingerprint(pipe.text_encoder) if text else "",
        strength=strength,
    )
    return Edit(deltas, provenance)


def loaded(exported: Exported, *, base, base_folder: Path):
    """Return a pipeline with an artifact on it, made of the base by diffusers and transformers only."""
    format, path = exported.format, exported.path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if format == "diffusers":
            pipe = StableDiffusionPipeline.from_pretrained(path, local_files_only=True, safety_checker=None)
        elif format == "single-file":
            pipe = StableDiffusionPipeline.from_single_file(
                str(path), config=str(base_folder), local_files_only=True, safety_checker=None
            )
        elif format == "text-encoder":
            encoder = CLIPTextModel.from_pretrained(path, local_files_only=True)
            pipe = StableDiffusionPipeline.from_pretrained(
                base_folder, text_encoder=encoder, local_files_only=True, safety_checker=None
            )
        else:
            pipe = copy.deepcopy(base)
            if format == "delta":
                exec(exported.load, {"pipe": pipe, "FILE": path, "safetensors": safetensors})
            else:
                pipe.load_lora_weights(path.parent, weight_name=path.name, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe
