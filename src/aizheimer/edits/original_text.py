"""Text encoders as single files keep them: OpenCLIP's names, and where Stable Diffusion XL has both of its encoders.

OpenCLIP holds the three projections of an attention layer as one matrix, and its text projection transposed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from aizheimer.errors import EditError

CLIP_OF_XL = "conditioner.embedders.0.transformer."
OPEN_CLIP_OF_XL = "conditioner.embedders.1.model."
OPEN_CLIP = "cond_stage_model.model."
_ENCODERS = {OPEN_CLIP_OF_XL: "text_encoder_2.", OPEN_CLIP: "text_encoder."}
"""Whose encoders are in OpenCLIP's names, by where single files have them."""

_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
}
_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_OUR_ENDS = {theirs: ours for ours, theirs in _ENDS.items()}
_OUR_LAYER = {theirs: ours for ours, theirs in _LAYER.items()}
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_OURS = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_THEIRS = re.compile(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)")
_TURNED = "text_projection"


def open_clip_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a text encoder's weights by OpenCLIP's names.

    Args:
        state: As transformers has them, with or without ``text_model.`` before them.

    Raises:
        EditError: If that layout has no place for one of them.

    Example:
        >>> sorted(open_clip_state({"encoder.layers.0.mlp.fc1.bias": torch.zeros(2)}))
        ['transformer.resblocks.0.mlp.c_fc.bias']
    """
    own = {name.removeprefix("text_model."): value for name, value in state.items()}
    found: dict[str, Tensor] = {}
    for name, value in own.items():
        match = _OURS.fullmatch(name)
        if name in _ENDS:
            found[_ENDS[name]] = value.T.contiguous() if _ENDS[name] == _TURNED else value
        elif match and match[2] in _LAYER:
            found[f"transformer.resblocks.{match[1]}.{_LAYER[match[2]]}.{match[3]}"] = value
        elif match and match[2].removeprefix("self_attn.") in _PROJECTIONS:
            stem, kind = f"encoder.layers.{match[1]}.self_attn", match[3]
            fused = f"transformer.resblocks.{match[1]}.attn.in_proj_{kind}"
            if fused not in found:
                found[fused] = torch.cat([own[f"{stem}.{projection}.{kind}"] for projection in _PROJECTIONS])
        elif not name.endswith("position_ids"):
            raise EditError(f"the original layout has no place for the text encoder's '{name}'; export as diffusers")
    return found


def by_transformers_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a file's tensors with those of text encoders in single files by the part and transformers' names.

    What is of nothing known keeps its name; a matrix of three projections becomes three.

    Args:
        tensors: By name in the file.

    Example:
        >>> fused = {"conditioner.embedders.1.model.transformer.resblocks.3.attn.in_proj_bias": torch.zeros(6)}
        >>> [name.rpartition("layers.")[2] for name in by_transformers_names(fused)]
        ['3.self_attn.q_proj.bias', '3.self_attn.k_proj.bias', '3.self_attn.v_proj.bias']
    """
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.startswith(CLIP_OF_XL):
            found[f"text_encoder.{name.removeprefix(CLIP_OF_XL).removeprefix('text_model.')}"] = value
            continue
        place = next((place for place in _ENCODERS if name.startswith(place)), "")
        spelt = dict(_spelt(name.removeprefix(place), value)) if place else {}
        found |= {_ENCODERS[place] + own: part for own, part in spelt.items()} or {name: value}
    return found


def _spelt(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield a tensor of OpenCLIP by transformers' name, a fused one in parts; nothing if it is none."""
    match = _THEIRS.fullmatch(name)
    if name in _OUR_ENDS:
        yield _OUR_ENDS[name], value.T.contiguous() if name == _TURNED else value
    elif match and match[2] == "attn.in_proj" and value.ndim and len(value) % 3 == 0:
        for projection, part in zip(_PROJECTIONS, value.chunk(3), strict=True):
            yield f"encoder.layers.{match[1]}.self_attn.{projection}.{match[3]}", part
    elif match and match[2] in _OUR_LAYER:
        yield f"encoder.layers.{match[1]}.{_OUR_LAYER[match[2]]}.{match[3]}", value
