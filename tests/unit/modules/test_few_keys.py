"""Attention over few keys on a CPU: the same numbers as the fused kernel's, and no more stored than is said."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from aizheimer.modules import few_keys
from aizheimer.modules.few_keys import attend_few_keys, suits

SHAPES = [(2, 3, 19, 8), (2, 3, 11, 8), (2, 3, 11, 5)]
SCALE = 0.4
READ = torch.tensor([[1, 4], [0, 10]])
"""The tokens whose columns are read, in each row of the batch."""


def attend(query, key, value):
    """The output and the columns, one beside the other."""
    one_hot = F.one_hot(READ, SHAPES[1][2]).mT.to(value.dtype)
    return torch.cat(attend_few_keys(query, key, value=value, one_hot=one_hot, scale=SCALE), dim=-1)


def written_out(query, key, value):
    """The same from the matrix."""
    matrix = (SCALE * query @ key.mT).softmax(dim=-1)
    columns = torch.stack([matrix[row, :, :, tokens] for row, tokens in enumerate(READ)])
    return torch.cat([matrix @ value, columns], dim=-1)


def inputs(*, dtype=torch.float64, requires_grad=(True, True, True)):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_(needed)
        for shape, needed in zip(SHAPES, requires_grad, strict=True)
    ]


@pytest.fixture(params=["kept", "in blocks", "query by query"])
def stored(request, monkeypatch):
    """Whether the matrix is kept, or made again block by block."""
    row = 2 * 3 * 11 * 8
    if request.param != "kept":
        monkeypatch.setattr(few_keys, "KEPT_BYTES", 0)
        monkeypatch.setattr(few_keys, "_BLOCK_BYTES", 4 * row if request.param == "in blocks" else 1)


@pytest.mark.usefixtures("stored")
def test_it_is_plain_attention():
    query, key, value = inputs(requires_grad=(False, False, False))
    torch.testing.assert_close(attend(query, key, value), written_out(query, key, value), atol=1e-12, rtol=0)


@pytest.mark.usefixtures("stored")
def test_its_gradients_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(attend, inputs(), fast_mode=True)


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("needed", [(True, False, False), (False, True, False), (False, False, True)])
def test_only_what_needs_a_gradient_gets_one(needed):
    given = inputs(requires_grad=needed)
    attend(*given).square().sum().backward()
    again = [tensor.detach().requires_grad_() for tensor in given]
    written_out(*again).square().sum().backward()
    for tensor, other, needs in zip(given, again, needed, strict=True):
        assert (tensor.grad is not None) == needs
        if needs:
            torch.testing.assert_close(tensor.grad, other.grad)


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("used", [slice(0, 5), slice(5, 7)], ids=["the output alone", "the columns alone"])
def test_a_loss_of_one_of_the_two_has_its_gradients(used):
    given, again = inputs(), inputs()
    attend(*given)[..., used].square().sum().backward()
    written_out(*again)[..., used].square().sum().backward()
    for tensor, other in zip(given, again, strict=True):
        torch.testing.assert_close(tensor.grad, other.grad)


def test_queries_of_another_layout_are_read_right():
    """Processors give (batch, queries, heads, dim) with two axes exchanged."""
    query, key, value = inputs(requires_grad=(False, False, False))
    turned = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in (query, key, value)]
    assert not turned[0].is_contiguous()
    torch.testing.assert_close(attend(*turned), attend(query, key, value), atol=1e-12, rtol=0)


def test_under_autocast_it_computes_in_autocasts_format_as_the_fused_kernel_does():
    query, key, value = inputs(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(query, key, value)[..., :5]
        expected = F.scaled_dot_product_attention(query, key, value, scale=SCALE)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=0)
    found.sum().backward()
    assert query.grad.dtype == torch.float32


class Largest(TorchDispatchMode):
    """Remembers the largest matrix of probabilities that any operator makes."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    @staticmethod
    def is_matrix(sides):
        return SHAPES[1][2] in sides and not {SHAPES[0][3], SHAPES[2][3], SHAPES[2][3] + READ.shape[1]} & set(sides)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for item in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(item, torch.Tensor) and item.ndim == 3 and self.is_matrix(item.shape[-2:]):
                self.numbers = max(self.numbers, item.numel())
        return result


@pytest.mark.parametrize(("kept", "queries"), [(2**20, 19), (0, 4)])
def test_a_large_matrix_is_never_whole(monkeypatch, kept, queries):
    monkeypatch.setattr(few_keys, "KEPT_BYTES", kept)
    monkeypatch.setattr(few_keys, "_BLOCK_BYTES", 4 * 2 * 3 * 11 * 8)
    query, key, value = inputs()
    with Largest() as largest:
        attend(query, key, value).square().sum().backward()
    assert largest.numbers == 2 * 3 * queries * 11


def test_a_second_derivative_is_refused_and_not_wrong():
    query, key, value = inputs()
    output = attend(query, key, value).square().sum()
    (first,) = torch.autograd.grad(output, query, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_it_is_for_few_keys_on_a_cpu():
    query = torch.empty(1, 1, 4096, 8)
    assert suits(query, torch.empty(1, 1, 77, 8))
    assert not suits(query, torch.empty(1, 1, 4096 + 77, 8))
    assert not suits(query.to("meta"), torch.empty(1, 1, 77, 8, device="meta"))
