r"""Attention over few keys on a CPU, as in cross-attention, whose keys are the 77 tokens of a prompt.

PyTorch's fused kernel saves memory by never storing the matrix :math:`P`, and pays for it in its backward pass. Against
thousands of keys that is a bargain. Against 77 the matrix is hardly larger than the queries, and plain matrix products
are about as fast, in bfloat16 faster. Where :math:`P` is small it is kept; else it is computed anew in the backward
pass, block by block in the processor's cache, so that hardly more is stored than by the fused kernel.
``benchmarks/attention_probe.py`` measures both in float32.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

MOST_KEYS = 256
"""With more keys than these the fused kernel is asked."""

KEPT_BYTES = 2 * 2**20
"""A matrix of up to so many bytes is kept for the backward pass: beside a layer's other tensors it does not count."""

_BLOCK_BYTES = 3 * 2**19
"""What a block of a larger matrix may have; some megabytes are what a core has of cache."""


def suits(query: Tensor, key: Tensor) -> bool:
    """Return whether :func:`attend_few_keys` is the faster way for these."""
    return query.device.type == "cpu" and key.shape[-2] <= MOST_KEYS


def attend_few_keys(
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch heads tokens dim"],
    *,
    value: Float[Tensor, "batch heads tokens value_dim"],
    one_hot: Float[Tensor, "batch tokens n"],
    scale: float,
) -> tuple[Float[Tensor, "batch heads queries value_dim"], Float[Tensor, "batch heads queries n"]]:
    r"""Return :math:`P V` and :math:`P E` with :math:`P = \operatorname{softmax}(s\, Q K^\top)`, with first gradients.

    Under autocast it computes in autocast's format, as ``scaled_dot_product_attention`` does.

    Args:
        query: Queries.
        key: Keys.
        value: Values, as wide as one likes.
        one_hot: E, the columns to read, the same for all heads. No gradient flows to it.
        scale: Factor of the logits, s.
    """
    inputs = [query, key, value, one_hot.detach()]
    if torch.is_autocast_enabled("cpu"):
        inputs = [tensor.to(torch.get_autocast_dtype("cpu")) for tensor in inputs]
    return cast(tuple[Tensor, Tensor], _FewKeys.apply(*inputs, scale))


class _FewKeys(torch.autograd.Function):
    """The matrix in blocks of queries; one block, which is kept, if it is small."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, one_hot: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Attend, and read the columns as values beside the others."""
        ctx.scale, ctx.rows, ctx.width = scale, _rows(query, key), value.shape[-1]
        ctx.set_materialize_grads(False)
        q, k, v = (tensor.flatten(0, 1) for tensor in (query, key, value))
        wide = torch.cat([v, one_hot.repeat_interleave(query.shape[1], dim=0)], dim=-1)
        output, matrix = v.new_empty(*q.shape[:2], wide.shape[2]), q.new_empty(0)
        with torch.autocast("cpu", enabled=False):
            for block in _blocks(q.shape[1], ctx.rows):
                matrix = _matrix(q[:, block], k, scale)
                torch.bmm(matrix, wide, out=output[:, block])
        ctx.save_for_backward(query, key, wide, *([matrix] if ctx.rows == q.shape[1] else []))
        output = output.unflatten(0, query.shape[:2])
        return output[..., : ctx.width], output[..., ctx.width :]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_output: Tensor | None, of_columns: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        r"""Return the gradients; those of the logits are :math:`P (A - \sum_j P_j A_j)`, A being those of P."""
        query, key, wide, *kept = ctx.saved_tensors
        q, k = query.flatten(0, 1), key.flatten(0, 1)
        given = [(of_output, wide[..., : ctx.width]), (of_columns, wide[..., ctx.width :])]
        # Of P's two products those whose gradients there are, with what P was multiplied with.
        pairs = [(gradient.flatten(0, 1), part) for gradient, part in given if gradient is not None]
        if not pairs:
            return (None,) * 5
        gradients, factor = [gradient for gradient, _ in pairs], torch.cat([part for _, part in pairs], dim=-1)
        of_q, of_k, of_v = (
            tensor.new_zeros(tensor.shape) if needed else None
            for tensor, needed in zip((q, k, wide[..., : ctx.width]), ctx.needs_input_grad, strict=False)
        )
        with torch.autocast("cpu", enabled=False):
            for block in _blocks(q.shape[1], ctx.rows):
                matrix = kept[0] if kept else _matrix(q[:, block], k, ctx.scale)
                if of_v is not None and of_output is not None:
                    of_v.baddbmm_(matrix.transpose(1, 2), gradients[0][:, block])
                if of_q is None and of_k is None:
                    continue
                of_matrix = torch.bmm(torch.cat([g[:, block] for g in gradients], dim=-1), factor.transpose(1, 2))
                of_logits = torch.ops.aten._softmax_backward_data(of_matrix, matrix, -1, matrix.dtype)
                if of_q is not None:
                    torch.baddbmm(of_q[:, block], of_logits, k, beta=0, alpha=ctx.scale, out=of_q[:, block])
                if of_k is not None:
                    of_k.baddbmm_(of_logits.transpose(1, 2), q[:, block], alpha=ctx.scale)
        return (*(None if g is None else g.unflatten(0, query.shape[:2]) for g in (of_q, of_k, of_v)), None, None)


def _matrix(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Return the probabilities (batch, queries, tokens)."""
    return torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=scale).softmax(dim=-1)


def _rows(query: Tensor, key: Tensor) -> int:
    """Return how many queries a block has: all of them if the whole matrix may be kept."""
    queries, row = query.shape[-2], query.shape[:2].numel() * key.shape[-2] * query.element_size()
    return queries if queries * row <= KEPT_BYTES else max(1, _BLOCK_BYTES // row)


def _blocks(queries: int, rows: int) -> list[slice]:
    return [slice(begin, min(begin + rows, queries)) for begin in range(0, queries, rows)]
