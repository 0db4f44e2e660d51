"""Reconstruction terms."""

from __future__ import annotations

import pytest
import torch

from aizheimer.errors import InputError
from aizheimer.objectives import answers_mse, noise_mse, teacher_mse


def test_noise_mse_is_the_mean_of_squares():
    prediction = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]], requires_grad=True)
    term = noise_mse(prediction, torch.tensor([[[[0.0, 0.0]]], [[[0.0, 3.0]]]]))

    assert term.total.item() == pytest.approx((1 + 4 + 9) / 4)
    assert {name: value.item() for name, value in term.parts.items()} == {"noise": term.total.item()}
    assert not term.parts["noise"].requires_grad
    (gradient,) = torch.autograd.grad(term.total, prediction)
    assert gradient.flatten().tolist() == [0.5, 1.0, 0.0, -1.5]


def test_teacher_mse_is_zero_for_an_unchanged_model_and_trains_the_student_only():
    student = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    teacher = (student.detach() + 0.5).requires_grad_()

    assert teacher_mse(student, student.detach()).total.item() == 0.0
    term = teacher_mse(student, teacher)
    term.total.backward()
    assert term.total.item() == pytest.approx(0.25)
    assert list(term.parts) == ["teacher"]
    assert student.grad is not None
    assert teacher.grad is None


def test_answers_are_compared_layer_by_layer_relative_to_their_size():
    teacher = {"large": torch.full((1, 2, 3, 4), 10.0), "small": torch.full((1, 2, 5, 2), 0.1)}
    student = {"large": teacher["large"] * 1.2, "small": (teacher["small"] * 0.9).requires_grad_()}
    term = answers_mse(student, teacher)

    assert {name: value.item() for name, value in term.parts.items()} == pytest.approx(
        {"large": 0.04, "small": 0.01}, rel=1e-4
    )
    assert term.total.item() == pytest.approx(0.025, rel=1e-4)
    term.total.backward()
    assert student["small"].grad.abs().min() > 0
    with pytest.raises(InputError, match="wanted the same shape"):
        answers_mse({"large": torch.zeros(1, 2, 3)}, teacher)


def test_a_layer_that_answers_nothing_does_not_divide_by_zero():
    zero = torch.zeros(1, 2, 3, 4)
    assert answers_mse({"layer": zero.clone()}, {"layer": zero}).total.item() == 0


@pytest.mark.parametrize("term", [noise_mse, teacher_mse])
def test_half_precision_is_summed_in_single_precision(term):
    # 300^2 overflows float16.
    result = term(torch.full((1, 4, 2, 2), 300.0).half(), torch.zeros(1, 4, 2, 2).half()).total
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(90_000)


@pytest.mark.parametrize("term", [noise_mse, teacher_mse])
def test_shapes_that_would_broadcast_are_refused(term):
    with pytest.raises(InputError, match=r"shape \(2, 4, 3, 3\) and a target of shape \(2, 1, 3, 3\)"):
        term(torch.zeros(2, 4, 3, 3), torch.zeros(2, 1, 3, 3))
