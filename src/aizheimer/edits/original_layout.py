"""Stable Diffusion 1, 2 and XL in the layout of their first code: one file, as ComfyUI and AUTOMATIC1111 read it.

A UNet there is a list of numbered ``input_blocks``, a ``middle_block`` and numbered ``output_blocks``; diffusers groups
the same layers into ``down_blocks``, ``mid_block`` and ``up_blocks``. diffusers converts that layout to its own; what
is here goes the other way, for any number of blocks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from aizheimer.edits.original_text import CLIP_OF_XL, OPEN_CLIP, OPEN_CLIP_OF_XL, open_clip_state
from aizheimer.errors import EditError

UNET, TEXT, VAE = "model.diffusion_model.", "cond_stage_model.transformer.text_model.", "first_stage_model."
"""Where the file keeps each network."""
_OPEN_CLIP_WIDTH = 1024
"""Width of the text encoder of Stable Diffusion 2, which is OpenCLIP's."""
_FAMILIES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")

_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def unet_key(name: str, config: Mapping[str, Any]) -> str:
    """Return the original name of a UNet's parameter.

    Args:
        name: As diffusers has it.
        config: The UNet's: ``layers_per_block`` numbers the blocks, ``up_block_types`` says which have attention.

    Raises:
        EditError: If that layout has no place for it.

    Example:
        >>> config = {"layers_per_block": 2, "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}
        >>> unet_key("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight", config)
        'input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight'
        >>> unet_key("up_blocks.0.upsamplers.0.conv.bias", config)
        'output_blocks.2.1.conv.bias'
    """
    layer, _, leaf = name.rpartition(".")
    if layer in _UNET_ENDS:
        return f"{_UNET_ENDS[layer]}.{leaf}"
    if match := _MIDDLE.fullmatch(name):
        kind, index, rest = match[1], int(match[2]), match[3]
        # ResNet, attention, ResNet, ... in one list.
        place = 2 * index + (kind == "attentions")
        return f"middle_block.{place}.{_inside(kind, rest)}"
    if match := _BLOCK.fullmatch(name):
        return _numbered(match, config)
    raise EditError(f"the original layout has no place for the UNet's '{name}'; export as diffusers")


def _numbered(match: re.Match[str], config: Mapping[str, Any]) -> str:
    side, block, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    layers = config["layers_per_block"]
    if not isinstance(layers, int):
        raise EditError(f"the original layout numbers blocks of one size, this UNet has {layers}; export as diffusers")
    per_block = layers + 1  # down: the downsampler is one more; up: there is one more ResNet
    if side == "down":
        if kind == "downsamplers":
            return f"input_blocks.{block * per_block + per_block}.0.op.{rest.removeprefix('conv.')}"
        place = f"input_blocks.{1 + block * per_block + index}"
        return f"{place}.{0 if kind == 'resnets' else 1}.{_inside(kind, rest)}"
    if kind == "upsamplers":
        # It stands in the last of its block's lists, behind the ResNet and, where there is one, the attention.
        attends = "Attn" in config["up_block_types"][block]
        return f"output_blocks.{block * per_block + layers}.{2 if attends else 1}.{rest}"
    place = f"output_blocks.{block * per_block + index}"
    return f"{place}.{0 if kind == 'resnets' else 1}.{_inside(kind, rest)}"


def _inside(kind: str, rest: str) -> str:
    """Return a parameter's name within its ResNet; transformers have the same names in both."""
    if kind != "resnets":
        return rest
    layer, _, leaf = rest.rpartition(".")
    if layer not in _RESNET:
        raise EditError(f"the original layout has no place for a ResNet's '{rest}'; export as diffusers")
    return f"{_RESNET[layer]}.{leaf}"


def vae_key(name: str, *, levels: int) -> str:
    """Return the original name of an autoencoder's parameter.

    Args:
        name: As diffusers has it.
        levels: Number of resolutions: the original decoder counts them from the finest.

    Raises:
        EditError: If that layout has no place for it.

    Example:
        >>> vae_key("decoder.up_blocks.0.resnets.1.conv_shortcut.weight", levels=4)
        'decoder.up.3.block.1.nin_shortcut.weight'
    """
    side, _, rest = name.partition(".")
    if side in {"quant_conv", "post_quant_conv"}:
        return name
    rest = rest.replace("conv_norm_out.", "norm_out.").replace("conv_shortcut.", "nin_shortcut.")
    if match := re.fullmatch(r"mid_block\.resnets\.(\d+)\.(.+)", rest):
        return f"{side}.mid.block_{int(match[1]) + 1}.{match[2]}"
    if match := re.fullmatch(r"mid_block\.attentions\.0\.(.+)\.(\w+)", rest):
        return f"{side}.mid.attn_1.{_VAE_ATTENTION[match[1]]}.{match[2]}"
    if match := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets\.(\d+)|(down|up)samplers\.0)\.(.+)", rest):
        level = int(match[2]) if match[1] == "down" else levels - 1 - int(match[2])
        inside = f"block.{match[4]}" if match[4] is not None else f"{match[1]}sample"
        return f"{side}.{match[1]}.{level}.{inside}.{match[6]}"
    if rest.partition(".")[0] in {"conv_in", "conv_out", "norm_out"}:
        return f"{side}.{rest}"
    raise EditError(f"the original layout has no place for the autoencoder's '{name}'; export as diffusers")


def original_state(pipe: Any) -> dict[str, Tensor]:
    """Return all weights of a Stable Diffusion 1, 2 or XL pipeline by their original names.

    Args:
        pipe: As it is now: with an edit on it, the edited weights.

    Raises:
        EditError: If it is of another family, or built so that the layout has no place for a part of it.
    """
    if type(pipe).__name__ not in _FAMILIES:
        raise EditError(
            f"single-file is the layout of Stable Diffusion 1, 2 and XL, this is {type(pipe).__name__}; export as "
            "diffusers"
        )
    state = {UNET + key: value for key, value in original_unet(pipe.unet).items()}
    levels = len(pipe.vae.config.block_out_channels)
    for name, value in pipe.vae.state_dict().items():
        attention = ".attentions." in name and value.ndim == 2
        state[VAE + vae_key(name, levels=levels)] = value[:, :, None, None] if attention else value
    return state | _text_state(pipe)


def _text_state(pipe: Any) -> dict[str, Tensor]:
    """Return the text encoders' weights by their original names."""
    first = pipe.text_encoder.state_dict()
    if type(pipe).__name__ == "StableDiffusionXLPipeline":
        second = open_clip_state(pipe.text_encoder_2.state_dict())
        clip = {f"{CLIP_OF_XL}text_model.{name.removeprefix('text_model.')}": value for name, value in first.items()}
        return clip | {OPEN_CLIP_OF_XL + name: value for name, value in second.items()}
    if pipe.text_encoder.config.hidden_size >= _OPEN_CLIP_WIDTH:
        return {OPEN_CLIP + name: value for name, value in open_clip_state(first).items()}
    return {TEXT + name.removeprefix("text_model."): value for name, value in first.items()}


def original_unet(unet: nn.Module) -> dict[str, Tensor]:
    """Return a UNet's weights by their original names, without the file's prefix."""
    config: Any = unet.config
    return {unet_key(name, config): value for name, value in unet.state_dict().items()}
