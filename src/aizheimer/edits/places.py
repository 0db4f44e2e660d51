"""Find where in a pipeline a tensor belongs that another program has named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from aizheimer.edits.lora_names import layers_by_name
from aizheimer.edits.original_layout import UNET, unet_key
from aizheimer.errors import EditError

_WRAPPERS = ("state_dict.", "module.", "model.", "params.", "_orig_mod.", "base_model.model.")
"""What training programs put before a network's own names."""
_ORIGINAL = ("model.diffusion_model.", "diffusion_model.")
_TEXT = (
    *("text_encoder.", "text_encoder_2.", "cond_stage_model.transformer.", "cond_stage_model.model."),
    *("transformer.", "text_model."),
)
_ELSEWHERE = (
    *("first_stage_model.", "vae.", "model_ema.", "safety_checker.", "optimizer", "lr_schedulers.", "loops."),
    *("betas", "alphas_cumprod", "sqrt_", "log_one_minus", "posterior_", "logvar", "lvlb_weights"),
)
"""Beginnings of what a checkpoint keeps besides the networks that an edit may change."""
_DOWN = (".lora_down.weight", ".lora_A.weight", ".lora_A.default.weight")
_UP = {
    ".lora_down.weight": ".lora_up.weight",
    ".lora_A.weight": ".lora_B.weight",
    ".lora_A.default.weight": ".lora_B.default.weight",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """Tensors of a file at their places in a pipeline.

    Args:
        values: New values by ``"<part>.<parameter>"``.
        products: Factors (down, up, scale) of changes by ``"<part>.<layer>"``: a LoRA's.
        matched: Names in the file that have a place.
        unmatched: Names that have none, each with the reason if it is another than being unknown.
        elsewhere: How many belong to what no edit changes: an autoencoder, an optimiser, a schedule.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    products: dict[str, tuple[Tensor, Tensor, float]] = field(default_factory=dict)
    matched: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    elsewhere: int = 0


def place(tensors: Mapping[str, Tensor], networks: Mapping[str, nn.Module]) -> Placed:
    """Find the place of every tensor.

    Understood are the networks' own names, with or without the part and a program's wrappers before them; the original
    layout of a UNet, converted by diffusers; LoRAs by kohya's names and PEFT's.

    Args:
        tensors: By name in the file.
        networks: The pipeline's, by part.
    """
    parameters = {
        f"{part}.{name}": value for part, network in networks.items() for name, value in network.named_parameters()
    }
    original = _converted(networks) if any(_original_name(name) for name in tensors) else {}
    loras, placed, elsewhere = _lora_names(tensors), Placed(), 0
    layers = layers_by_name(networks) if loras else {}
    for name in loras:
        _place_product(name, tensors, layers, parameters, placed)
    used = {other for name in loras for other in _lora_family(name)}
    for name, tensor in tensors.items():
        if name in used:
            continue
        if name.removeprefix("state_dict.").startswith(_ELSEWHERE) or name.endswith(("position_ids", ".logit_scale")):
            elsewhere += 1
            continue
        known = [spelt for spelt in _spellings(name, original) if spelt in parameters]
        # A name that two text encoders have is of the one that it fits.
        fitting = [spelt for spelt in known if _fitted(tensor, parameters[spelt]) is not None]
        target = next(iter(fitting or known), None)
        fitted = None if target is None else _fitted(tensor, parameters[target])
        if target is None:
            placed.unmatched.append(name)
        elif fitted is None:
            kind = "" if tensor.is_floating_point() and tensor.element_size() > 1 else f" of {tensor.dtype}"
            placed.unmatched.append(f"{name} (shape {_shape(tensor)}{kind}, here {_shape(parameters[target])})")
        else:
            placed.values[target] = fitted
            placed.matched.append(name)
    return Placed(
        values=placed.values,
        products=placed.products,
        matched=placed.matched,
        unmatched=placed.unmatched,
        elsewhere=elsewhere,
    )


def _spellings(name: str, original: Mapping[str, str]) -> Iterator[str]:
    """Yield what a name may mean, the likeliest first."""
    if known := original.get(_original_name(name)):
        yield f"unet.{known}"
    for bare in _unwrapped(name):
        yield bare
        yield f"unet.{bare}"
        own = bare
        while stripped := next((prefix for prefix in _TEXT if own.startswith(prefix)), None):
            own = own.removeprefix(stripped)
        # transformers dropped CLIP's prefix "text_model." at some time; files have it or not.
        of_second = "text_encoder_2." in bare
        for part in ("text_encoder_2", "text_encoder") if of_second else ("text_encoder", "text_encoder_2"):
            yield f"{part}.{own}"
            yield f"{part}.text_model.{own}"


def _unwrapped(name: str) -> Iterator[str]:
    yield name
    while wrapper := next((prefix for prefix in _WRAPPERS if name.startswith(prefix)), None):
        name = name.removeprefix(wrapper)
        yield name


def _original_name(name: str) -> str:
    """Return a UNet parameter's name within the original layout, "" if it is none of that layout."""
    for prefix in _ORIGINAL:
        _, found, rest = name.partition(prefix)
        if found and not name.startswith("model_ema."):
            return rest
    bare = list(_unwrapped(name))[-1]
    return bare if bare.startswith(("input_blocks.", "middle_block.", "output_blocks.")) else ""


def _converted(networks: Mapping[str, nn.Module]) -> dict[str, str]:
    """Return the UNet's own names by those of the original layout, by diffusers' conversion.

    That conversion counts blocks, so it wants a whole checkpoint; here it is given all the names, so that a part of one
    is understood too.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    unet: Any = networks["unet"]
    try:
        names = [unet_key(name, unet.config) for name, _ in unet.named_parameters()]
    except (EditError, KeyError):
        return {}
    table = convert_ldm_unet_checkpoint({UNET + name: name for name in names}, unet.config)
    return {original: own for own, original in table.items()}


def _lora_names(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of all "down" factors that have an "up"."""
    found = []
    for name in tensors:
        suffix = next((suffix for suffix in _DOWN if name.endswith(suffix)), None)
        if suffix is not None and name.removesuffix(suffix) + _UP[suffix] in tensors:
            found.append(name)
    return found


def _lora_family(down: str) -> tuple[str, str, str]:
    """Return the names of a "down" factor, of its "up" and of its alpha."""
    suffix = next(suffix for suffix in _DOWN if down.endswith(suffix))
    stem = down.removesuffix(suffix)
    return down, stem + _UP[suffix], f"{stem}.alpha"


def _place_product(
    name: str,
    tensors: Mapping[str, Tensor],
    layers: Mapping[str, str],
    parameters: Mapping[str, Tensor],
    placed: Placed,
) -> None:
    _, up_name, alpha_name = _lora_family(name)
    stem = alpha_name.removesuffix(".alpha")
    layer = next((layers[bare] for bare in _unwrapped(stem) if bare in layers), None)
    down, up = tensors[name], tensors[up_name]
    family = [known for known in (name, up_name, alpha_name) if known in tensors]
    if layer is None:
        placed.unmatched.extend(family)
        return
    weight = parameters[f"{layer}.weight"]
    if not _are_factors(down, up, weight):
        placed.unmatched.append(f"{stem} (factors {_shape(up)} and {_shape(down)}, here {_shape(weight)})")
        return
    if (scale := tensors.get(alpha_name)) is not None and scale.numel() != 1:
        placed.unmatched.append(f"{stem} (its alpha has the shape {_shape(scale)}, wanted one number)")
        return
    rank = len(down)
    alpha = float(scale) if scale is not None else float(rank)
    placed.products[layer] = (down.float(), up.float(), alpha / rank)
    placed.matched.extend(family)


def _are_factors(down: Tensor, up: Tensor, weight: Tensor) -> bool:
    """Whether two tensors are numbers whose product has a weight's size; their rank is 1 or more."""
    if min(down.dim(), up.dim()) < 2 or not down.is_floating_point() or not up.is_floating_point():
        return False
    rank = len(down)
    fits = up.numel() == rank * len(up) and len(up) == len(weight)
    return rank > 0 and fits and len(up) * (down.numel() // rank) == weight.numel()


def _fitted(tensor: Tensor, parameter: Tensor) -> Tensor | None:
    """Return a tensor in a parameter's shape; a 1 x 1 convolution and a linear layer hold the same numbers.

    Whole numbers and floats of one byte are no weights that anybody trained: None, as for another shape.
    """
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        return None
    if tensor.shape == parameter.shape:
        return tensor
    ones = [[size for size in one.shape if size != 1] for one in (tensor, parameter)]
    return tensor.reshape(parameter.shape) if ones[0] == ones[1] else None


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
