"""Ask the denoiser for a batch's predictions, each process for its own rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from aizheimer._row_shares import RowShares
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditioning, Conditions, as_conditioning
from aizheimer.modules.attention import attention_probe
from aizheimer.modules.columns import one_hot_columns
from aizheimer.modules.maps import AttentionMap


def predict(backbone: Backbone, x_t: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
    """Return the raw predictions of a batch, as `Backbone.predict` does; several processes share the work.

    Use it where nothing but the prediction is read of the forward pass. What a probe or an adapter records is of the
    rows that this process computed.

    Args:
        backbone: The network.
        x_t: (batch, channels, height, width).
        t: (batch,).
        conditions: One row for each.
    """
    shares = RowShares.of(len(x_t))
    if shares is None:
        return backbone.predict(x_t, t, conditions)
    return shares.whole(backbone.predict(shares.mine(x_t), shares.mine(t), own_conditions(shares, conditions)))


def probed_predictions(
    backbone: Backbone,
    layers: Sequence[str],
    *,
    inputs: Tensor,
    times: Tensor,
    conditions: Conditioning,
    marked: Tensor,
    groups: Sequence[int],
) -> tuple[Tensor, dict[str, AttentionMap]]:
    """Return a batch's raw predictions and the attention to marked tokens; several processes share the work.

    Args:
        backbone: The network.
        layers: Cross-attention modules to read.
        inputs: (batch, channels, height, width) noisy latents.
        times: (batch,) timesteps.
        conditions: One row for each.
        marked: (batch, tokens), True at the tokens to read; every row of the first group marks one.
        groups: Sizes of the parts that the batch is made of.
    """
    shares = RowShares.of(*groups)
    if shares is None:
        with attention_probe(backbone.denoiser, layers, marked) as probe:
            prediction = backbone.predict(inputs, times, conditions)
            probe.check()
        return prediction, probe.maps
    with attention_probe(backbone.denoiser, layers, shares.mine(marked)) as probe:
        own = backbone.predict(shares.mine(inputs), shares.mine(times), own_conditions(shares, conditions))
        probe.check()
    valid = one_hot_columns(marked)[1]
    maps = {layer: _whole_map(shares, seen.probabilities, valid) for layer, seen in probe.maps.items()}
    return shares.whole(own), maps


def _whole_map(shares: RowShares, probabilities: Tensor, valid: Tensor) -> AttentionMap:
    # The most tokens marked in a row may be fewer among this process's rows than in the batch.
    missing = valid.shape[1] - probabilities.shape[-1]
    return AttentionMap(shares.whole(F.pad(probabilities, (0, missing))), valid.to(probabilities.device))


def own_conditions(shares: RowShares, conditions: Conditions) -> Conditioning:
    """Return this process's rows of what the denoiser is told."""
    told = as_conditioning(conditions)
    return Conditioning(shares.mine(told.tokens), None if told.pooled is None else shares.mine(told.pooled))
