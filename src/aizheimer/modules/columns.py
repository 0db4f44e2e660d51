r"""Chosen columns of an attention matrix, without the matrix.

With :math:`P = \operatorname{softmax}(Q K^\top / \sqrt d)`, column :math:`j` of :math:`P` is :math:`P e_j`, where
:math:`e_j` is the one-hot vector of token :math:`j`. So attention over values that carry a few one-hot columns more,

.. math:: P\,[V \mid e_{j_1} \dots e_{j_n}] = [P V \mid P_{:, j_1} \dots P_{:, j_n}],

gives the ordinary output and the wanted columns in one call of a fused kernel, which never stores :math:`P`. The result
is exact (a weighted sum with one weight that is not zero) and differentiable in :math:`Q` and :math:`K`.

Against few keys on a CPU the matrix is made after all, in blocks that fit its cache, for that is faster there
(:mod:`aizheimer.modules.few_keys`); what follows is of all other cases.

The trap: the fused kernels want queries, keys and values of the same width. Given wider values, PyTorch falls back to
the kernel that does store :math:`P`, and says nothing. Hence the padding in :func:`attend_with_columns`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from aizheimer.modules.few_keys import attend_few_keys, suits

_ALIGNMENT = 8
"""Widths the fused kernels like: CUDA's flash kernel pads to it anyway; on CPU 8 is as fast as 16 and faster than 1."""


def one_hot_columns(
    columns: Bool[Tensor, "batch tokens"],
) -> tuple[Bool[Tensor, "batch tokens n"], Bool[Tensor, "batch n"]]:
    """Turn marked tokens into one-hot columns, packed to the left.

    Args:
        columns: True where a token is wanted. Rows may mark different tokens, and different numbers of them.

    Returns:
        The one-hot columns, n being the largest number of marked tokens in a row, in the order of the tokens; and which
        of the n are real (the others are zero).

    Example:
        >>> one_hot, valid = one_hot_columns(torch.tensor([[False, True, True], [True, False, False]]))
        >>> one_hot.shape, valid.tolist()
        (torch.Size([2, 3, 2]), [[True, True], [True, False]])
    """
    counts = columns.sum(dim=1)
    places = torch.arange(int(counts.max()), device=columns.device)
    place_of_token = columns.cumsum(dim=1) - 1
    one_hot = (place_of_token[:, :, None] == places) & columns[:, :, None]
    return one_hot, places < counts[:, None]


def attend_with_columns(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch heads tokens dim"],
    *,
    value: Float[Tensor, "batch heads tokens value_dim"],
    one_hot: Float[Tensor, "batch tokens n"],
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Float[Tensor, "batch heads queries value_dim"], Float[Tensor, "batch heads queries n"]]:
    r"""Attend, and read chosen columns of the attention probabilities on the way.

    Queries and keys are padded with zeros, which leaves :math:`Q K^\top` as it is, to the width of the extended values,
    so that a fused kernel takes the call. A second call with only the one-hot columns as values would avoid the padding
    but repeats the softmax (``benchmarks/attention_probe.py`` measures both).

    The rule: few keys on a CPU go to :func:`~aizheimer.modules.few_keys.attend_few_keys`, unless there is a mask. Else
    pad, unless the columns asked for are more than half of all tokens. Then the answer is itself about as large as the
    full matrix, padding would about double the work, and the call goes out as it is: PyTorch chooses the kernel.

    Args:
        query: Queries.
        key: Keys.
        value: Values.
        one_hot: Columns to read, from :func:`one_hot_columns`; the same for all heads. A zero column reads zero.
        attn_mask: As in ``torch.nn.functional.scaled_dot_product_attention``.
        scale: Factor of the logits; None is 1 / sqrt(dim).

    Returns:
        The attention output, and the probabilities of the n columns. No gradient flows to ``one_hot``; one flows to
        ``value`` only if it requires it.
    """
    dim, value_dim, n = query.shape[-1], value.shape[-1], one_hot.shape[-1]
    scale = float(dim**-0.5 if scale is None else scale)
    one_hot = one_hot.to(value)
    if attn_mask is None and suits(query, key):
        return attend_few_keys(query, key, value=value, one_hot=one_hot, scale=scale)
    value = torch.cat([value, one_hot[:, None].expand(-1, value.shape[1], -1, -1)], dim=-1)
    if 2 * n <= key.shape[-2]:
        width = -(-max(dim, value_dim + n) // _ALIGNMENT) * _ALIGNMENT
        query, key, value = (F.pad(tensor, (0, width - tensor.shape[-1])) for tensor in (query, key, value))
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, scale=scale)
    # One split, not two slices: its backward is a single concatenation instead of two zero-filled copies and a sum.
    attended, probabilities, _ = output.split([value_dim, n, value.shape[-1] - value_dim - n], dim=-1)
    return attended, probabilities
