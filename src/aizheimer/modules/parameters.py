"""Choose which layers and parameters of a denoiser an edit may change, and hold everything else still."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import Parameter

from aizheimer.errors import SelectorError, did_you_mean

Part = Literal["q", "k", "v", "out"]

LAYER_PRESETS = ("all", "skip_ends", "notebook")
"""Words that :func:`select_layers` understands besides names and regular expressions."""

PARTS: dict[str, str] = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
"""Short name of each projection of an attention module, and where diffusers keeps it."""

_TEXT_STREAM = {"k": "add_k_proj", "v": "add_v_proj"}


def part_paths(module: nn.Module) -> dict[str, str]:
    """Return where an attention module keeps each projection, by its short name.

    Keys and values are those of the *text*: in cross-attention ``to_k`` and ``to_v``, in a joint block of two streams
    the text stream's ``add_k_proj`` and ``add_v_proj``. A block of one stream (Flux) has the same ``to_k`` and ``to_v``
    for image and text, and no output projection of its own. Queries and output are the image's.
    """
    if getattr(module, "add_k_proj", None) is not None:
        return PARTS | _TEXT_STREAM
    return PARTS if hasattr(module, "to_out") else {part: path for part, path in PARTS.items() if part != "out"}


def select_layers(names: Sequence[str], layers: str | Sequence[str]) -> list[str]:
    """Pick cross-attention layers.

    Args:
        names: The layers that there are, in execution order (down, mid, up), as the backbone's attention_modules gives.
        layers: One of

            - ``"all"``.
            - ``"skip_ends"``: all but the first and the last in execution order.
            - ``"notebook"``: all but the first and the last in the order of ``named_modules``, where the mid block
              comes after the up blocks: so the first and the *mid block's*. It is what AIzheimer's notebook skipped.
            - a list of names.
            - one name, or a regular expression that is searched for anywhere in the name (``"up_blocks"``,
              ``"^mid|up_blocks.1"``).

    Returns:
        The chosen names, in execution order, each once.

    Raises:
        SelectorError: If nothing is chosen, a name is unknown, or there are no layers at all.

    Example:
        >>> select_layers(["down.attn2", "mid.attn2", "up.attn2"], "skip_ends")
        ['mid.attn2']
    """
    if not names:
        raise SelectorError("this denoiser has no cross-attention layers to choose from; take a method without layers.")
    if not isinstance(layers, str):
        chosen = _known(layers, names)
    elif layers == "all":
        chosen = set(names)
    elif layers == "skip_ends":
        chosen = set(names[1:-1])
    elif layers == "notebook":
        chosen = set(sorted(names, key=lambda name: name.startswith("mid_block"))[1:-1])
    else:
        chosen = {layers} if layers in names else _matching(layers, names)
    if not chosen:
        near = did_you_mean(layers, [*LAYER_PRESETS, *names]) if isinstance(layers, str) else ""
        raise SelectorError(f"layers={layers!r} selects none of the {len(names)} layers: {', '.join(names)}.{near}")
    return [name for name in dict.fromkeys(names) if name in chosen]


def _known(wanted: Sequence[str], names: Sequence[str]) -> set[str]:
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise SelectorError(
            f"layers: no layer is called {', '.join(map(repr, unknown))}; there are {', '.join(names)}."
            f"{did_you_mean(unknown[0], names)}"
        )
    return set(wanted)


def _matching(pattern: str, names: Sequence[str]) -> set[str]:
    try:
        # The empty pattern is found in every name, but whoever gives nothing has not asked for everything.
        return {name for name in names if pattern and re.search(pattern, name)}
    except re.error as error:
        raise SelectorError(
            f"layers={pattern!r} is neither {', '.join(LAYER_PRESETS)} nor a regular expression: {error}."
        ) from error


@dataclass(frozen=True)
class ParameterSelection:
    """Names of trainable parameters, relative to the denoiser."""

    names: tuple[str, ...]

    def parameters(self, denoiser: nn.Module) -> dict[str, Parameter]:
        """Look the parameters up in a denoiser.

        Raises:
            SelectorError: If the denoiser has no such parameter.
        """
        return _parameters(denoiser, self.names)


def select_parameters(denoiser: nn.Module, layers: Sequence[str], parts: Sequence[str]) -> ParameterSelection:
    """Pick projections of attention layers; weights and biases, and adapters around them.

    Where each is, in cross-attention and in joint attention, says `part_paths`.

    Args:
        denoiser: The network that holds the layers.
        layers: Names of attention modules.
        parts: Any of ``"q"``, ``"k"``, ``"v"``, ``"out"``.

    Returns:
        The selection, layer by layer in the order given, q, k, v, out in each. The order of ``parts`` does not matter.

    Raises:
        SelectorError: If a part or layer is unknown, or nothing is selected.

    Example:
        >>> select_parameters(pipe.unet, layers, ["k"]).names[0]  # doctest: +SKIP
        'down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight'
    """
    for part in parts:
        if part not in PARTS:
            raise SelectorError(f"parts: '{part}' is unknown; wanted any of {', '.join(PARTS)}.")
    names: list[str] = []
    wanted = [part for part in PARTS if part in parts]
    for layer in dict.fromkeys(layers) if wanted else ():
        paths = part_paths(_module(denoiser, layer, part=wanted[0]))
        for part in wanted:
            if part not in paths:
                raise SelectorError(
                    f"parts: '{layer}' has no '{part}' of its own: a block of one stream mixes it with its "
                    f"feed-forward; leave {part} out, or choose layers of two streams (layers='^transformer_blocks')."
                )
            names += _projection(denoiser, f"{layer}.{paths[part]}")
    if not names:
        raise SelectorError(
            f"layers {list(layers)} and parts {list(parts)} select no parameter; give at least one of each "
            f"(parts: {', '.join(PARTS)})."
        )
    return ParameterSelection(tuple(names))


def _module(denoiser: nn.Module, layer: str, *, part: str) -> nn.Module:
    try:
        return denoiser.get_submodule(layer)
    except AttributeError as error:
        raise SelectorError(f"The denoiser has no projection '{layer}.{PARTS[part]}': {error}.") from error


def _projection(denoiser: nn.Module, path: str) -> list[str]:
    try:
        module = denoiser.get_submodule(path)
    except AttributeError as error:
        raise SelectorError(f"The denoiser has no projection '{path}': {error}.") from error
    return [f"{path}.{name}" for name, _ in module.named_parameters()]


@contextmanager
def trainable(denoiser: nn.Module, selection: ParameterSelection) -> Iterator[dict[str, Parameter]]:
    """Let gradients reach the selected parameters and nothing else.

    Frozen parameters cost neither gradient memory nor the work of their gradients. On leaving, every ``requires_grad``
    flag and the selected parameters' ``grad`` are what they were; changed values stay.

    Args:
        denoiser: The network.
        selection: What may be trained.

    Yields:
        Name to parameter, in the order of the selection. A dict: it can be walked more than once.
    """
    chosen = selection.parameters(denoiser)
    flags = [(parameter, parameter.requires_grad) for parameter in denoiser.parameters()]
    gradients = [(parameter, parameter.grad) for parameter in chosen.values()]
    try:
        denoiser.requires_grad_(False)
        for parameter in chosen.values():
            parameter.grad = None
            parameter.requires_grad_(True)
        yield chosen
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for parameter, gradient in gradients:
            parameter.grad = gradient


@contextmanager
def swapped(denoiser: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Run with other values in some parameters, then put the old ones back, bit for bit.

    For instance the teacher's values while the student is trained. Only storage is exchanged, nothing is copied unless
    dtype or device differ, and an autograd graph that was built before the block still goes backward after it
    (copying into the parameters would invalidate it). Do not call ``backward`` on such a graph, or change the
    parameters in place, inside the block.

    Args:
        denoiser: The network.
        tensors: Parameter name to value. They are used as they are: read-only, please.

    Raises:
        SelectorError: If a name is unknown or a shape does not fit.
    """
    parameters = _parameters(denoiser, tensors)
    for name, parameter in parameters.items():
        if parameter.shape != tensors[name].shape:
            raise SelectorError(
                f"Parameter '{name}' has shape {tuple(parameter.shape)}, the other value {tuple(tensors[name].shape)}; "
                "swap in tensors of the same model."
            )
    originals = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = tensors[name].detach().to(parameter)
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = originals[name]


def _parameters(denoiser: nn.Module, names: Sequence[str] | Mapping[str, Tensor]) -> dict[str, Parameter]:
    known = dict(denoiser.named_parameters())
    for name in names:
        if name not in known:
            raise SelectorError(f"The denoiser has no parameter '{name}'.{did_you_mean(name, known)}")
    return {name: known[name] for name in names}
