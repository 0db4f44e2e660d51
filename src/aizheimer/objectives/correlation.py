"""SepME's concept-irrelevant representation: what a prompt adds must have nothing to do with what it used to add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from aizheimer._typing import Latents
from aizheimer.errors import InputError
from aizheimer.objectives.terms import TermValue


def concept_correlation(student: Latents, student_null: Latents, teacher: Latents, teacher_null: Latents) -> TermValue:
    r"""Return the correlation of what the concept adds to the prediction, after and before.

    .. math:: L = \operatorname{mean}\big(r_\theta \odot \operatorname{sg} r_0\big), \qquad
              r_\theta = \epsilon_\theta(x_t, c) - \epsilon_\theta(x_t, \varnothing)

    It is :math:`\operatorname{mean} r_0^2` for an unchanged model, zero when the concept is forgotten, and unbounded
    below: stop at zero, do not minimise.

    Args:
        student: :math:`\epsilon_\theta(x_t, c)`.
        student_null: :math:`\epsilon_\theta(x_t, \varnothing)`.
        teacher: The frozen model's prediction for the concept.
        teacher_null: The frozen model's prediction for the empty prompt.

    Returns:
        The mean product; parts "correlation" and "relative", which is 1 at the start and 0 when forgotten.

    Raises:
        InputError: If the shapes differ.

    References:
        Zhao et al., Separable Multi-Concept Erasure from Diffusion Models, arXiv:2402.05947, the G-CiRs loss.
    """
    shapes = {tuple(tensor.shape) for tensor in (student, student_null, teacher, teacher_null)}
    if len(shapes) != 1:
        raise InputError(f"The correlation term got predictions of shapes {sorted(shapes)}; wanted one shape.")
    dtype = torch.promote_types(student.dtype, torch.float32)
    before = (teacher - teacher_null).detach().to(dtype)
    after = (student - student_null).to(dtype)
    total = (after * before).mean()
    power = before.square().mean().clamp(min=torch.finfo(dtype).tiny)
    return TermValue(total, {"correlation": total.detach(), "relative": (total / power).detach()})


def balancing_weights(losses: Sequence[float], *, limit: float) -> list[float]:
    r"""Return weights that bring several losses to one size, so that none is trained at the cost of the others.

    .. math:: \eta_j = \min\Big(\frac{\max_k |L_k|}{|L_j|},\; \eta_{max}\Big)

    The limit is ours. A correlation crosses zero exactly where its concept is forgotten: without a limit the weight
    grows beyond all bounds there, and one step throws a finished concept to the far side.

    Args:
        losses: :math:`L_j`, as numbers: no gradient goes through the weights.
        limit: :math:`\eta_{max} \ge 1`.

    Returns:
        A weight in [1, limit] for each loss; all 1 if every loss is zero.

    Example:
        >>> balancing_weights([2.0, -0.5, 0.0], limit=10.0)
        [1.0, 4.0, 10.0]

    References:
        Zhao et al., Separable Multi-Concept Erasure from Diffusion Models, arXiv:2402.05947, simultaneous erasure.
    """
    largest = max(map(abs, losses))
    if largest == 0:
        return [1.0] * len(losses)
    return [min(largest / abs(loss), limit) if loss else limit for loss in losses]


def change_l1(changes: Mapping[str, Tensor]) -> TermValue:
    r"""Return the L1 norm of the weights' changes, averaged over layers.

    .. math:: L = \frac1L \sum_l \lVert\Delta W_l\rVert_1

    Args:
        changes: The change of each layer's weight.

    Returns:
        The mean of the layers' norms; one part, "l1".

    Raises:
        InputError: If there is no change to measure.
    """
    if not changes:
        raise InputError("The L1 term got no weights; give at least one layer's change.")
    total = torch.stack([change.abs().sum() for change in changes.values()]).mean()
    return TermValue(total, {"l1": total.detach()})
