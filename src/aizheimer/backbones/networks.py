"""Find a denoiser's attention to text, and hold networks still."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import nn

from aizheimer.errors import SelectorError

ENTRANCE = "context_embedder"
"""The one linear layer by which text rows enter a joint-attention transformer."""

TEXT_ENCODERS = "text_encoders"
"""Of `aizheimer.backbones.base.Part`, the one that may be several networks."""

_KEYS_VALUES = {"k": "to_k", "v": "to_v"}


def networks_of(pipe: Any, names: Sequence[str]) -> dict[str, nn.Module]:
    """Return a pipeline's networks of these names, but those it was loaded without."""
    return {name: network for name in names if (network := getattr(pipe, name)) is not None}


def trained_network(networks: Mapping[Any, nn.Module], part: str) -> nn.Module:
    """Return what is trained at a time, by `aizheimer.backbones.base.Part`.

    All text encoders are one module, in which each one's parameters go by ``<network>.<name>``; a single network's have
    their own names.

    Example:
        >>> pair = {"unet": nn.Linear(1, 1), "text_encoder": nn.Linear(1, 1), "text_encoder_2": nn.Linear(1, 1)}
        >>> list(trained_network(pair, "text_encoders").state_dict())[::2]
        ['text_encoder.weight', 'text_encoder_2.weight']
    """
    if part != TEXT_ENCODERS:
        return networks[part]
    return nn.ModuleDict({name: networks[name] for name in trained_names(networks, part)})


def trained_names(networks: Iterable[str], part: str) -> list[str]:
    """Return which networks are trained at a time."""
    return [part] if part != TEXT_ENCODERS else [name for name in networks if name.startswith("text_encoder")]


def latent_shape_of(unet: Any) -> tuple[int, int, int]:
    """Return channels, height and width of what a UNet was made for."""
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return unet.config.in_channels, height, width


def cross_attention_modules(unet: nn.Module) -> dict[str, nn.Module]:
    """Return every cross-attention module of a UNet by its name, in order of execution.

    Down, middle, up. ``named_modules()`` gives down, up, middle, because that is the order in
    which diffusers registers the blocks.
    """
    found = {}
    for part in ("down_blocks", "mid_block", "up_blocks"):
        block = getattr(unet, part, None)
        for name, module in block.named_modules(prefix=part) if block is not None else ():
            if name.endswith(".attn2") and isinstance(module, Attention) and module.is_cross_attention:
                found[name] = module
    return found


def joint_attention_modules(transformer: nn.Module) -> dict[str, nn.Module]:
    """Return every attention module of a transformer that attends over image and text together, in order of execution.

    Blocks of two streams (``transformer_blocks``) come before those of one (``single_transformer_blocks``, Flux). The
    second attention of Stable Diffusion 3.5's blocks reads the image alone and is not among them.
    """
    found = {}
    for part in ("transformer_blocks", "single_transformer_blocks"):
        for index, block in enumerate(getattr(transformer, part, ())):
            found[f"{part}.{index}.attn"] = block.attn
    return found


def cross_attention_projections(
    modules: Mapping[str, nn.Module], layers: Sequence[str], parts: Sequence[str]
) -> dict[str, nn.Module]:
    """Return the projections of cross-attention layers that read text rows.

    Args:
        modules: Attention modules by name.
        layers: Names of those wanted.
        parts: Any of ``"k"`` and ``"v"``.

    Returns:
        By name in the denoiser, layer by layer, keys before values.

    Raises:
        SelectorError: If a layer or part is unknown, or none is given.
    """
    _check_parts(layers, parts)
    found = {}
    for layer in layers:
        if layer not in modules:
            raise SelectorError(f"layers: no layer is called '{layer}'; there are {', '.join(modules)}.")
        chosen: Any = modules[layer]
        for part in (part for part in _KEYS_VALUES if part in parts):
            found[f"{layer}.{_KEYS_VALUES[part]}"] = getattr(chosen, _KEYS_VALUES[part])
    return found


def entrance_projection(
    transformer: nn.Module, modules: Mapping[str, nn.Module], layers: Sequence[str], parts: Sequence[str]
) -> dict[str, nn.Module]:
    """Return the layer by which text rows enter a joint-attention transformer: what all its keys and values come from.

    Raises:
        SelectorError: If only some layers are wanted: there is one entrance for all of them.
    """
    _check_parts(layers, parts)
    if set(layers) != set(modules):
        raise SelectorError(
            f"layers: got {len(layers)} of {len(modules)}; in a joint-attention transformer text rows are read once, "
            f"by {ENTRANCE}, for all layers; set layers to all."
        )
    return {ENTRANCE: transformer.get_submodule(ENTRANCE)}


def _check_parts(layers: Sequence[str], parts: Sequence[str]) -> None:
    if not parts or not layers or any(part not in _KEYS_VALUES for part in parts):
        raise SelectorError(f"parts {list(parts)} of layers {list(layers)}: wanted k, v or both, of one layer or more.")


@contextmanager
def frozen(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Within the context no parameter of the networks asks for gradients."""
    before = [(p, p.requires_grad) for net in networks for p in net.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)
