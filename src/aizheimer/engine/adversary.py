"""DoCo's game: a discriminator learns to tell the target from the anchor, the edited model to make it fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditions
from aizheimer.data.sources import Draw, Source
from aizheimer.diffusion.prediction import to_x0
from aizheimer.engine.anchor import Anchor
from aizheimer.engine.batch_shares import predict
from aizheimer.engine.noise_problem import Term
from aizheimer.engine.problem import Loss
from aizheimer.objectives.adversarial import PatchDiscriminator, deception_loss, discriminator_loss

_STATE = ("exp_avg", "exp_avg_sq", "step")


class Adversary:
    """A discriminator that learns beside the edited model; a companion of the training loop.

    Args:
        network: The discriminator.
        lr: Its learning rate; Adam with betas 0.5 and 0.999.
        device: Where it works.
        leaky: Also follow the gradient of what deceives it, as the published code does, which does not clear it.
    """

    def __init__(self, network: PatchDiscriminator, *, lr: float, device: torch.device, leaky: bool = False) -> None:
        self.network = network.to(device)
        self.names = [name for name, _ in network.named_parameters()]
        self.optimizer = torch.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999))
        self.leaky = leaky
        self.batches: list[tuple[Tensor, Tensor, bool]] = []
        # Gradients are asked for in `advance` only: what deceives it must not train it.
        self.network.requires_grad_(False)

    def judge(self, x_0: Tensor) -> Tensor:
        """Return the logits of clean latents, with gradients into the latents and none into the discriminator."""
        return self.network(x_0)

    def remember(self, anchor: Tensor, target: Tensor, *, deceiving: bool = False) -> Tensor:
        """Keep a batch of clean latents for `advance`; returns the discriminator's loss on it, for the log.

        Args:
            anchor: The frozen model's.
            target: The edited model's.
            deceiving: Whether the edited model is trained on this batch too.
        """
        self.batches.append((anchor.detach(), target.detach(), deceiving))
        with torch.no_grad():
            return discriminator_loss(self.network(anchor), self.network(target.detach()))

    def advance(self, step: int) -> None:
        """Learn from the batches since the last call: one step on their mean loss."""
        self.network.requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        for anchor, target, deceiving in self.batches:
            logits = self.network(target)
            loss = discriminator_loss(self.network(anchor), logits)
            if self.leaky and deceiving:
                loss = loss + deception_loss(logits)
            (loss / len(self.batches)).backward()
        self.optimizer.step()
        self.network.requires_grad_(False)
        self.batches.clear()

    def tensors(self) -> dict[str, Tensor]:
        """Return the discriminator's weights and its optimiser's state, by name."""
        found = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        for i, values in self.optimizer.state_dict()["state"].items():
            found |= {f"{key}/{self.names[i]}": values[key] for key in _STATE}
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` returned, bit for bit."""
        self.network.load_state_dict({name: tensors[f"network/{name}"] for name in self.network.state_dict()})
        state = {
            i: {key: tensors[f"{key}/{name}"].clone() for key in _STATE}
            for i, name in enumerate(self.names)
            if f"step/{name}" in tensors
        }
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


@dataclass(frozen=True, kw_only=True)
class AdversarialTerm:
    r"""Make the target's clean latents pass for the anchor's.

    :math:`r = \hat x_0(\epsilon_0(x_t, c^*))` and :math:`f = \hat x_0(\epsilon_\theta(x_t, c))` on the same latents.
    The loss is :math:`\operatorname{BCE}(D(f), 0)`. During the first steps only the discriminator learns.

    Args:
        backbone: The network being edited.
        source: Noised pictures of the anchor.
        embeddings: The concept's prompts.
        anchor: Knows the frozen model's predictions under the anchor's words.
        batch_size: Examples in a batch.
        adversary: The discriminator.
        warmup: Steps in which only it learns.
    """

    backbone: Backbone
    source: Source
    embeddings: Conditions
    anchor: Anchor
    batch_size: int
    adversary: Adversary
    warmup: int

    def losses(self, step: int, generator: torch.Generator) -> dict[str, Loss]:
        """Return "deceive" after the warm-up, and the discriminator's own loss at weight 0, for the log."""
        draw = self.source.draw(self.batch_size, step=step, generator=generator)
        real = self._clean(self.anchor.predict(draw), draw)
        warming = step <= self.warmup
        with torch.set_grad_enabled(not warming):
            words = self.embeddings[draw.prompt_index].to(draw.x_t)
            fake = self._clean(predict(self.backbone, draw.x_t, draw.t, words), draw)
        seen = self.adversary.remember(real, fake, deceiving=not warming)
        losses = {"discriminator": Loss(seen, 0.0, role="adversarial")}
        if not warming:
            losses["deceive"] = Loss(deception_loss(self.adversary.judge(fake)), role="adversarial")
        return losses

    def _clean(self, prediction: Tensor, draw: Draw) -> Tensor:
        return to_x0(prediction, draw.x_t, draw.t, self.backbone.schedule, self.backbone.prediction_type)


@dataclass(frozen=True, kw_only=True)
class AfterWarmup:
    """A term that starts when the discriminator's warm-up is over.

    Args:
        term: The term.
        warmup: Steps without it.
    """

    term: Term
    warmup: int

    def losses(self, step: int, generator: torch.Generator) -> Mapping[str, Loss]:
        """Return the term's losses, or none during the warm-up."""
        return {} if step <= self.warmup else self.term.losses(step, generator)
