"""Groups of a denoiser's parameters by the names that papers give them."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from aizheimer.errors import SelectorError, did_you_mean
from aizheimer.modules.parameters import ParameterSelection

_OUTPUT = ("conv_norm_out.", "conv_out.")
_TIME = "time_embedding."


def _always(name: str) -> bool:
    return True


# By the name of any parameter: ESD's code of 2023, its names carried over from CompVis to diffusers ("out" is
# conv_norm_out and conv_out, "time_embed" is time_embedding).
_BY_NAME: dict[str, Callable[[str], bool]] = {
    "xattn": lambda name: ".attn2." in name,
    "selfattn": lambda name: ".attn1." in name,
    "noxattn": lambda name: ".attn2." not in name and not name.startswith((*_OUTPUT, _TIME)),
    "notime": lambda name: not name.startswith((*_OUTPUT, _TIME)),
    "full": _always,
    "cross-attention": lambda name: ".attn2." in name,
    "unet": _always,
}

# By the name of a linear layer or convolution: ESD's code of 2024, which leaves every norm alone.
_BY_MODULE: dict[str, Callable[[str], bool]] = {
    "esd-x": lambda name: ".attn2." in name,
    "esd-x-strict": lambda name: name.endswith((".attn2.to_k", ".attn2.to_v")),
    "esd-u": lambda name: ".attn2." not in name,
    "esd-all": _always,
}

GROUPS = (*_BY_MODULE, *_BY_NAME)
"""The names :func:`select_group` knows."""


def select_group(denoiser: nn.Module, group: str) -> ParameterSelection:
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

    Args:
        denoiser: The network.
        group: One of the names above.

    Returns:
        The names of the parameters, in the denoiser's order.

    Raises:
        SelectorError: If the group is unknown or the denoiser has none of its parameters.
    """
    if group in _BY_MODULE:
        chosen = _BY_MODULE[group]
        names = [
            f"{module_name}.{name}"
            for module_name, module in denoiser.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d) and chosen(module_name)
            for name, _ in module.named_parameters(recurse=False)
        ]
    elif group in _BY_NAME:
        names = [name for name, _ in denoiser.named_parameters() if _BY_NAME[group](name)]
    else:
        raise SelectorError(f"group: got {group!r}, wanted one of {', '.join(GROUPS)}.{did_you_mean(group, GROUPS)}")
    if not names:
        raise SelectorError(
            f"group {group!r} selects no parameter of this denoiser; choose another of {', '.join(GROUPS)}."
        )
    return ParameterSelection(tuple(names))
