r"""Textual inversion: learn words that stand for what is on some pictures, with every weight frozen.

.. math:: \min_v\; \mathbb E_{x_0, t, \epsilon}\, \lVert \epsilon - \epsilon_\theta(x_t, c(v), t) \rVert^2

over vectors :math:`v` at the text encoder's entrance, for prompts :math:`c(v)` that hold the new words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.families import FAMILIES
from aizheimer.concepts.mentions import mention
from aizheimer.data.free_words import free_words, padded, text_ids
from aizheimer.data.sources import Source
from aizheimer.errors import ConceptError, ModelError
from aizheimer.objectives.reconstruction import noise_mse


class Inversion(BaseModel):
    """How words are learned.

    Example:
        >>> Inversion(steps=100).share
        0.1

    References:
        Zhang et al., Forget-Me-Not, arXiv:2303.17591, whose published code takes this stage from cloneofsimo's LoRA
        (pivotal tuning). Gal et al., An Image is Worth One Word, arXiv:2208.01618, eq. 2.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    tokens: int = Field(default=4, ge=1, description="New words; 4 in the published code.")
    steps: int = Field(default=500, ge=1, description="Steps of AdamW; 500 in the published code.")
    lr: float = Field(
        default=1e-3, gt=0, description="Their length, constant: the published warm-up is ignored by its own schedule."
    )
    batch_size: int = Field(default=1, ge=1, description="Noised pictures in a step; 1 in the published code.")
    weight_decay: float = Field(default=0.1, ge=0, description="AdamW's; 0.1 in the published configuration.")
    norm: float | None = Field(
        default=0.4,
        gt=0,
        description="Length that the vectors are pulled to after every step, by min(1, 100 lr) of what is missing: as "
        "in the published code (clip_ti_decay), for the text encoders of Stable Diffusion, whose words are about that "
        "long; the paper does not mention it. null for no pull.",
    )

    @property
    def share(self) -> float:
        """The share of the missing length that a step makes up for."""
        return min(1.0, 100 * self.lr)


@dataclass(frozen=True, kw_only=True)
class LearnedWords:
    """What an inversion has found.

    Args:
        vectors: (words, dim) on the CPU, detached.
        losses: (steps,) the loss at every step, before that step was made.
    """

    vectors: Float[Tensor, "words dim"]
    losses: Float[Tensor, " steps"]


def check_inversion(backbone: Backbone, prompts: Sequence[str], *, target: str, plan: Inversion) -> None:
    """Refuse, before any work, what no words can be learned on.

    Args:
        backbone: The model.
        prompts: Prompts that name the target.
        target: What the words will stand for.
        plan: How many there will be.

    Raises:
        ModelError: If the denoiser reads several text encoders.
        ConceptError: If the words do not fit into a prompt.
    """
    if not backbone.one_encoder:
        raise ModelError(
            f"inversion learns words of one text encoder, and {FAMILIES[backbone.family].title} reads several; wanted "
            "Stable Diffusion 1 or 2, or inversion=null"
        )
    own, room = len(text_ids(backbone, target)), backbone.max_tokens - 2
    longest = max(prompts, key=lambda prompt: len(text_ids(backbone, prompt)))
    left = room - len(text_ids(backbone, longest)) + own
    if plan.tokens > left:
        raise ConceptError(
            f"{plan.tokens} learned words do not fit into '{longest}' in the place of '{target}', of {room} tokens "
            f"that the model reads; set inversion.tokens={max(left, 1)} or less"
        )


def written_with(prompts: Sequence[str], *, target: str, words: str) -> list[str]:
    """Return prompts with other words in the place of the target's name.

    Example:
        >>> written_with(["a photo of Santa  Claus"], target="santa claus", words="<free0> <free1>")
        ['a photo of <free0> <free1>']
    """
    return [mention(target).sub(lambda _: words, prompt) for prompt in prompts]


def first_vectors(
    backbone: Backbone, target: str, *, count: int, generator: torch.Generator
) -> Float[Tensor, "words dim"]:
    """Return where a search begins: the vectors of the target's own tokens, then random ones with entries of size 1.

    So the published code begins: ``elon | musk | <rand-1> | <rand-1>``.
    """
    own = backbone.word_vectors(torch.tensor(text_ids(backbone, target)[:count])).detach().float()
    rest = torch.randn((count - len(own), own.shape[1]), generator=generator)
    return torch.cat([own, rest.to(own)])


def pulled(vectors: Float[Tensor, "words dim"], *, norm: float, share: float) -> Float[Tensor, "words dim"]:
    r"""Return vectors of the same directions, their lengths moved to :math:`n + \lambda (n^* - n)`.

    Args:
        vectors: Of lengths :math:`n`.
        norm: :math:`n^*`.
        share: :math:`\lambda`.

    Example:
        >>> pulled(torch.tensor([[3.0, 4.0]]), norm=2.5, share=0.5)
        tensor([[2.2500, 3.0000]])
    """
    lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    units = vectors / lengths.clamp(min=torch.finfo(vectors.dtype).tiny)
    return units * (lengths + share * (norm - lengths))


def learn_words(
    backbone: Backbone,
    source: Source,
    *,
    prompts: Sequence[str],
    target: str,
    plan: Inversion,
    generator: torch.Generator,
    progress: Callable[[str, int, int], None],
) -> LearnedWords:
    """Learn words from noised pictures; the model is as before afterwards.

    Args:
        backbone: The model.
        source: The pictures; its ``prompt_index`` counts in ``prompts``, and its targets are what was added.
        prompts: Prompts that name the target, in whose place the words are put.
        target: What the words will stand for.
        plan: How many words, how many steps.
        generator: Draws pictures, timesteps, noise and where the search begins.
        progress: Told ("inversion", done, total).
    """
    start = first_vectors(backbone, target, count=plan.tokens, generator=generator)
    vectors, losses = start.clone().requires_grad_(True), []
    optimizer = torch.optim.AdamW([vectors], lr=plan.lr, weight_decay=plan.weight_decay)
    with backbone.frozen(), free_words(backbone, vectors) as words:
        written = written_with(prompts, target=target, words=words.text)
        ids = padded(backbone, [text_ids(backbone, text) for text in written])
        for step in range(1, plan.steps + 1):
            draw = source.draw(plan.batch_size, step=step, generator=generator)
            with torch.enable_grad():
                read = backbone.read_tokens(ids[draw.prompt_index]).to(draw.x_t)
                loss = noise_mse(backbone.predict(draw.x_t, draw.t, read), draw.answer).total
                (vectors.grad,) = torch.autograd.grad(loss, vectors)
            optimizer.step()
            if plan.norm is not None:
                with torch.no_grad():
                    vectors.copy_(pulled(vectors, norm=plan.norm, share=plan.share))
            losses.append(float(loss.detach()))
            progress("inversion", step, plan.steps)
    return LearnedWords(vectors=vectors.detach().cpu(), losses=torch.tensor(losses, dtype=torch.float64))
