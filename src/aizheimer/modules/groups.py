"""Groups of a denoiser's parameters by the names that papers give them."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import nn

from aizheimer.errors import SelectorError, did_you_mean
from aizheimer.modules.parameters import ParameterSelection, part_paths

# Of a UNet, and of a joint-attention transformer.
_OUTPUT = ("conv_norm_out.", "conv_out.", "norm_out.", "proj_out.")
_TIME = ("time_embedding.", "time_text_embed.")


def _always(name: str, text: bool) -> bool:
    return True


# By the name of any parameter: ESD's code of 2023, its names carried over from CompVis to diffusers ("out" is
# conv_norm_out and conv_out, "time_embed" is time_embedding).
_BY_NAME: dict[str, Callable[[str, bool], bool]] = {
    "xattn": lambda name, text: text,
    "selfattn": lambda name, text: ".attn1." in name,
    "noxattn": lambda name, text: not text and not name.startswith((*_OUTPUT, *_TIME)),
    "notime": lambda name, text: not name.startswith((*_OUTPUT, *_TIME)),
    "full": _always,
    "cross-attention": lambda name, text: text,
    "unet": _always,
}

# By the name of a linear layer or convolution: ESD's code of 2024, which leaves every norm alone.
_BY_MODULE: dict[str, Callable[[str, bool], bool]] = {
    "esd-x": lambda name, text: text,
    "esd-x-strict": lambda name, text: text,  # of these, keys and values alone: see `_keys_and_values`
    "esd-u": lambda name, text: not text,
    "esd-all": _always,
}

GROUPS = (*_BY_MODULE, *_BY_NAME)
"""The names :func:`select_group` knows."""


def select_group(denoiser: nn.Module, group: str, *, layers: Collection[str]) -> ParameterSelection:
    """Pick a denoiser's parameters by the name of their group.

    ====================  ==========================================================================================
    group                 parameters
    ====================  ==========================================================================================
    ``esd-x``             linear layers and convolutions of cross-attention (ESD, 2024)
    ``esd-x-strict``      its keys and values
    ``esd-u``             all other linear layers and convolutions, time embedding and outer convolutions included
    ``esd-all``           all linear layers and convolutions
    ``xattn``             everything in cross-attention (ESD, 2023)
    ``noxattn``           everything but cross-attention, output and time embedding (the paper's ESD-u)
    ``selfattn``          everything in self-attention
    ``notime``            everything but output and time embedding
    ``full``, ``unet``    everything
    ``cross-attention``   the same as ``xattn``
    ====================  ==========================================================================================

    Where there is no cross-attention, joint attention of image and text takes its place, and the keys and values are
    those of the text (`aizheimer.modules.parameters.part_paths`).

    Args:
        denoiser: The network.
        group: One of the names above.
        layers: Names of the modules that attend to text, as the backbone's ``attention_modules`` gives.

    Returns:
        The names of the parameters, in the denoiser's order.

    Raises:
        SelectorError: If the group is unknown or the denoiser has none of its parameters.
    """
    if group in _BY_MODULE:
        chosen, strict = _BY_MODULE[group], _keys_and_values(denoiser, layers) if group == "esd-x-strict" else None
        names = [
            f"{module_name}.{name}"
            for module_name, module in denoiser.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
            and chosen(module_name, _is_in(module_name, layers))
            and (strict is None or module_name in strict)
            for name, _ in module.named_parameters(recurse=False)
        ]
    elif group in _BY_NAME:
        names = [name for name, _ in denoiser.named_parameters() if _BY_NAME[group](name, _is_in(name, layers))]
    else:
        raise SelectorError(f"group: got {group!r}, wanted one of {', '.join(GROUPS)}.{did_you_mean(group, GROUPS)}")
    if not names:
        raise SelectorError(
            f"group {group!r} selects no parameter of this denoiser; choose another of {', '.join(GROUPS)}."
        )
    return ParameterSelection(tuple(names))


def _is_in(name: str, layers: Collection[str]) -> bool:
    """Whether a module or parameter is part of one of the layers."""
    return any(name.startswith(f"{layer}.") for layer in layers)


def _keys_and_values(denoiser: nn.Module, layers: Collection[str]) -> set[str]:
    """Return the names of the text's key and value projections."""
    paths = {layer: part_paths(denoiser.get_submodule(layer)) for layer in layers}
    return {f"{layer}.{own[part]}" for layer, own in paths.items() for part in ("k", "v")}
