r"""UnlearnDiffAtk: words before the prompt with which the edited model recognises a picture of the target.

For a picture :math:`x_0` of the target and a prompt :math:`c'` of :math:`k` words before the target's own,

.. math:: \min_{c'}\; \mathbb E_{\epsilon}\, \lVert \epsilon - \epsilon_\theta(x_t, c', t) \rVert^2

timestep after timestep: a diffusion model is a classifier of its own, so no other one is needed. A word is drawn from
probabilities :math:`p` over the vocabulary; Adam steps on :math:`p` along the straight-through gradient, and :math:`p`
is brought back to the simplex. After each timestep the likeliest words are tried, and the search for a picture ends
with its first success.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer.attacks._pictures import TargetPictures, by_prompt, target_pictures, target_prompts
from aizheimer.attacks._projections import onto_simplex, straight_through
from aizheimer.attacks._words import TokenPrompt, draw_tokens, found_prompts
from aizheimer.attacks.base import AttackInfo, Outcome, Progress, Subject
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import as_conditioning
from aizheimer.data.free_words import vocabulary
from aizheimer.data.words import check_room
from aizheimer.objectives.reconstruction import noise_mse


class UnlearnDiffAtk(BaseModel):
    """Search words to put before each prompt.

    Example:
        >>> UnlearnDiffAtk(tokens=3).tokens
        3

    References:
        Zhang et al., To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To Generate Unsafe
        Images ... For Now, arXiv:2310.11868.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str] = "unlearndiffatk"
    info: ClassVar[AttackInfo] = AttackInfo(
        paper="Zhang et al., To Generate or Not? (UnlearnDiffAtk), arXiv:2310.11868",
        access="white box",
        changes="the prompt: words before it",
        needs=("unedited model", "pictures", "judge"),
    )

    tokens: int = Field(default=5, ge=1, description="Words before the prompt; 5 in the published code for nudity.")
    timesteps: int = Field(default=5, ge=1, description="Timesteps, from clean to noisy; 50 in the paper.")
    steps: int = Field(default=20, ge=1, description="Steps of Adam at each timestep; 40 in the paper.")
    lr: float = Field(default=0.01, gt=0, description="Their length; 0.01 in the paper.")
    weight_decay: float = Field(default=0.1, ge=0, description="Pull to zero, within the gradient; 0.1 in the paper.")
    pictures: int = Field(default=1, ge=1, description="Target pictures of each prompt; 1 in the paper.")
    batch: int = Field(default=1, ge=1, description="Noised pictures of each prompt in a step; 1 in the paper.")

    def attack(self, subject: Subject, *, progress: Progress | None = None) -> Outcome:
        """Search for all prompts side by side; pictures that show the target are kept and not tried again.

        Args:
            subject: The model under attack. Its random control tries random words as often.
            progress: Told the steps.

        Returns:
            Pictures: the successful ones, or the last; ``details`` has the words of each picture, the mean loss of each
            step and at which try each picture succeeded.

        Raises:
            ConceptError: If a prompt leaves no room for so many words.
        """
        backbone, prompts, jobs = subject.backbone, target_prompts(subject), subject.jobs
        check_room(backbone, prompts, tokens=self.tokens)
        of_job = [prompts.index(job.prompt) for job in jobs]
        open_jobs, found_at, queries = list(range(len(jobs))), {}, 0
        said: dict[int, TokenPrompt] = {}
        images: dict[int, np.ndarray] = {}
        with backbone.frozen():
            search = self._search_for(subject, prompts)
            for attempt, t in enumerate(spread(backbone.schedule.num_steps, self.timesteps)):
                active = sorted({of_job[i] for i in open_jobs})
                tokens = search.guess() if subject.random else search.run(t, active, progress=progress)
                said |= {i: TokenPrompt(tokens[of_job[i]], jobs[i].prompt) for i in open_jobs}
                drawn = draw_tokens(subject, [said[i] for i in open_jobs], seeds=[jobs[i].seed for i in open_jobs])
                images |= dict(zip(open_jobs, drawn, strict=True))
                queries += len(open_jobs)
                found_at |= {i: attempt + 1 for i, hit in zip(open_jobs, subject.shows(drawn), strict=True) if hit}
                open_jobs = [i for i in open_jobs if i not in found_at]
                if not open_jobs:
                    break
        details = {
            "losses": search.losses,
            "tries_to_success": [found_at.get(i) for i in range(len(jobs))],
            "found": found_prompts(backbone, [said[i] for i in range(len(jobs))]),
        }
        drawn = np.stack([images[i] for i in range(len(jobs))])
        return Outcome(images=drawn, queries=queries, steps=len(search.losses), details=details)

    def _search_for(self, subject: Subject, prompts: Sequence[str]) -> _Search:
        backbone = subject.backbone
        words = vocabulary(backbone)
        # Uniform, as the published code starts without rand_init.
        chances = torch.full((len(prompts), self.tokens, len(words)), 1 / len(words)).requires_grad_(True)
        return _Search(
            plan=self,
            backbone=backbone,
            pictures=None if subject.random else target_pictures(subject, each=self.pictures),
            prompts=tuple(prompts),
            words=words,
            table=backbone.word_vectors(words).detach().float().cpu(),
            chances=chances,
            optimizer=torch.optim.Adam([chances], lr=self.lr, weight_decay=self.weight_decay),
            generator=generator_for(subject.settings.seed, self.name, "random" if subject.random else "search"),
            losses=[],
        )


@dataclass(kw_only=True)
class _Search:
    """The probabilities of all prompts' words, and what moves them.

    Args:
        plan: Steps.
        backbone: The edited model.
        pictures: Of the target; None for random words.
        prompts: The target's.
        words: (words,) ids to choose from.
        table: (words, dim) their vectors.
        chances: (prompts, tokens, words) probabilities.
        optimizer: Of the probabilities.
        generator: Draws words, pictures and noise.
        losses: Mean over the prompts that were searched for, of every step so far.
    """

    plan: UnlearnDiffAtk
    backbone: Backbone
    pictures: TargetPictures | None
    prompts: tuple[str, ...]
    words: Tensor
    table: Tensor
    chances: Tensor
    optimizer: torch.optim.Adam
    generator: torch.Generator
    losses: list[float]

    def run(self, t: int, active: Sequence[int], *, progress: Progress | None) -> list[tuple[int, ...]]:
        """Take all steps at one timestep for some of the prompts; return every prompt's likeliest words."""
        for _ in range(self.plan.steps):
            loss, gradient = self._look(t, active)
            self.losses.append(loss)
            self.chances.grad = torch.zeros_like(self.chances)
            self.chances.grad[list(active)] = gradient
            self.optimizer.step()
            with torch.no_grad():
                self.chances.copy_(onto_simplex(self.chances))
            if progress is not None:
                progress(len(self.losses), self.plan.steps * self.plan.timesteps)
        return [tuple(row) for row in self.words[self.chances.argmax(dim=-1)].tolist()]

    def guess(self) -> list[tuple[int, ...]]:
        """Return random words for every prompt."""
        shape = self.chances.shape[:2]
        return [tuple(row) for row in self.words[_any(len(self.words), shape, self.generator)].tolist()]

    def _look(self, t: int, active: Sequence[int]) -> tuple[float, Tensor]:
        """Draw words, read them, and return the loss and its straight-through gradient for the probabilities."""
        if self.pictures is None:
            raise ValueError("a search needs pictures")
        backbone, chances = self.backbone, self.chances.detach()[list(active)]
        drawn = torch.multinomial(chances.flatten(0, 1), 1, generator=self.generator).reshape(chances.shape[:2])
        vectors = self.table[drawn].requires_grad_(True)
        draw = self.pictures.noised(backbone, by_prompt(active, batch=self.plan.batch), generator=self.generator, t=t)
        read = read_behind(backbone, [self.prompts[i] for i in active], vectors)
        read = read.repeat_interleave(self.plan.batch, dim=0).to(draw.x_t)
        mean = noise_mse(backbone.predict(draw.x_t, draw.t, read), draw.answer).total
        # Every prompt's loss counts whole, however many there are: weight decay is measured against it.
        (gradient,) = torch.autograd.grad(mean * len(active), vectors)
        return float(mean.detach()), straight_through(gradient, self.table)


def read_behind(backbone: Backbone, prompts: Sequence[str], vectors: Float[Tensor, "prompts k dim"]) -> Tensor:
    """Return what the text encoder says (prompts, tokens, dim) of prompts, each behind free vectors of its own."""
    ids = backbone.tokenize(prompts)
    own, count = backbone.word_vectors(ids).detach(), vectors.shape[1]
    read = torch.cat([own[:, :1], vectors.to(own), own[:, 1 : own.shape[1] - count]], dim=1)
    # Any id does but end-of-text, by which an encoder finds where the text ends.
    ids = torch.cat([ids[:, :1].expand(-1, count + 1), ids[:, 1 : ids.shape[1] - count]], dim=1)
    return as_conditioning(backbone.read_tokens(ids, vectors=read)).tokens


def spread(total: int, count: int) -> list[int]:
    """Return timesteps in the middle of equal parts, from clean to noisy, as the published code takes them.

    Example:
        >>> spread(1000, 5)
        [100, 300, 500, 700, 900]
    """
    width = max(1, total // count)
    return list(range(width // 2, total, width))[:count]


def _any(count: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.randint(count, tuple(shape), generator=generator)
