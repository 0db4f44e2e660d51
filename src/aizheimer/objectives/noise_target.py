r"""What the prediction for a prompt should become: the targets of the noise-target family.

Every method of the family minimises :math:`\operatorname{MSE}(\epsilon_\theta(x_t, c), y)` and differs in :math:`y`
alone (and in where :math:`x_t` comes from). The targets are affine in raw predictions with weights that sum to one, so
they hold for noise, velocity and clean latents alike: the three are affine in each other at a fixed :math:`(x_t, t)`.

==================  ======================================================================================
method              :math:`y`
==================  ======================================================================================
ESD, 2023           :math:`\epsilon_0(\varnothing) - \eta\,(\epsilon_0(c) - \epsilon_0(\varnothing))`
ESD, 2024           :math:`\epsilon_0(c_{from}) - \eta\,(\epsilon_0(c) - \epsilon_0(\varnothing))`
SPM, Receler        the first, with a neutral concept in the place of :math:`\varnothing` where there is one
Concept Ablation    :math:`\operatorname{sg} \epsilon_\theta(c^*)`, or the noise that was added
DoCo                :math:`\epsilon_0(c^*)`
==================  ======================================================================================
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aizheimer._typing import Latents
from aizheimer.errors import InputError
from aizheimer.objectives.terms import TermValue


def negative_guidance(concept: Latents, neutral: Latents, *, eta: float, start: Latents | None = None) -> Latents:
    r"""Return the target that points away from a concept.

    .. math:: y = \epsilon_0(s) - \eta\,(\epsilon_0(c) - \epsilon_0(n))

    ``start`` :math:`s` is the neutral prompt in ESD's paper and the prompt to erase from in its code of 2024. With
    :math:`s = c` that is :math:`\epsilon_0(n) - (\eta - 1)(\epsilon_0(c) - \epsilon_0(n))`: the same target needs an
    :math:`\eta` that is larger by one.

    Args:
        concept: The frozen model's raw prediction for the concept, :math:`\epsilon_0(c)`.
        neutral: Its prediction for the empty prompt, or for a neutral concept.
        eta: :math:`\eta \ge 0`, how far to go.
        start: Its prediction for what the target starts from; None for ``neutral``.

    Returns:
        The target, detached.

    Example:
        >>> float(negative_guidance(torch.tensor(3.0), torch.tensor(1.0), eta=1.0))
        -1.0

    References:
        Gandikota et al., Erasing Concepts from Diffusion Models, arXiv:2303.07345, eq. 7.
    """
    start = neutral if start is None else start
    return (start - eta * (concept - neutral)).detach()


def target_mse(prediction: Latents, target: Latents) -> TermValue:
    """Ask the denoiser for the target: mean squared error in at least single precision, no gradient into the target.

    Args:
        prediction: The student's raw prediction under the concept's prompt.
        target: What it should be, of the same shape.

    Returns:
        The mean over all entries; one part, "target".

    Raises:
        InputError: If the shapes differ.
    """
    total = squared_error(prediction, target).mean()
    return TermValue(total, {"target": total.detach()})


def masked_mse(prediction: Latents, target: Latents, mask: Tensor) -> TermValue:
    r"""Ask for the target in a part of the picture only.

    .. math:: L = \frac{\sum_i m_i (p_i - y_i)^2}{\sum_i m_i}

    Args:
        prediction: The student's raw prediction.
        target: What it should be where the mask is one.
        mask: In [0, 1], broadcastable to the prediction, for instance (batch, 1, height, width).

    Returns:
        The mean over the entries under the mask; zero when there are none. One part, "masked".

    Raises:
        InputError: If the shapes of prediction and target differ.
    """
    error = squared_error(prediction, target)
    weights = mask.to(error).expand_as(error)
    total = (error * weights).sum() / weights.sum().clamp(min=torch.finfo(error.dtype).tiny)
    return TermValue(total, {"masked": total.detach()})


def masked_mse_by_example(prediction: Latents, target: Latents, masks: Tensor) -> TermValue:
    r"""Ask for the target in a part of each picture, every picture counting as much, however small its part.

    .. math:: L = \frac1B \sum_b \frac{\sum_i m_{bi} (p_{bi} - y_{bi})^2}{\sum_i m_{bi}}

    Args:
        prediction: (batch, channels, height, width) the student's raw prediction.
        target: What it should be where the mask is one.
        masks: (batch, 1, height, width) in [0, 1].

    Returns:
        The mean over the examples; one without anything under its mask counts as zero. One part, "masked".

    Raises:
        InputError: If the shapes of prediction and target differ.

    References:
        Kumari et al., Ablating Concepts, arXiv:2303.13516; its published code for diffusers sums over the channels and
        divides by the cells alone, which is four times this for four channels.
    """
    error = squared_error(prediction, target)
    weights = masks.to(error).expand_as(error)
    counts = weights.flatten(1).sum(1).clamp(min=torch.finfo(error.dtype).tiny)
    total = ((error * weights).flatten(1).sum(1) / counts).mean()
    return TermValue(total, {"masked": total.detach()})


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the squared differences, entry by entry, in at least single precision.

    Raises:
        InputError: If the shapes differ: broadcasting would turn a forgotten axis into a wrong loss that still falls.
    """
    if prediction.shape != target.shape:
        raise InputError(
            f"A noise-target term got a prediction of shape {tuple(prediction.shape)} and a target of shape "
            f"{tuple(target.shape)}; wanted the same shape."
        )
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return F.mse_loss(prediction.to(dtype), target.detach().to(dtype), reduction="none")
