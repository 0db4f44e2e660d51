"""SepME's null space and correlation by hand, and in float64 against the guarantee."""

import pytest
import torch
from torch import nn

from aizheimer._seeding import generator_for
from aizheimer.errors import InputError
from aizheimer.modules.coefficients import NullSpace, NullSpaceCoefficients, null_space, prompts_that_fit
from aizheimer.objectives.correlation import balancing_weights, change_l1, concept_correlation


def random(*shape, key=0):
    return torch.randn(*shape, generator=generator_for(key, "sepme"), dtype=torch.float64)


def test_the_null_space_of_two_axes_is_the_third():
    space = null_space(torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [1.0, 1.0, 0.0]]), tolerance=1e-9)
    assert (space.rank, space.leakage) == (2, 0.0)
    torch.testing.assert_close(space.basis.abs(), torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64))


@pytest.mark.parametrize(("rows", "dim"), [(5, 12), (40, 12)])
def test_rows_leave_what_they_do_not_span(rows, dim):
    """Rows of rank 5, few or many: seven directions are left, orthonormal, and no row is in them."""
    matrix = random(rows, 5, key=1) @ random(5, dim, key=2)
    space = null_space(matrix, tolerance=1e-10)
    assert space.rank == 5
    torch.testing.assert_close(space.basis @ space.basis.T, torch.eye(dim - 5, dtype=torch.float64))
    assert (matrix @ space.basis.T).abs().max() < 1e-12
    assert space.bound < 1e-12


def test_the_bound_holds_and_a_larger_tolerance_leaves_more_room():
    matrix = random(30, 8) * torch.tensor([1, 1, 1, 1, 1, 1e-3, 1e-4, 1e-5], dtype=torch.float64)
    strict, loose = null_space(matrix, tolerance=1e-9), null_space(matrix, tolerance=1e-2)
    assert (len(strict.basis), len(loose.basis)) == (0, 3)
    seen = torch.linalg.vector_norm(matrix @ loose.basis.T, dim=1)
    assert 0 < seen.max() <= loose.bound
    assert loose.leakage == pytest.approx(float((seen / matrix.norm(dim=1)).max()))


def test_how_many_prompts_fit():
    rows = random(6, 3, 10)
    assert prompts_that_fit(rows, tolerance=1e-9) == 3  # 9 of 10 dimensions; a fourth prompt fills them


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn2 = nn.ModuleDict({"to_k": nn.Linear(12, 4, bias=False), "to_v": nn.Linear(12, 6, bias=False)})
        self.double()


def test_protected_rows_are_not_moved_and_others_are():
    protected, target = random(5, 12, key=3), random(4, 12, key=4)
    net, names = Net(), ["attn2.to_k", "attn2.to_v"]
    space = null_space(protected, tolerance=1e-10)
    coefficients = NullSpaceCoefficients(net, names, space=space, scale=0.5)
    plain = net.attn2["to_v"](protected), net.attn2["to_v"](target)
    with torch.no_grad():
        for i, parameter in enumerate(coefficients.parameters.values()):
            parameter.copy_(random(*parameter.shape, key=10 + i))
    with coefficients.active():
        held, moved = net.attn2["to_v"](protected), net.attn2["to_v"](target)
        with coefficients.off():
            assert torch.equal(net.attn2["to_v"](target), plain[1])
    assert (held - plain[0]).abs().max() < 1e-8
    assert (moved - plain[1]).abs().max() > 0.1
    change = coefficients.changes()["attn2.to_v.weight"].detach()
    assert (protected @ change.T).abs().max() < 1e-8
    torch.testing.assert_close(plain[1] + target @ change.T, moved)
    torch.testing.assert_close(change, 0.5 * coefficients.parameters["attn2.to_v"].detach() @ space.basis)
    assert not net.attn2["to_v"]._forward_hooks
    with pytest.raises(InputError, match="at least one row"):
        NullSpaceCoefficients(net, names, space=NullSpace(space.basis[:0], 12, 0.0, 0.0), scale=1.0)


def test_edits_of_reserved_concepts_add_and_subtract_by_hand():
    """Three axes: the empty prompt is the first, a cat the second, a dog the third; each edit may use its own alone."""
    null, cat, dog = torch.eye(3, dtype=torch.float64)
    shifts = []
    for reserved, value in ((dog, 3.0), (cat, 5.0)):
        space = null_space(torch.stack([null, reserved]), tolerance=1e-9)
        assert (space.rank, len(space.basis), space.leakage) == (2, 1, 0.0)
        shifts.append(value * space.basis[0].abs().unsqueeze(0))
    both = shifts[0] + shifts[1]
    assert both.tolist() == [[0.0, 3.0, 5.0]]
    assert [float((both @ row).squeeze()) for row in (null, cat, dog)] == [0.0, 3.0, 5.0]
    assert [float(((both - shifts[0]) @ row).squeeze()) for row in (null, cat, dog)] == [0.0, 0.0, 5.0]


class TestTheLoss:
    def test_by_hand(self):
        """r0 = (2, 1), r = (1, -4): the mean of (2, -4) is -1; relative to the mean of (4, 1) it is -0.4."""
        one = torch.ones(2)
        term = concept_correlation(torch.tensor([2.0, -3.0]), one, torch.tensor([3.0, 2.0]), one)
        assert term.total == -1.0
        assert term.parts["relative"] == pytest.approx(-0.4)

    def test_an_unchanged_model_has_the_power_of_the_concept(self):
        c, null = random(2, 3), random(2, 3, key=1)
        term = concept_correlation(c, null, c, null)
        torch.testing.assert_close(term.total, (c - null).square().mean())
        assert term.parts["relative"] == pytest.approx(1.0)

    def test_the_gradient_goes_to_the_student_alone(self):
        tensors = [random(2, 3, key=i).requires_grad_() for i in range(4)]
        concept_correlation(*tensors).total.backward()
        before = (tensors[2] - tensors[3]).detach()
        torch.testing.assert_close(tensors[0].grad, before / 6)
        torch.testing.assert_close(tensors[1].grad, -before / 6)
        assert tensors[2].grad is None
        assert tensors[3].grad is None

    def test_several_are_brought_to_the_size_of_the_largest(self):
        """2 / (2, 0.5, 0.25) by the equation; a loss of 0.001 would get 2000, and gets the limit."""
        assert balancing_weights([2.0, -0.5, 0.25], limit=10.0) == [1.0, 4.0, 8.0]
        assert balancing_weights([-2.0, 0.001, 0.0], limit=10.0) == [1.0, 10.0, 10.0]
        assert balancing_weights([0.0, 0.0], limit=10.0) == [1.0, 1.0]

    def test_l1_is_averaged_over_layers(self):
        changes = {"a": torch.tensor([[1.0, -2.0]]), "b": torch.tensor([5.0])}
        assert change_l1(changes).total == 4.0
        with pytest.raises(InputError, match="no weights"):
            change_l1({})

    def test_shapes_must_agree(self):
        with pytest.raises(InputError, match="one shape"):
            concept_correlation(random(2), random(2), random(2), random(1))
