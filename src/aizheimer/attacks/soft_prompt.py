r"""Soft prompt: move what the text encoder says of a prompt until the edited model draws the target again.

Projected gradient descent on a shift :math:`\delta` of each prompt's rows,

.. math:: \min_{\lVert \delta_i \rVert \le r\, s_i}\; \mathbb E_{x_0, t, \epsilon}\,
    \lVert \epsilon - \epsilon_\theta(x_t, c + \delta, t) \rVert^2

for row :math:`i` of the encoded prompt :math:`c`, in units :math:`s_i` of the row's own size. No text encoder can
prevent it, so it asks more of an edit than any words do: whether the denoiser can still draw the target at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer._typing import TokenIds
from aizheimer.attacks._pictures import by_prompt, target_pictures, target_prompts
from aizheimer.attacks._projections import Norm, onto_ball, steepest
from aizheimer.attacks.base import AttackInfo, Outcome, Progress, Subject
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import as_conditioning
from aizheimer.objectives.reconstruction import noise_mse

FIRST_ROW = 1
"""Row 0 is start-of-text, the same for every prompt; it stays."""


class SoftPrompt(BaseModel):
    """Search in a ball around each encoded prompt.

    Example:
        >>> SoftPrompt(norm="linf", radius=0.1).steps
        20

    References:
        Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, arXiv:1706.06083, section 2.1 (the
        search). Zhang et al., UnlearnDiffAtk, arXiv:2310.11868 (the loss).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str] = "soft-prompt"
    info: ClassVar[AttackInfo] = AttackInfo(
        paper="Madry et al., PGD, arXiv:1706.06083, with the loss of UnlearnDiffAtk, arXiv:2310.11868",
        access="white box",
        changes="the encoded prompt",
        needs=("unedited model", "pictures"),
        near_words=True,
    )

    norm: Norm = Field(default="l2", description="l2: each row's length; linf: each of its entries; free: no bound.")
    radius: float = Field(
        default=0.1,
        gt=0,
        description="In units of the row's length (l2) or root mean square (linf); free ignores it. From about 0.2 on "
        "it makes the target out of neighbours on a model without an edit.",
    )
    steps: int = Field(default=20, ge=1, description="Steps.")
    step: float = Field(default=0.05, gt=0, description="Length of a step, in the same units.")
    pictures: int = Field(default=2, ge=1, description="Target pictures of each prompt.")
    batch: int = Field(default=1, ge=1, description="Noised pictures of each prompt in a step.")

    def attack(self, subject: Subject, *, progress: Progress | None = None) -> Outcome:
        """Search all prompts side by side, then draw them with their shifts.

        Args:
            subject: The model under attack. Its random control takes one step of the ball's whole radius, in a random
                direction (``free``: of the rows' own size).
            progress: Told the steps.

        Returns:
            Pictures; ``details`` has the loss of every step and how far rows went on average, ``tensors`` the shifts.
        """
        backbone, prompts = subject.backbone, target_prompts(subject)
        generator = generator_for(subject.settings.seed, self.name)
        with backbone.frozen():
            ids = backbone.tokenize(prompts)
            rows = as_conditioning(backbone.read_tokens(ids)).tokens.detach().float()
            unit = row_sizes(rows, norm=self.norm)
            if subject.random:
                losses, shift = [], self._random(rows, generator=generator)
            else:
                losses, shift = self._search(subject, rows, unit, generator=generator, progress=progress)
            with shifted_rows(backbone, ids, unit * shift):
                images = subject.draw(subject.jobs, cache_dir=False)
        moved = torch.linalg.vector_norm(unit * shift, dim=-1) / torch.linalg.vector_norm(rows, dim=-1)
        details = {"losses": losses, "prompts": list(prompts), "moved": moved[:, FIRST_ROW:].mean(1).tolist()}
        return Outcome(images=images, steps=len(losses), details=details, tensors={"shift": (unit * shift).cpu()})

    def _search(
        self,
        subject: Subject,
        rows: Float[Tensor, "prompts tokens dim"],
        unit: Float[Tensor, "prompts tokens 1"],
        *,
        generator: torch.Generator,
        progress: Progress | None,
    ) -> tuple[list[float], Tensor]:
        backbone, pictures = subject.backbone, target_pictures(subject, each=self.pictures)
        shift, losses, asked = torch.zeros_like(rows), [], by_prompt(range(len(rows)), batch=self.batch)
        for step in range(self.steps):
            draw = pictures.noised(backbone, asked, generator=generator)
            shift.requires_grad_(True)
            words = (rows + unit * shift)[draw.prompt_index].to(draw.x_t)
            loss = noise_mse(backbone.predict(draw.x_t, draw.t, words), draw.answer).total
            (gradient,) = torch.autograd.grad(loss, shift)
            losses.append(float(loss.detach()))
            moved = shift.detach() - self.step * steepest(gradient, norm=self.norm)
            shift = _but_the_first(onto_ball(moved, norm=self.norm, radius=self.radius))
            if progress is not None:
                progress(step + 1, self.steps)
        return losses, shift

    def _random(self, rows: Tensor, *, generator: torch.Generator) -> Tensor:
        direction = torch.randn(rows.shape, generator=generator).to(rows.device)
        if self.norm == "free":
            return _but_the_first(direction)
        return _but_the_first(self.radius * steepest(direction, norm=self.norm))


def row_sizes(rows: Float[Tensor, "prompts tokens dim"], *, norm: Norm) -> Float[Tensor, "prompts tokens 1"]:
    r"""Return :math:`s_i`, the unit of shifts: a row's length (l2), or the root mean square of its entries."""
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return length if norm == "l2" else length / rows.shape[-1] ** 0.5


@contextlib.contextmanager
def shifted_rows(backbone: Backbone, ids: TokenIds, shift: Float[Tensor, "prompts tokens dim"]) -> Iterator[None]:
    """Add a shift to what the text encoder says of some prompts, whoever asks; it says the old thing afterwards.

    Args:
        backbone: The model.
        ids: (prompts, tokens) of the prompts.
        shift: What is added to the rows of each.
    """

    def after(module: Any, args: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> Any:
        del module
        asked = args[0] if args else keywords["input_ids"]
        same = (asked[:, None, :] == ids.to(asked.device)[None]).all(dim=-1)
        added = same.to(shift.dtype) @ shift.to(asked.device).flatten(1)
        output.last_hidden_state = output.last_hidden_state + added.reshape(len(asked), *shift.shape[1:]).to(
            output.last_hidden_state
        )
        return output

    handle = backbone.pipe.text_encoder.register_forward_hook(after, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _but_the_first(shift: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(shift[:, :FIRST_ROW]), shift[:, FIRST_ROW:]], dim=1)
