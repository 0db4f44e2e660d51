r"""Attention to text from queries that are given: a layer without the network around it.

A cross-attention layer answers :math:`\operatorname{softmax}(q (W_k e)^\top / \sqrt d)\, W_v e`. The queries come from
the picture, keys and values from the text alone. So whoever changes only :math:`W_k` and :math:`W_v` needs the network
once, to see the queries; what the layer attends to and answers is then three products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from diffusers.models.attention_processor import AttnProcessor
from jaxtyping import Bool, Float
from torch import Tensor, nn

from aizheimer.modules.columns import attend_with_columns, one_hot_columns
from aizheimer.modules.maps import AttentionMap

Hear = Callable[[str, Tensor, int], Any]
"""Told a layer's name, the output (batch, queries, heads * size) of its query projection, and its number of heads."""


@contextmanager
def heard_queries(modules: Mapping[str, nn.Module], hear: Hear) -> Iterator[None]:
    """Listen to the query projections of attention modules while the denoiser runs.

    Args:
        modules: Attention modules by name, with ``to_q`` and ``heads``, as `Backbone.attention_modules` gives.
        hear: Called by every forward pass inside the block, layer by layer. The hooks are gone after it.
    """
    chosen: Mapping[str, Any] = modules
    handles = [module.to_q.register_forward_hook(_listener(name, hear, module)) for name, module in chosen.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _listener(layer: str, hear: Hear, attention: Any) -> Callable[..., None]:
    def listen(module: nn.Module, inputs: Sequence[Tensor], output: Tensor) -> None:
        del module, inputs
        hear(layer, output, int(attention.heads))

    return listen


def answer(
    attention: nn.Module,
    queries: Float[Tensor, "batch queries width"],
    text: Float[Tensor, "batch tokens dim"],
    *,
    columns: Bool[Tensor, "batch tokens"],
) -> tuple[Float[Tensor, "batch heads queries size"], AttentionMap]:
    """Return what a cross-attention layer answers to queries, before its output projection, and where it looked.

    It is what diffusers' plain processors compute, with gradients into keys and values.

    Args:
        attention: The layer.
        queries: Outputs of its query projection, as `heard_queries` tells them.
        text: Text rows, one prompt for each row of queries.
        columns: True at the target's tokens; rows without any take no part in means over the map.
    """
    module: Any = attention
    rows = module.norm_encoder_hidden_states(text) if module.norm_cross else text
    query, key, value = (
        part.unflatten(-1, (module.heads, -1)).transpose(1, 2)
        for part in (queries, module.to_k(rows), module.to_v(rows))
    )
    query = query if module.norm_q is None else module.norm_q(query)
    key = key if module.norm_k is None else module.norm_k(key)
    one_hot, valid = one_hot_columns(columns)
    # Of the two plain processors, only AttnProcessor honours the module's own scale.
    scale = module.scale if type(module.processor) is AttnProcessor else None
    attended, probabilities = attend_with_columns(query, key, value=value, one_hot=one_hot.to(value), scale=scale)
    return attended, AttentionMap(probabilities, valid)
