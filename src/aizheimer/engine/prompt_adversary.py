"""An adversary in the prompt: vectors after its words that bring the concept back, and learn while it is erased."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import Parameter

from aizheimer.engine.optim import load_optimizer, optimizer_tensors
from aizheimer.objectives.noise_target import target_mse

_NAMES = ["vectors"]


class PromptAdversary:
    r"""Vectors in the place of the padding that make the edited model predict what the frozen one does for the concept.

    .. math:: v \leftarrow \arg\min_v \operatorname{MSE}\big(\epsilon_\theta(x_t, [c, v]),\; \epsilon_0(x_t, c)\big)

    by some steps of Adam before each step of the parameters. The vectors and the optimiser's state go on from one step
    to the next; they are a companion of the training loop.

    Args:
        count: Vectors.
        dim: Entries of one, as of a token's embedding.
        steps: Steps of the attack at a time.
        lr: Their rate; 0.1 in the paper's code.
        weight_decay: Pull towards zero, coupled into the gradient; 0.1 in the paper's code.
        generator: Draws the first vectors, uniform in [0, 1).
        device: Where they are.

    References:
        Huang et al., Receler, arXiv:2311.17717, section 3.4.
    """

    def __init__(
        self,
        count: int,
        dim: int,
        *,
        steps: int,
        lr: float,
        weight_decay: float,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self.vectors = Parameter(torch.rand((count, dim), generator=generator).to(device))
        self.optimizer = torch.optim.Adam([self.vectors], lr=lr, weight_decay=weight_decay)
        self.steps = steps

    def written(self, words: Tensor, starts: Tensor) -> Tensor:
        """Return prompts with the vectors written over what is there.

        Args:
            words: (batch, tokens, dim) encoded prompts.
            starts: (batch,) where the first vector goes.
        """
        places = starts[:, None].to(words.device) + torch.arange(len(self.vectors), device=words.device)
        index = places[:, :, None].expand(-1, -1, words.shape[2])
        return words.scatter(1, index, self.vectors.to(words).expand(len(words), -1, -1))

    def strengthen(
        self, predict: Callable[[Tensor], Tensor], words: Tensor, *, starts: Tensor, concept: Tensor
    ) -> Tensor:
        """Attack the model as it is now.

        Args:
            predict: Returns the edited model's predictions under encoded prompts.
            words: See `written`.
            starts: See `written`.
            concept: The frozen model's predictions for the concept: what the attack wants back.

        Returns:
            The last step's loss before its update, for the log; 0 when there are no steps.
        """
        loss = torch.zeros(())
        for _ in range(self.steps):
            loss = target_mse(predict(self.written(words, starts)), concept).total
            (self.vectors.grad,) = torch.autograd.grad(loss, [self.vectors])
            self.optimizer.step()
        self.vectors.grad = None
        return loss.detach()

    def advance(self, step: int) -> None:
        """Do nothing: it learns before the parameters do, in `strengthen`."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the vectors and the optimiser's state, by name."""
        return {"vectors": self.vectors.detach(), **optimizer_tensors(self.optimizer, _NAMES)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` returned, bit for bit."""
        with torch.no_grad():
            self.vectors.copy_(tensors["vectors"])
        state = {name: tensor.clone() for name, tensor in tensors.items() if name != "vectors"}
        load_optimizer(self.optimizer, _NAMES, state)
