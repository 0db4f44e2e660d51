"""Terms on the denoiser's prediction, each on examples of its own, added up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from aizheimer.backbones.base import Backbone
from aizheimer.data.sources import Draw, Source
from aizheimer.data.words import Embeddings
from aizheimer.engine.anchor import Anchor
from aizheimer.engine.batch_shares import predict
from aizheimer.engine.held_out import relative_error, retention_errors, squared_errors
from aizheimer.engine.problem import Loss
from aizheimer.objectives.noise_target import masked_mse_by_example, target_mse
from aizheimer.objectives.reconstruction import noise_mse, teacher_mse


class Watch(Protocol):
    """The held-out set of a problem."""

    def look(self) -> Mapping[str, float]:
        """Return what is seen of it now; see `aizheimer.engine.problem.Problem.monitor`."""
        ...

    def retention_errors(self, rows: int) -> Iterable[Tensor]:
        """Return the retain error in the autograd graph; see `aizheimer.engine.problem.Problem.retention_errors`."""
        ...


class Term(Protocol):
    """One part of a problem."""

    def losses(self, step: int, generator: torch.Generator) -> Mapping[str, Loss]:
        """Return the term's losses by name; a function of the parameters, ``step`` and the generator only."""
        ...


@dataclass(frozen=True, kw_only=True)
class TargetTerm:
    r"""Move the prediction for forget prompts to a target, :math:`\operatorname{MSE}(\epsilon_\theta(x_t, c), y)`.

    Where the source says which part of a picture counts, the mean is over that part.

    Args:
        backbone: The network being edited.
        source: Where latents come from.
        embeddings: Prompts :math:`c`, or live ones; the source's ``prompt_index`` counts in it.
        target: Knows :math:`y`.
        batch_size: Examples in a batch.
        weight: Its weight in the sum.
    """

    backbone: Backbone
    source: Source
    embeddings: Embeddings
    target: Anchor
    batch_size: int
    weight: float = 1.0

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Loss]:
        """Return the one loss, "erase"."""
        return self.on(self.source.draw(self.batch_size, step=step, generator=generator))

    def on(self, draw: Draw) -> dict[str, Loss]:
        """Return the loss on given examples, for a term that adds others on the same latents."""
        target = self.target.predict(draw)
        prediction = predicted(self.backbone, draw, self.embeddings)
        if draw.mask is None:
            term = target_mse(prediction, target)
        else:
            term = masked_mse_by_example(prediction, target, draw.mask)
        return {"erase": Loss(term.total, self.weight, term.parts)}


@dataclass(frozen=True, kw_only=True)
class RetainTerm:
    """Hold the prediction for retain prompts: to the teacher's, or to the noise that was added.

    Args:
        backbone: The network being edited.
        source: Where latents and their targets come from.
        embeddings: Encoded prompts, or live ones; the source's ``prompt_index`` counts in it.
        batch_size: Examples in a batch.
        weight: Its weight in the sum.
        name: ``"teacher"`` (the source's targets are predictions) or ``"noise"`` (they are what was added).
    """

    backbone: Backbone
    source: Source
    embeddings: Embeddings
    batch_size: int
    weight: float = 1.0
    name: str = "teacher"

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Loss]:
        """Return the one loss, by the term's name."""
        draw = self.source.draw(self.batch_size, step=step, generator=generator)
        if draw.target is None:
            raise ValueError("a retain term needs a source that knows its targets")
        compare = teacher_mse if self.name == "teacher" else noise_mse
        term = compare(predicted(self.backbone, draw, self.embeddings), draw.target)
        return {self.name: Loss(term.total, self.weight, term.parts, "retain")}


@dataclass(frozen=True, kw_only=True)
class NoiseMonitor:
    r"""The held-out set of a problem on predictions.

    Args:
        backbone: The network being edited.
        forget: Examples of forget prompts; their targets are :math:`y`.
        forget_embeddings: Encoded prompts, or live ones.
        baseline: :math:`\sum\lVert \epsilon_0(c) - y\rVert^2` of the unedited model; from `baseline_error`.
        retain: Examples of retain prompts; their targets are the teacher's predictions.
        retain_embeddings: Encoded prompts, or live ones.
    """

    backbone: Backbone
    forget: Draw
    forget_embeddings: Embeddings
    baseline: float
    retain: Draw
    retain_embeddings: Embeddings

    def look(self) -> dict[str, float]:
        r"""Return ``erase_error`` and ``retention_drift``.

        The error is what is left of the way to the target, :math:`\sum\lVert\epsilon_\theta(c) - y\rVert^2` relative to
        the start's: 1 at step 0, 0 when the target is reached. The drift is that of the attention problem.
        """
        error, _ = squared_errors(self.backbone, self.forget, self.forget_embeddings)
        drift = relative_error(self.backbone, self.retain, self.retain_embeddings)
        return {"erase_error": error / self.baseline if self.baseline > 0 else error, "retention_drift": drift}

    def retention_errors(self, rows: int) -> Iterable[Tensor]:
        """Return the drift's numerator, in the autograd graph."""
        return retention_errors(self.backbone, self.retain, self.retain_embeddings, rows=rows)


@dataclass(frozen=True, kw_only=True)
class DriftMonitor:
    r"""The held-out set of a problem that has no target for the concept: it only watches where predictions go.

    Args:
        backbone: The network being edited.
        forget: Examples of forget prompts; their targets are the teacher's predictions.
        forget_embeddings: Encoded prompts.
        retain: Examples of retain prompts; their targets are the teacher's predictions.
        retain_embeddings: Encoded prompts.
    """

    backbone: Backbone
    forget: Draw
    forget_embeddings: Embeddings
    retain: Draw
    retain_embeddings: Embeddings

    def look(self) -> dict[str, float]:
        r"""Return ``forget_drift`` and ``retention_drift``, each :math:`\lVert s - t\rVert^2 / \lVert t\rVert^2`."""
        return {
            "forget_drift": relative_error(self.backbone, self.forget, self.forget_embeddings),
            "retention_drift": relative_error(self.backbone, self.retain, self.retain_embeddings),
        }

    def retention_errors(self, rows: int) -> Iterable[Tensor]:
        """Return the retention drift's numerator, in the autograd graph."""
        return retention_errors(self.backbone, self.retain, self.retain_embeddings, rows=rows)


def baseline_error(backbone: Backbone, forget: Draw, embeddings: Embeddings) -> float:
    """Return the unedited model's squared error on held-out forget examples; call it before any training."""
    return squared_errors(backbone, forget, embeddings)[0]


@dataclass(frozen=True, kw_only=True)
class NoiseProblem:
    """Terms on predictions, and the held-out set. What has no term is not computed.

    Each term runs its own forward pass: the losses share no graph, so a gradient rule that wants them apart costs
    nothing more.

    Args:
        parameters: Trained parameters by name.
        terms: What is minimised.
        held_out: What the monitor looks at.
    """

    parameters: Mapping[str, Parameter]
    terms: Sequence[Term]
    held_out: Watch

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Loss]:
        """Return the losses of one batch of every term."""
        return {name: loss for term in self.terms for name, loss in term.losses(step, generator).items()}

    def monitor(self) -> dict[str, float]:
        """Return what the held-out set says; see `NoiseMonitor.look`."""
        return dict(self.held_out.look())

    def retention_errors(self, rows: int) -> Iterable[Tensor]:
        """Return the held-out set's retain error; see `NoiseMonitor.retention_errors`."""
        return self.held_out.retention_errors(rows)


def predicted(backbone: Backbone, draw: Draw, embeddings: Embeddings) -> Tensor:
    """Return the raw predictions (batch, channels, height, width) of a draw under its prompts, with gradients."""
    return predict(backbone, draw.x_t, draw.t, embeddings[draw.prompt_index].to(draw.x_t))
