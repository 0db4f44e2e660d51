"""Choose which parameters of a text encoder an edit may change, and watch what its layers say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn

from aizheimer.backbones.readers import TextReader
from aizheimer.errors import SelectorError
from aizheimer.modules.parameters import ParameterSelection

TextPart = Literal["attention", "mlp", "norms"]
"""What a block of a text encoder is made of: self-attention, the two linear layers after it, its layer norms."""

_BLOCK = re.compile(r"(?:^|\.)encoder\.layers\.(\d+)\.(self_attn|mlp|layer_norm\d)\.")
_PARTS: dict[str, TextPart] = {"self_attn": "attention", "mlp": "mlp", "layer_norm1": "norms", "layer_norm2": "norms"}


def select_text(
    text_encoder: nn.Module,
    *,
    blocks: int | None = None,
    parts: Sequence[TextPart] = ("attention", "mlp", "norms"),
    final_norm: bool = False,
) -> ParameterSelection:
    """Pick parameters of a text encoder's first blocks; word and position vectors are never among them.

    Args:
        text_encoder: A CLIP text encoder, of any size.
        blocks: Number of blocks, from the first; None for all.
        parts: What to take of each.
        final_norm: Take the layer norm after the last block too.

    Returns:
        The selection, in the network's own order.

    Raises:
        SelectorError: If there are fewer blocks, or nothing is selected.

    Example:
        >>> select_text(pipe.text_encoder, blocks=1, parts=("mlp",)).names[0]  # doctest: +SKIP
        'encoder.layers.0.mlp.fc1.weight'
    """
    there = len(_layers(text_encoder))
    if blocks is not None and not 1 <= blocks <= there:
        raise SelectorError(
            f"blocks: got {blocks}, this text encoder has {there}; wanted 1 to {there}, or null for all."
        )
    names = []
    for name, _ in text_encoder.named_parameters():
        found = _BLOCK.search(name)
        if found is not None:
            chosen = _PARTS[found[2]] in parts and (blocks is None or int(found[1]) < blocks)
        else:
            chosen = final_norm and "final_layer_norm." in name
        names += [name] * chosen
    if not names:
        raise SelectorError("parts: got none, wanted any of attention, mlp, norms; or set final_norm.")
    return ParameterSelection(tuple(names))


def select_read(
    readers: Sequence[TextReader],
    *,
    blocks: int | None = None,
    parts: Sequence[TextPart] = ("attention", "mlp", "norms"),
    final_norm: bool = False,
) -> ParameterSelection:
    """Pick parameters of the first blocks of every text encoder; see `select_text`.

    An encoder's last blocks and its last norm are left out where nothing that the denoiser reads comes through them.

    Args:
        readers: The text encoders.
        blocks: Number of blocks of each, from the first; None for all.
        parts: What to take of each block.
        final_norm: Take the layer norm after the last block too.

    Returns:
        The selection, of several encoders by ``<network>.<name>``.

    Raises:
        SelectorError: If an encoder has fewer blocks, or nothing is selected.
    """
    names: list[str] = []
    for reader in readers:
        skipped = 0 if reader.pooled else reader.skipped
        there = len(_layers(reader.encoder))
        # A number that is too large is refused, not cut down to what is read.
        wanted = blocks if skipped == 0 or (blocks or 0) > there else min(blocks or there, there - skipped)
        norm = final_norm and skipped == 0
        chosen = select_text(reader.encoder, blocks=wanted, parts=parts, final_norm=norm).names
        names += chosen if len(readers) == 1 else [f"{reader.network}.{name}" for name in chosen]
    return ParameterSelection(tuple(names))


def last_attention_output(text_encoder: nn.Module, *, skipped: int = 0) -> nn.Module:
    """Return the last block's output projection of self-attention, whose output HiRM calls the high-level concept.

    Args:
        text_encoder: A CLIP text encoder.
        skipped: Blocks at its end that do not count.

    Raises:
        SelectorError: If this is no CLIP text encoder.
    """
    return _layers(text_encoder)[-1 - skipped].get_submodule("self_attn.out_proj")


@contextmanager
def captured(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a module returns, pass by pass, with gradients; the module is unchanged afterwards.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> with captured(layer) as outputs:
        ...     _ = layer(torch.zeros(1, 2))
        >>> outputs[0].shape
        torch.Size([1, 3])
    """
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
        outputs.append(output)

    handle = module.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


def _layers(text_encoder: nn.Module) -> list[nn.Module]:
    """Return the blocks; they are at ``encoder.layers``, in some classes below ``text_model``."""
    for name, module in text_encoder.named_modules():
        if (name == "encoder.layers" or name.endswith(".encoder.layers")) and isinstance(module, nn.ModuleList):
            return list(module)
    raise SelectorError(
        f"got a {type(text_encoder).__name__} without encoder.layers, wanted a CLIP text encoder; "
        "choose a method that edits the denoiser."
    )
