"""Watch where a denoiser's attention to text looks, while it runs as usual.

:func:`attention_probe` puts a reading processor on chosen modules: cross-attention of a UNet, or joint attention of a
transformer, where image and text attend to each other and of all probabilities those of image queries and text keys
are read. The module's own processor still
does the work: the only thing that changes is the one call of ``scaled_dot_product_attention`` inside it, which also
returns the probabilities of the target tokens (:mod:`aizheimer.modules.columns`). So whatever diffusers does before and
after (group norm, cross norm, masks, residual connection, rescaling, adapters around the linear layers) stays its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from jaxtyping import Bool
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from aizheimer.errors import AizheimerError, SelectorError, did_you_mean
from aizheimer.modules.columns import attend_with_columns, one_hot_columns
from aizheimer.modules.maps import AttentionMap, heatmap, mass

Layout = Literal["cross", "image first", "text first"]
"""Whose keys a module attends to: text alone, or image and text together, in this order."""

_JOINT: dict[str, Layout] = {
    "JointAttnProcessor2_0": "image first",  # Stable Diffusion 3
    "FluxAttnProcessor": "text first",
    "FluxAttnProcessor2_0": "text first",  # its name until diffusers 0.35
}
"""Processors of joint attention that call ``scaled_dot_product_attention`` once, by class name."""

__all__ = ["AttentionMap", "AttentionProbe", "attention_probe", "heatmap", "mass"]


class AttentionProbe:
    """Collects the attention maps of the latest forward pass; made by :func:`attention_probe`.

    Attributes:
        layers: Names of the watched modules.
        maps: Attention map by layer, in the order in which the layers ran. A later forward overwrites, so recomputation
            (gradient checkpointing) does not add a second map for the same layer.
        guidance: True if forward batches are [unconditional; conditional]; then only the second half is read, and
            ``columns`` has as many rows as that half.
        skip_others: True if batches of another size than ``columns`` pass unread, not refused.
    """

    def __init__(
        self,
        layers: Sequence[str],
        columns: Bool[Tensor, "batch tokens"],
        *,
        guidance: bool = False,
        skip_others: bool = False,
    ) -> None:
        self.layers = tuple(layers)
        self.maps: dict[str, AttentionMap] = {}
        self.guidance = guidance
        self.skip_others = skip_others
        self.columns = columns
        self._maps_only = False
        self._text_rows: int | None = None

    @property
    def columns(self) -> Bool[Tensor, "batch tokens"]:
        """Which tokens of which prompt are the target. Set it before the forward of another batch.

        Rows may mark different numbers of tokens. A row that marks none is a prompt without the target: it runs along
        and takes no part in any mean.

        Raises:
            SelectorError: On setting something else than a boolean (batch, tokens) tensor with a marked token.
        """
        return self._columns

    @columns.setter
    def columns(self, columns: Tensor) -> None:
        if columns.dtype != torch.bool or columns.ndim != 2:
            raise SelectorError(
                f"Attention columns are {columns.dtype} of shape {tuple(columns.shape)}; "
                "wanted torch.bool of shape (batch, tokens), as the backbone's token_columns gives."
            )
        if not columns.any():
            raise SelectorError("Attention columns mark no token in any row; mark the target's tokens with True.")
        self._columns = columns
        self._one_hot, self._valid = one_hot_columns(columns)

    def reset(self) -> None:
        """Forget the maps, and with them the autograd graph that they hold."""
        self.maps.clear()

    def read(self, forward: Callable[[], Any]) -> None:
        """Run a forward pass as far as the last watched module: for whoever wants the maps and not the output.

        Maps and their gradients are those of the whole pass. Blocks that are recomputed in the backward pass run to the
        end, since they would have to end twice.

        Args:
            forward: Calls the denoiser; it does not come back from the last watched module.
        """
        self.reset()
        self._maps_only = True
        try:
            forward()
        except _AllRead:
            pass
        finally:
            self._maps_only = False

    def check(self) -> None:
        """Make sure that every watched module has reported since the last reset.

        Raises:
            AizheimerError: If one has not: its processor was replaced meanwhile, or the denoiser never called it.
        """
        silent = [layer for layer in self.layers if layer not in self.maps]
        if silent:
            raise AizheimerError(
                f"{len(self.maps)} of {len(self.layers)} watched attention modules reported; silent: "
                f"{', '.join(silent)}. Run a forward pass first, and change attention processors (xformers, slicing) "
                "before the probe is installed, not inside it."
            )

    def _note_text(self, _denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep how many rows of text the denoiser is called with: a block of one stream cannot tell."""
        self._text_rows = _rows_of_text(args, kwargs)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        *,
        layer: str,
        scale: float | None,
        layout: Layout = "cross",
        tokens: int | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Stand in for ``scaled_dot_product_attention`` inside ``layer`` and keep the target's columns."""
        if dropout_p or is_causal or enable_gqa:
            raise AizheimerError(
                f"{layer} attends with dropout, causally or in groups; the probe reads plain attention only."
            )
        read = key.shape[2] if layout == "cross" else tokens or self._one_hot.shape[1]
        image = key.shape[2] - read
        one_hot = _among_image_tokens(self._one_hot, image, layout).to(key)
        if self.guidance:
            one_hot = torch.cat([torch.zeros_like(one_hot), one_hot])
        if self.skip_others and len(one_hot) != len(key):
            return F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, scale=scale)
        if one_hot.shape[:2] != (key.shape[0], key.shape[2]):
            raise SelectorError(
                f"{layer} attends over {key.shape[0]} prompts x {read} tokens, but the probe's columns are for "
                f"{one_hot.shape[0]} x {self._one_hot.shape[1]}{' (guidance: both halves)' if self.guidance else ''}; "
                "set probe.columns to those of this batch."
            )
        output, probabilities = attend_with_columns(
            query, key, value=value, one_hot=one_hot, attn_mask=attn_mask, scale=scale
        )
        if self.guidance:
            probabilities = probabilities.chunk(2)[1]
        if layout != "cross":
            probabilities = probabilities[:, :, :image] if layout == "image first" else probabilities[:, :, -image:]
        self.maps[layer] = AttentionMap(probabilities, self._valid.to(probabilities.device))
        if self._maps_only and len(self.maps) == len(self.layers):
            raise _AllRead
        return output


class _AllRead(Exception):
    """No error, but the way out of a forward pass: every watched module has reported."""


def _among_image_tokens(one_hot: Tensor, image: int, layout: Layout) -> Tensor:
    """Return one-hot columns (batch, tokens, n) over all keys: zeros at the image's, before or after the text's."""
    if image == 0:
        return one_hot
    return F.pad(one_hot, (0, 0, image, 0) if layout == "image first" else (0, 0, 0, image))


class _ReplaceAttention(TorchFunctionMode):
    """Route ``scaled_dot_product_attention`` to ``attend`` while active; everything else passes."""

    def __init__(self, attend: Callable[..., Tensor]) -> None:
        super().__init__()
        self._attend = attend

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # PyTorch switches the mode off in here: the real attention that `attend` calls is not caught again.
        call = self._attend if func is F.scaled_dot_product_attention else func
        return call(*args, **(kwargs or {}))


class _ProbedProcessor:
    """A module's processor, with its attention read by a probe."""

    def __init__(self, probe: AttentionProbe, layer: str, original: AttnProcessor | AttnProcessor2_0) -> None:
        self._probe = probe
        self._layer = layer
        self._explicit = type(original) is AttnProcessor
        # AttnProcessor is the same computation with the matrix written out; its fused twin takes its place.
        self._processor = AttnProcessor2_0() if self._explicit else original

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        # Of the two, only AttnProcessor honours the module's own scale.
        scale = attn.scale if self._explicit else None
        with _ReplaceAttention(partial(self._probe._attend, layer=self._layer, scale=scale)):
            return self._processor(attn, hidden_states, encoder_hidden_states, attention_mask, temb, *args, **kwargs)


def _rows_of_text(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int | None:
    """Return the number of rows of text that a joint block or transformer is given beside the image's, if any."""
    text = kwargs.get("encoder_hidden_states", args[1] if len(args) > 1 else None)
    return text.shape[1] if isinstance(text, Tensor) and text.ndim == 3 else None  # a UNet's second is the timestep


class _ProbedJointProcessor:
    """A joint-attention module's processor, with its attention read by a probe."""

    def __init__(self, probe: AttentionProbe, layer: str, original: Any, layout: Layout) -> None:
        self._probe, self._layer, self._processor = probe, layer, original
        self._layout: Layout = layout

    def __call__(self, attn: nn.Module, *args: Any, **kwargs: Any) -> Any:
        # A block of one stream is given image and text as one; where the text ends is known from the denoiser's call.
        tokens = _rows_of_text(args, kwargs) or self._probe._text_rows
        layout: Layout = self._layout
        attend = partial(self._probe._attend, layer=self._layer, scale=None, layout=layout, tokens=tokens)
        with _ReplaceAttention(attend):
            return self._processor(attn, *args, **kwargs)


@contextmanager
def attention_probe(
    denoiser: nn.Module,
    layers: Sequence[str],
    columns: Bool[Tensor, "batch tokens"],
    *,
    guidance: bool = False,
    skip_others: bool = False,
) -> Iterator[AttentionProbe]:
    """Read the attention probabilities of the target's tokens during every forward pass in the block.

    The denoiser's output is what it is without the probe (to rounding), the maps are part of the autograd graph, and
    the full attention matrix is not stored (:func:`~aizheimer.modules.columns.attend_with_columns` says when it is). On
    leaving, by whatever way, every module has the very processor it had.

    With gradient checkpointing, call ``backward`` inside the block: the recomputation must run the same processors.

    Args:
        denoiser: The network, for instance ``pipe.unet``.
        layers: Names of the modules to watch, as the backbone's ``attention_modules`` gives.
        columns: True at the target's tokens, (batch, tokens). See :attr:`AttentionProbe.columns`.
        guidance: The forward batches are [unconditional; conditional], as under classifier-free guidance.
        skip_others: Let batches of another size pass unread. A hook that is on the pipeline may ask the denoiser for
            more than the pipeline does; without this such a batch is refused.

    Yields:
        The probe; its ``maps`` are filled by each forward.

    Raises:
        SelectorError: If a layer does not exist, does not attend to text, or has a processor other than diffusers' own
            plain ones (replacing an IP-Adapter's would silently change the model).

    Example:
        >>> with attention_probe(pipe.unet, layers, columns) as probe:  # doctest: +SKIP
        ...     pipe.unet(latents, timestep, embeddings)
        ...     probe.check()
        ...     loss = resteering(probe.maps, variant="paper").total
    """
    all_modules = dict(denoiser.named_modules())
    modules: dict[str, Any] = {layer: _readable(all_modules, layer) for layer in layers}
    if not modules:
        raise SelectorError("The attention probe got no layers; name at least one cross-attention module.")
    probe = AttentionProbe(list(modules), columns, guidance=guidance, skip_others=skip_others)
    originals = {layer: module.processor for layer, module in modules.items()}
    listening = denoiser.register_forward_pre_hook(probe._note_text, with_kwargs=True)
    try:
        for layer, module in modules.items():
            module.set_processor(_probed(probe, layer, originals[layer]))
        yield probe
    finally:
        listening.remove()
        for layer, module in modules.items():
            module.set_processor(originals[layer])


def _probed(probe: AttentionProbe, layer: str, original: Any) -> Any:
    layout = _JOINT.get(type(original).__name__)
    if layout is not None:
        return _ProbedJointProcessor(probe, layer, original, layout)
    return _ProbedProcessor(probe, layer, original)


def _attends_to_text(module: nn.Module | None) -> bool:
    """Whether a module is cross-attention, or joint attention of image and text."""
    if isinstance(module, Attention) and module.is_cross_attention:
        return True
    if type(getattr(module, "processor", None)).__name__ not in _JOINT:
        return False
    # Stable Diffusion 3.5's second attention has the same processor and no text; Flux's single blocks have both.
    return getattr(module, "add_k_proj", None) is not None or getattr(module, "pre_only", False)


def _readable(modules: Mapping[str, nn.Module], layer: str) -> nn.Module:
    """Return the module called ``layer`` if the probe can read it."""
    module = modules.get(layer)
    joint = getattr(module, "add_k_proj", None) is not None or getattr(module, "pre_only", False)
    if module is None or not (joint or _attends_to_text(module)):
        found = "does not exist" if module is None else f"is {type(module).__name__} without cross-attention"
        known = [name for name, other in modules.items() if _attends_to_text(other)]
        raise SelectorError(
            f"Layer '{layer}' {found}; wanted one of the denoiser's {len(known)} cross-attention modules."
            f"{did_you_mean(layer, known)}"
        )
    processor: Any = module.processor
    if type(processor) not in (AttnProcessor, AttnProcessor2_0) and type(processor).__name__ not in _JOINT:
        wanted = "its own plain processor" if joint else "AttnProcessor2_0"
        raise SelectorError(
            f"Layer '{layer}' has the processor {type(processor).__name__}, which the probe would lose; wanted "
            f"{wanted}. Undo what set it (unload the IP-Adapter, turn slicing or xformers off), or call "
            "denoiser.set_attn_processor(AttnProcessor2_0())."
        )
    return module
