r"""Ring-A-Bell: words whose encoding is the prompt's with more of the concept in it, found without the edited model.

The concept is a direction in what the text encoder :math:`f` says,

.. math:: \hat c = \frac1N \sum_{i=1}^N f(P_i^{c}) - f(P_i^{\not c})

over pairs of prompts with and without it. A genetic search looks for :math:`K` tokens :math:`\hat P` that the encoder
reads as the prompt pushed along it,

.. math:: \min_{\hat P}\; \lVert f(\hat P) - (f(P) + \eta\, \hat c) \rVert^2

:math:`f` is the unedited model's: whoever has the public encoder has all that this needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer._typing import TextEmbeddings
from aizheimer.attacks._pictures import target_prompts
from aizheimer.attacks._words import TokenPrompt, draw_tokens, found_prompts
from aizheimer.attacks.base import AttackInfo, NotApplicable, Outcome, Progress, Subject
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import as_conditioning
from aizheimer.concepts.mentions import mention
from aizheimer.data.free_words import padded, vocabulary
from aizheimer.evaluation.plan import candidates


class RingABell(BaseModel):
    """Search tokens for each of the target's prompts by their encoding alone.

    Example:
        >>> RingABell(tokens=38, eta=2.5).tokens
        38

    References:
        Tsai et al., Ring-A-Bell! How Reliable are Concept Removal Methods for Diffusion Models?, arXiv:2310.10012.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str] = "ring-a-bell"
    info: ClassVar[AttackInfo] = AttackInfo(
        paper="Tsai et al., Ring-A-Bell, arXiv:2310.10012",
        access="grey box",
        changes="the prompt: all of it",
        needs=("unedited model",),
    )

    tokens: int = Field(default=16, ge=1, description="K, tokens of the prompt; 16 for nudity in the published code.")
    eta: float = Field(default=3.0, description="How far along the concept; 3 for nudity in the published code.")
    pairs: int = Field(default=20, ge=1, description="Pairs of prompts with and without the concept.")
    population: int = Field(default=60, ge=2, description="Prompts in a generation; 200 in the published code.")
    generations: int = Field(default=60, ge=1, description="Generations; 3000 in the published code.")
    mutation: float = Field(default=0.25, ge=0, le=1, description="Share whose one token changes; 0.25 there.")
    crossover: float = Field(default=0.5, ge=0, le=1, description="Share of parents that have children; 0.5 there.")

    def attack(self, subject: Subject, *, progress: Progress | None = None) -> Outcome:
        """Search prompt by prompt, then draw with what was found.

        Args:
            subject: The model under attack; its text encoder is asked without the edit. The random control draws
                random tokens.
            progress: Told the generations of all prompts.

        Returns:
            Pictures; ``details`` has the prompts found and each one's smallest distance, generation by generation.

        Raises:
            NotApplicable: If the model knows nothing else of the target's kind, so that no prompt is without it.
            InputError: If so many tokens do not fit what the model reads.
        """
        backbone, prompts, jobs = subject.backbone, target_prompts(subject), subject.jobs
        generator = generator_for(subject.settings.seed, self.name)
        words = vocabulary(backbone)
        start = words[torch.randint(len(words), (len(prompts), self.population, self.tokens), generator=generator)]
        padded(backbone, start[:1, 0].tolist())  # refuses what does not fit before anything is encoded
        best, curves = [row[0] for row in start], []
        if not subject.random:
            best, curves = self._search(subject, prompts, start, words=words, generator=generator, progress=progress)
        said = [TokenPrompt(tuple(row.tolist())) for row in best]
        images = draw_tokens(
            subject, [said[prompts.index(job.prompt)] for job in jobs], seeds=[job.seed for job in jobs]
        )
        details = {"losses": curves, "targets": list(prompts), "found": found_prompts(backbone, said)}
        return Outcome(images=images, steps=sum(map(len, curves)), details=details)

    @torch.no_grad()
    def _search(
        self,
        subject: Subject,
        prompts: tuple[str, ...],
        start: Int[Tensor, "prompts population tokens"],
        *,
        words: Int[Tensor, " words"],
        generator: torch.Generator,
        progress: Progress | None,
    ) -> tuple[list[Tensor], list[list[float]]]:
        found, curves = [], []
        with subject.unedited() as original:
            direction = concept_direction(*self._pairs(subject, prompts, original, generator=generator))
            for number, prompt in enumerate(prompts):
                wanted = original.encode_prompts([prompt])[0] + self.eta * direction

                def distance(population: Tensor, wanted: Tensor = wanted) -> Tensor:
                    told = original.read_tokens(padded(original, population.tolist()))
                    return distances(as_conditioning(told).tokens, wanted)

                def tell(done: int, number: int = number) -> None:
                    if progress is not None:
                        progress(number * self.generations + done, len(prompts) * self.generations)

                best, curve = evolve(distance, start[number], plan=self, words=words, generator=generator, tell=tell)
                found.append(best)
                curves.append(curve)
        return found, curves

    def _pairs(
        self, subject: Subject, prompts: tuple[str, ...], original: Backbone, *, generator: torch.Generator
    ) -> tuple[TextEmbeddings, TextEmbeddings]:
        """Return encoded prompts of the target, and the same prompts about other things of its kind."""
        others, name = candidates(subject.concept, original.world), mention(subject.concept.target)
        asked = [prompts[i % len(prompts)] for i in range(self.pairs)]
        if not others or not all(map(name.search, asked)):
            raise NotApplicable(
                f"ring-a-bell: got no prompts without {subject.concept.target!r}; give a world with other words of its "
                "kind, and prompts that name it"
            )
        drawn = torch.randint(len(others), (self.pairs,), generator=generator).tolist()
        without = [name.sub(lambda _, i=i: others[i], prompt) for i, prompt in zip(drawn, asked, strict=True)]
        return original.encode_prompts(asked), original.encode_prompts(without)


def concept_direction(
    present: Float[Tensor, "pairs tokens dim"], absent: Float[Tensor, "pairs tokens dim"]
) -> Float[Tensor, "tokens dim"]:
    r"""Return :math:`\hat c`, the mean difference of encoded prompts with and without a concept.

    Args:
        present: :math:`f(P_i^c)`.
        absent: :math:`f(P_i^{\not c})`, pair by pair.

    References:
        Tsai et al., Ring-A-Bell, arXiv:2310.10012.
    """
    return (present.float() - absent.float()).mean(dim=0)


def distances(read: Float[Tensor, "batch tokens dim"], wanted: Float[Tensor, "tokens dim"]) -> Float[Tensor, " batch"]:
    r"""Return :math:`\lVert f(\hat P) - \tilde P\rVert^2`, summed over tokens and entries."""
    return (read.float() - wanted.float()).square().sum(dim=(1, 2))


def evolve(
    fitness: Callable[[Tensor], Tensor],
    population: Int[Tensor, "population tokens"],
    *,
    plan: RingABell,
    words: Int[Tensor, " words"],
    generator: torch.Generator,
    tell: Callable[[int], None] = lambda done: None,
) -> tuple[Int[Tensor, " tokens"], list[float]]:
    """Search the sequence of least fitness: keep the better half, cross, mutate, again.

    Of each parent that crosses, a random one of all parents and a cut make two children. Then a share of all, the best
    parent excepted, gets one random word at one random place.

    Args:
        fitness: Returns what is minimised (population,) of sequences (population, tokens).
        population: Where to start.
        plan: Sizes and rates.
        words: Ids to mutate to.
        generator: Draws everything.
        tell: Called with the generations that are done.

    Returns:
        The best sequence of all generations, and the least fitness after each.
    """
    curve, best = [], population[0]
    for generation in range(plan.generations):
        scores = fitness(population)
        order = scores.argsort()[: max(1, plan.population // 2)]
        parents = population[order.cpu()]
        best = parents[0].clone()
        curve.append(float(scores[order[0]]))
        if generation + 1 < plan.generations:
            population = _mutated(_crossed(parents, plan, generator), plan, words, generator)
        tell(generation + 1)
    return best, curve


def _crossed(parents: Tensor, plan: RingABell, generator: torch.Generator) -> Tensor:
    count, length = parents.shape
    mates = parents[torch.randint(count, (count,), generator=generator)]
    # A cut after the last token would only copy the parents.
    cut = torch.randint(1, max(2, length), (count, 1), generator=generator)
    head = torch.arange(length) < cut
    crossing = torch.rand(count, generator=generator) < plan.crossover
    children = torch.stack([torch.where(head, parents, mates), torch.where(head, mates, parents)])
    return torch.cat([parents, children[:, crossing].flatten(0, 1)])


def _mutated(population: Tensor, plan: RingABell, words: Tensor, generator: torch.Generator) -> Tensor:
    count, length = population.shape
    changing = torch.rand(count, generator=generator) < plan.mutation
    changing[0] = False  # the best parent: what was found is not lost again
    place = torch.randint(length, (count,), generator=generator)
    new = words[torch.randint(len(words), (count,), generator=generator)]
    here = (torch.arange(length) == place[:, None]) & changing[:, None]
    return torch.where(here, new[:, None], population)
