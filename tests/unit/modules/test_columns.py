"""Columns of the attention matrix, read through a fused kernel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from aizheimer.modules import columns as columns_module
from aizheimer.modules.columns import attend_with_columns, one_hot_columns

BATCH, HEADS, QUERIES, TOKENS, DIM = 2, 3, 19, 40, 8


@pytest.fixture(params=["fused", "few keys"])
def kernel(request, monkeypatch):
    """Whether PyTorch's fused kernel is asked, as on a GPU or for many keys, or ours for few keys on a CPU."""
    if request.param == "fused":
        monkeypatch.setattr(columns_module, "suits", lambda *_: False)


def random_attention(generator: torch.Generator, *, dtype=torch.float32, requires_grad=False):
    shapes = [(BATCH, HEADS, length, DIM) for length in (QUERIES, TOKENS, TOKENS)]
    tensors = [2 * torch.randn(shape, generator=generator) for shape in shapes]
    return [tensor.to(dtype).requires_grad_(requires_grad) for tensor in tensors]


def explicit(query, key, value, *, columns, attn_mask=None, scale=None):
    """The attention output and the marked columns, from the matrix written out; one row of the batch at a time."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    logits = query @ key.transpose(-1, -2) * scale
    probabilities = (logits if attn_mask is None else logits + attn_mask).softmax(dim=-1)
    picked = [matrix[:, :, marked] for matrix, marked in zip(probabilities, columns, strict=True)]
    width = max(part.shape[-1] for part in picked)
    return probabilities @ value, torch.stack([F.pad(part, (0, width - part.shape[-1])) for part in picked])


def mark(*rows: list[int]) -> torch.Tensor:
    columns = torch.zeros(len(rows), TOKENS, dtype=torch.bool)
    for row, places in enumerate(rows):
        columns[row, places] = True
    return columns


class ShapesOfEveryResult(TorchDispatchMode):
    """Remembers the shape of every tensor that any operator makes, inside compound operators too."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, (tuple, list)) else [result]
        self.shapes += [tuple(item.shape) for item in results if isinstance(item, torch.Tensor)]
        return result

    @property
    def made_the_matrix(self) -> bool:
        return any(shape[-2:] in {(QUERIES, TOKENS), (TOKENS, QUERIES)} for shape in self.shapes)


def test_one_hot_columns_keeps_the_order_and_pads_on_the_right():
    one_hot, valid = one_hot_columns(torch.tensor([[0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]).bool())

    assert valid.tolist() == [[True, True], [True, False], [False, False]]
    assert one_hot.int().tolist() == [
        [[0, 0], [1, 0], [0, 0], [0, 1]],
        [[0, 0], [0, 0], [1, 0], [0, 0]],
        [[0, 0], [0, 0], [0, 0], [0, 0]],
    ]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=4))
def test_one_hot_columns_select_exactly_the_marked_tokens(rows: list[list[bool]]):
    columns = torch.tensor(rows)
    one_hot, valid = one_hot_columns(columns)
    numbers = torch.arange(7.0)

    assert valid.sum(dim=1).tolist() == columns.sum(dim=1).tolist()
    for row in range(len(rows)):
        selected = (numbers @ one_hot[row].float())[valid[row]]
        assert selected.tolist() == numbers[columns[row]].tolist()
        assert not one_hot[row][:, ~valid[row]].any()


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(
    "columns",
    [
        mark([5], [7]),
        mark([0, 3, 4], [39]),
        mark([1], []),
        mark(list(range(8)), list(range(20, 29))),
        mark(list(range(20)), [3]),
        mark(list(range(21)), [3]),
        mark(list(range(40)), list(range(1, 40))),
    ],
    ids=["one", "ragged", "row without", "more than a padding block", "half", "over half", "all"],
)
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_explicit_softmax(columns: torch.Tensor, masked: bool):
    generator = torch.Generator().manual_seed(1)
    query, key, value = random_attention(generator)
    mask = torch.randn((BATCH, HEADS, 1, TOKENS), generator=generator) if masked else None
    one_hot, _ = one_hot_columns(columns)

    output, picked = attend_with_columns(query, key, value=value, one_hot=one_hot.float(), attn_mask=mask)

    expected_output, expected = explicit(query, key, value, columns=columns, attn_mask=mask)
    torch.testing.assert_close(output, expected_output, atol=1e-5, rtol=0)
    torch.testing.assert_close(picked, expected, atol=1e-6, rtol=0)


@pytest.mark.usefixtures("kernel")
def test_honours_the_scale_it_is_given():
    query, key, value = random_attention(torch.Generator().manual_seed(2))
    columns = mark([2, 3], [4])
    one_hot, _ = one_hot_columns(columns)

    _, picked = attend_with_columns(query, key, value=value, one_hot=one_hot.float(), scale=0.1)

    torch.testing.assert_close(picked, explicit(query, key, value, columns=columns, scale=0.1)[1], atol=1e-6, rtol=0)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("columns", [mark([5, 6], [7]), mark(list(range(30)), [1])], ids=["padded", "over half"])
def test_gradients_equal_those_of_the_explicit_softmax(columns: torch.Tensor):
    one_hot, _ = one_hot_columns(columns)

    def gradients(attend):
        generator = torch.Generator().manual_seed(3)
        inputs = random_attention(generator, requires_grad=True)
        output, picked = attend(*inputs)
        weights = [torch.randn(tensor.shape, generator=generator) for tensor in (output, picked)]
        loss = (output * weights[0]).sum() + (picked * weights[1]).sum()
        return torch.autograd.grad(loss, inputs)

    ours = gradients(lambda q, k, v: attend_with_columns(q, k, value=v, one_hot=one_hot.float()))
    theirs = gradients(lambda q, k, v: explicit(q, k, v, columns=columns))

    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("kernel")
def test_values_that_need_no_gradient_get_none():
    query, key, value = random_attention(torch.Generator().manual_seed(4))
    one_hot, _ = one_hot_columns(mark([5], [6]))

    _, picked = attend_with_columns(query.requires_grad_(), key, value=value, one_hot=one_hot.float())
    picked.sum().backward()

    assert query.grad is not None
    assert value.grad is None


@pytest.mark.usefixtures("kernel")
def test_wide_values_are_allowed():
    query, key, _ = random_attention(torch.Generator().manual_seed(5))
    value = torch.randn(BATCH, HEADS, TOKENS, 3 * DIM, generator=torch.Generator().manual_seed(6))
    columns = mark([5], [6, 7])
    one_hot, _ = one_hot_columns(columns)

    output, picked = attend_with_columns(query, key, value=value, one_hot=one_hot.float())

    expected_output, expected = explicit(query, key, value, columns=columns)
    torch.testing.assert_close(output, expected_output, atol=1e-5, rtol=0)
    torch.testing.assert_close(picked, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_the_fused_kernel_never_makes_the_full_matrix(requires_grad: bool, monkeypatch):
    monkeypatch.setattr(columns_module, "suits", lambda *_: False)
    query, key, value = random_attention(torch.Generator().manual_seed(7), requires_grad=requires_grad)
    one_hot = one_hot_columns(mark([5, 6], [7]))[0].float()

    with ShapesOfEveryResult() as results:
        output, picked = attend_with_columns(query, key, value=value, one_hot=one_hot)
        if requires_grad:
            (output.sum() + picked.square().sum()).backward()

    assert not results.made_the_matrix


def test_without_the_padding_the_full_matrix_would_be_made():
    """The trap that the padding is for; if it is ever gone, so may the padding be."""
    query, key, value = random_attention(torch.Generator().manual_seed(8))
    one_hot = one_hot_columns(mark([5, 6], [7]))[0].float()[:, None].expand(-1, HEADS, -1, -1)

    with ShapesOfEveryResult() as results:
        F.scaled_dot_product_attention(query, key, torch.cat([value, one_hot], dim=-1))

    assert results.made_the_matrix


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_reads_half_precision_probabilities(dtype: torch.dtype):
    query, key, value = random_attention(torch.Generator().manual_seed(9), dtype=dtype)
    columns = mark([5, 6], [7])
    one_hot, _ = one_hot_columns(columns)

    _, picked = attend_with_columns(query, key, value=value, one_hot=one_hot.to(dtype))

    expected = explicit(query.float(), key.float(), value.float(), columns=columns)[1]
    assert picked.dtype == dtype
    torch.testing.assert_close(picked.float(), expected, atol=2 * torch.finfo(dtype).eps, rtol=2e-2)
