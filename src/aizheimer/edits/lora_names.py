"""What two families of LoRA files call a layer: kohya's trainers, and PEFT as diffusers saves it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from aizheimer.edits.original_layout import unet_key
from aizheimer.errors import EditError

_TEXT = "text_model."
"""Prefix that CLIP's text tower had, and that LoRA files still write, where newer libraries have dropped it."""


def kohya_name(module: str, *, parts: Mapping[str, nn.Module]) -> str:
    """Return kohya's name of a layer, without ``.lora_down.weight``.

    Args:
        module: ``"<part>.<name in that network>"``.
        parts: The pipeline's networks: with two text encoders, files number them.

    Example:
        >>> kohya_name("unet.mid_block.attentions.0.proj_in", parts={})
        'lora_unet_mid_block_attentions_0_proj_in'
        >>> kohya_name("text_encoder.encoder.layers.0.mlp.fc1", parts={})
        'lora_te_text_model_encoder_layers_0_mlp_fc1'
    """
    part, _, name = module.partition(".")
    return f"{kohya_prefix(part, parts=parts)}{_own_name(part, name).replace('.', '_')}"


def kohya_prefix(part: str, *, parts: Mapping[str, nn.Module]) -> str:
    """Return what kohya's names of a network's layers begin with."""
    if not part.startswith("text_encoder"):
        return "lora_unet_"
    number = part.removeprefix("text_encoder").strip("_") or ("1" if "text_encoder_2" in parts else "")
    return f"lora_te{number}_"


def peft_name(module: str, *, denoiser: str = "unet") -> str:
    """Return PEFT's name of a layer, without ``.lora_A.weight``.

    Args:
        module: ``"<part>.<name in that network>"``.
        denoiser: What the pipeline calls its denoiser, whose part is ``"unet"``.

    Example:
        >>> peft_name("text_encoder.encoder.layers.0.mlp.fc1")
        'text_encoder.text_model.encoder.layers.0.mlp.fc1'
    """
    part, _, name = module.partition(".")
    return f"{denoiser if part == 'unet' else part}.{_own_name(part, name)}"


def _own_name(part: str, name: str) -> str:
    inside = part.startswith("text_encoder") and not name.startswith("text_projection")
    return _TEXT + name.removeprefix(_TEXT) if inside else name


def layers_by_name(parts: Mapping[str, nn.Module]) -> dict[str, str]:
    """Return every linear layer and convolution, ``"<part>.<name>"``, by kohya's name and by PEFT's.

    kohya's trainer for Stable Diffusion XL names a UNet's layers as the original layout does.
    """
    found: dict[str, str] = {}
    for part, network in parts.items():
        for name, module in network.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                whole = f"{part}.{name}"
                found |= {kohya_name(whole, parts=parts): whole, peft_name(whole): whole, whole: whole}
                if part == "unet" and (original := _original_name(name, network)):
                    found[f"lora_unet_{original.replace('.', '_')}"] = whole
                # Trainers on a pipeline with one text encoder number it too, some of them; and others never do.
                if part == "text_encoder":
                    own = _own_name(part, name).replace(".", "_")
                    found |= {f"lora_te1_{own}": whole, f"lora_te_{own}": whole}
    return found


def _original_name(name: str, network: Any) -> str:
    """Return a UNet layer's name in the original layout, "" if it has none there."""
    try:
        return unet_key(f"{name}.weight", network.config).removesuffix(".weight")
    except (EditError, KeyError, AttributeError):  # of another network, or of a layer that is not one of that layout
        return ""
