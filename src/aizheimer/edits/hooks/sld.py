"""Safe Latent Diffusion: a third prediction, of the concept, is taken out of the guidance where the prompt nears it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from aizheimer._typing import Latents
from aizheimer.backbones.conditioning import Conditioning, expanded
from aizheimer.edits.hook import Patches
from aizheimer.edits.hooks.calls import CallWatch, of_rows

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


def safety_guidance(prompt: Latents, concept: Latents, *, null: Latents, scale: float, threshold: float) -> Latents:
    r"""Return the part of the guidance that leads to the concept, without momentum.

    .. math:: \mu \odot (\epsilon_S - \epsilon_\varnothing), \quad
        \mu = \min(1, s_S |\epsilon_p - \epsilon_S|) \text{ where } \epsilon_p - \epsilon_S < \lambda, \text{ else } 0

    The larger :math:`s_S` and :math:`\lambda`, the more is taken away.

    Args:
        prompt: Prediction for the prompt.
        concept: Prediction for the concept.
        null: Prediction for the empty prompt.
        scale: :math:`s_S`, 0 or more.
        threshold: :math:`\lambda`.

    References:
        Schramowski et al., Safe Latent Diffusion, arXiv 2211.05105, equations 3 to 6; the clip at 1 is that of the
        published code.
    """
    difference = prompt - concept
    weight = (scale * difference.abs()).clamp(max=1.0)
    return torch.where(difference < threshold, weight, torch.zeros_like(weight)) * (concept - null)


@dataclass(frozen=True)
class SLDHook:
    r"""Let guidance be :math:`\epsilon_\varnothing + w(\epsilon_p - \epsilon_\varnothing - \gamma)`.

    :math:`\gamma_t = \mu_t \odot (\epsilon_S - \epsilon_\varnothing) + s_m \nu_t` with the momentum
    :math:`\nu_{t+1} = \beta_m \nu_t + (1 - \beta_m)\gamma_t`, which is gathered from the first step and acts after the
    warm-up. The denoiser hands :math:`\epsilon_p - s\gamma` to the pipeline's own guidance, with the strength s; that
    costs one more evaluation for each picture and step. Without guidance it does nothing, and warns.

    Args:
        words: The concept.
        scale: :math:`s_S`.
        threshold: :math:`\lambda`, in units of the prediction.
        momentum_scale: :math:`s_m`.
        momentum_beta: :math:`\beta_m`, in [0, 1).
        warmup: Evaluations of a picture before it acts.
        warmup_reference: Steps that the warm-up is counted for; it is scaled to a call with more or fewer. 0: as it is.
        warmup_by_timestep: Compare the warm-up with the timestep's value, as UnlearnDiffAtk does.
    """

    name: ClassVar[str] = "sld"
    words: str
    scale: float
    threshold: float
    momentum_scale: float
    momentum_beta: float
    warmup: int
    warmup_reference: int = 0
    warmup_by_timestep: bool = False

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """None: words and numbers are enough."""
        return {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """Words and numbers."""
        return asdict(self)

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Return the hook with these settings."""
        return cls(**settings)

    def acts(self, step: int, timestep: float, *, steps: int) -> bool:
        """Whether the warm-up is over.

        Args:
            step: Evaluation of the picture, from 0.
            timestep: Its timestep.
            steps: How many evaluations the call makes.
        """
        if self.warmup_by_timestep:
            return timestep >= self.warmup
        scaled = self.warmup * steps / self.warmup_reference if self.warmup_reference else self.warmup
        return step >= round(scaled)

    def install(self, pipe: StableDiffusionPipeline, *, strength: float) -> Patches:
        """Wrap the denoiser."""
        patches = Patches()
        _Running(pipe, self, strength).install(patches)
        return patches


@dataclass(eq=False)
class _Running:
    """The hook on one pipeline, with the momentum of the pictures that are being drawn."""

    pipe: StableDiffusionPipeline
    hook: SLDHook
    strength: float
    watch: CallWatch = field(init=False)
    forward: Callable[..., Any] = field(init=False)
    concept: Conditioning | None = None
    momentum: Tensor | None = None

    def install(self, patches: Patches) -> None:
        self.watch = CallWatch(self.pipe, on_loop=self.begin)
        self.watch.install(patches)
        self.forward = self.pipe.unet.forward
        patches.put(self.pipe.unet, "forward", self.predict)

    def begin(self) -> None:
        self.momentum = None
        if not self.watch.guided:
            warnings.warn(
                f"safe latent diffusion away from {self.hook.words!r} does nothing at guidance 1 or less; "
                "draw with more guidance",
                stacklevel=2,
            )
        else:
            self.concept = self.watch.encode_words([self.hook.words])

    def predict(self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, *args: Any, **options: Any) -> Any:
        output = self.forward(sample, timestep, encoder_hidden_states, *args, **options)
        if not self.watch.is_guided_batch(len(sample)) or self.concept is None:
            return output
        rows, step = self.watch.rows, self.watch.tick(timestep)
        if step == 0:
            self.momentum = None
        prediction = output[0]
        null, prompt = prediction.chunk(2)
        words = expanded(self.concept.to(encoder_hidden_states), rows)
        own = {name: of_rows(value, slice(rows, None), size=2 * rows) for name, value in options.items()}
        if words.pooled is not None:  # what else the UNet is told of the picture stays, but the words are the concept's
            own["added_cond_kwargs"] = own["added_cond_kwargs"] | {"text_embeds": words.pooled}
        rest = (of_rows(value, slice(rows, None), size=2 * rows) for value in args)
        concept = self.forward(sample[rows:], timestep, words.tokens, *rest, **own)[0]
        gamma = self.guidance(prompt, concept, null)
        steps = int(getattr(self.pipe, "_num_timesteps", 0))
        if not self.hook.acts(step, float(torch.as_tensor(timestep).max()), steps=steps):
            return output
        changed = torch.cat([null, prompt - self.strength * gamma])
        return (changed, *output[1:]) if isinstance(output, tuple) else type(output)(sample=changed)

    def guidance(self, prompt: Tensor, concept: Tensor, null: Tensor) -> Tensor:
        """Return gamma, and move the momentum on."""
        hook = self.hook
        gamma = safety_guidance(prompt, concept, null=null, scale=hook.scale, threshold=hook.threshold)
        momentum = torch.zeros_like(gamma) if self.momentum is None else self.momentum
        gamma = gamma + hook.momentum_scale * momentum
        self.momentum = hook.momentum_beta * momentum + (1 - hook.momentum_beta) * gamma
        return gamma
