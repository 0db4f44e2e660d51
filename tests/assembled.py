"""A method's training problem as the method puts it together, in the middle of a run, beside the untouched model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch

from aizheimer._seeding import generator_for
from aizheimer.backbones.base import Backbone
from aizheimer.concepts import Concept
from aizheimer.data.sources import Draw, NoisedSource
from aizheimer.engine.problem import Loss
from aizheimer.methods import _trained
from aizheimer.methods._material import Material
from tests.trained import Stopped, tiny_backbone


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """A problem whose parameters have moved away from where they began.

    Args:
        material: What the method built it from.
        task: The problem, and what goes with it.
        frozen: A model of the same weights that nothing has touched: the teacher of every equation.
    """

    material: Material
    task: _trained.Task
    frozen: Backbone

    @property
    def prompts(self) -> list[str]:
        """The concept's prompts."""
        return self.material.data.forget_prompts

    def pictures(self, prompts: Sequence[str], count: int) -> NoisedSource:
        """Return pictures that the original model draws of some prompts, as training inputs."""
        material = replace(self.material, backbone=self.frozen)
        latents, index = material.pictures(prompts, f"generate:{count}")
        return material.noised(latents, index, prompts=len(prompts))[0]

    def losses(self, step: int = 1) -> dict[str, Loss]:
        """Return the losses of a step whose draws `generator` repeats."""
        return dict(self.task.problem.losses(step, self.generator()))

    def generator(self) -> torch.Generator:
        """Return what the step's draws came from, at its beginning."""
        return generator_for(11, "assembled")

    @torch.no_grad()
    def student(self, draw: Draw, prompts: Sequence[str]) -> torch.Tensor:
        """Return what the model being edited predicts, each example under the prompt of its number."""
        return _predicted(self.material.backbone, draw, prompts)

    @torch.no_grad()
    def teacher(self, draw: Draw, prompts: Sequence[str]) -> torch.Tensor:
        """Return what the original model predicts, each example under the prompt of its number."""
        return _predicted(self.frozen, draw, prompts)

    def null(self, draw: Draw) -> torch.Tensor:
        """Return what the original model predicts under the empty prompt."""
        return self.teacher(draw, [""] * (int(draw.prompt_index.max()) + 1))

    def retained(self, generator: torch.Generator) -> tuple[Draw, torch.Tensor, torch.Tensor]:
        """Return a draw of the teacher's retain rollouts, and what student and teacher predict for it."""
        prompts = [*self.material.data.retain_prompts, ""]
        source = self.material.teacher(self.material.retain_banks[0])
        draw = source.draw(self.material.method.retain.batch_size, step=1, generator=generator)
        return draw, self.student(draw, prompts), self.teacher(draw, prompts)


def check_losses(method: Any, concept: Concept, check: Callable[[Assembled], None], **pipeline: Any) -> None:
    """Let a method assemble its problem, move its parameters, and have a look at it where it would be trained."""
    backbone, frozen, seen = tiny_backbone(**pipeline), tiny_backbone(**pipeline), []

    def look(material: Material, task: _trained.Task, **_: Any) -> None:
        with task.during:
            _move(task.problem.parameters)
            it = Assembled(material=material, task=task, frozen=frozen)
            x_t = torch.randn(1, 4, 8, 8, generator=it.generator())
            probe = Draw(x_t=x_t, t=torch.tensor([500]), prompt_index=torch.tensor([0]))
            student, teacher = it.student(probe, it.prompts), it.teacher(probe, it.prompts)
            assert (student - teacher).norm() > 0.02 * teacher.norm()
            check(it)
        seen.append(True)
        raise Stopped

    with mock.patch.object(_trained, "_trained", look), contextlib.suppress(Stopped):
        method.unlearn(backbone, concept)
    assert seen


def same(loss: Loss, wanted: torch.Tensor, weight: float = 1.0, role: str = "erase") -> None:
    """Compare a loss with its equation's value, and its weight and what it is for."""
    torch.testing.assert_close(loss.value.detach(), wanted.detach().to(loss.value), rtol=1e-4, atol=1e-7)
    assert (loss.weight, loss.role) == (weight, role)


def mse(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the mean of the squared differences."""
    return (a - b).square().mean()


def _predicted(backbone: Backbone, draw: Draw, prompts: Sequence[str]) -> torch.Tensor:
    words = backbone.condition([prompts[i] for i in draw.prompt_index.tolist()])
    return backbone.predict(draw.x_t, draw.t, words)


@torch.no_grad()
def _move(parameters: Any) -> None:
    for i, parameter in enumerate(parameters.values()):
        noise = torch.randn(parameter.shape, generator=generator_for(i, "moved"))
        parameter.add_((0.5 * parameter.abs().mean() + 0.03) * noise)
