"""Reconstruction: what must stay as it is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from aizheimer.errors import InputError
from aizheimer.objectives.terms import TermValue

TINY = torch.finfo(torch.float32).tiny
"""What a size is divided by that is zero."""


def noise_mse(prediction: Float[Tensor, "batch ..."], target: Float[Tensor, "batch ..."]) -> TermValue:
    """Ask the denoiser to go on denoising: mean squared error against what it was trained to predict.

    Args:
        prediction: The denoiser's output.
        target: The noise that was added (epsilon models) or the velocity (v models), of the same shape.

    Returns:
        The mean over all entries, computed in at least single precision; one part, "noise".

    Raises:
        InputError: If the shapes differ.

    References:
        Birben, Dervişoğlu, Külçe: AIzheimer, L_recon of eq. (7). Ho et al.: DDPM, arXiv:2006.11239, eq. (14).
    """
    total = _mse(prediction, target)
    return TermValue(total, {"noise": total.detach()})


def teacher_mse(student: Float[Tensor, "batch ..."], teacher: Float[Tensor, "batch ..."]) -> TermValue:
    """Ask the edited denoiser to predict what the original predicts on the same input.

    Unlike :func:`noise_mse` it is exactly zero for an unchanged model: it pulls towards the original, nowhere else.

    Args:
        student: Output of the model being edited.
        teacher: Output of the frozen original, of the same shape. No gradient flows into it.

    Returns:
        The mean over all entries, computed in at least single precision; one part, "teacher".

    Raises:
        InputError: If the shapes differ.
    """
    total = _mse(student, teacher.detach())
    return TermValue(total, {"teacher": total.detach()})


def answers_mse(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> TermValue:
    r"""Ask every layer to answer what the original answers.

    .. math:: L = \frac1L \sum_l \frac{\lVert s_l - t_l \rVert^2}{\lVert t_l \rVert^2}

    so that a layer counts as much as any other, whatever the size of its answers.

    Args:
        student: Answers :math:`s_l` of the layers being edited, by layer.
        teacher: Answers :math:`t_l` of the originals, of the same shapes. No gradient flows into them.

    Returns:
        The mean over layers; its parts are the layers' relative errors.

    Raises:
        InputError: If the shapes of a layer differ.
    """
    layers = {}
    for name, answers in student.items():
        target = teacher[name].detach()
        layers[name] = _mse(answers, target) / _mse(target, torch.zeros_like(target)).clamp(min=TINY)
    return TermValue(
        torch.stack(list(layers.values())).mean(), {name: value.detach() for name, value in layers.items()}
    )


def _mse(prediction: Tensor, target: Tensor) -> Tensor:
    # Broadcasting would turn a forgotten dimension into a wrong loss that still falls.
    if prediction.shape != target.shape:
        raise InputError(
            f"A reconstruction term got a prediction of shape {tuple(prediction.shape)} and a target of shape "
            f"{tuple(target.shape)}; wanted the same shape."
        )
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return F.mse_loss(prediction.to(dtype), target.to(dtype))
