r"""P4D: a prompt to which the edited model answers as the unedited one does to the target's prompt.

.. math:: \min_{P^*}\; \mathbb E_{x_t, t}\,
    \lVert \epsilon_\theta(x_t, c(P^*), t) - \epsilon_0(x_t, c(P), t) \rVert^2

:math:`\epsilon_\theta` is the *edited* model and :math:`\epsilon_0` the unedited one: a prompt that is searched
against the unedited model itself tests nothing but whether it transfers. The prompt is searched as vectors; what is
read at each step are the nearest words to them, and the gradient found there moves the vectors (PEZ's hard prompts).

P4D-N searches N words of its own; P4D-K leaves the target's prompt as it is and puts a word before each K of its
tokens, and one at the end if the last lot is full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer._typing import TokenIds
from aizheimer.attacks._pictures import by_prompt, target_pictures, target_prompts
from aizheimer.attacks._words import TokenPrompt, draw_tokens, found_prompts
from aizheimer.attacks.base import AttackInfo, Outcome, Progress, Subject
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import as_conditioning
from aizheimer.data.free_words import nearest, padded, text_ids, vocabulary
from aizheimer.data.sources import Draw
from aizheimer.objectives.noise_target import target_mse


class P4D(BaseModel):
    """Search a prompt of words for each of the target's prompts.

    Example:
        >>> P4D(variant="n", tokens=8).variant
        'n'

    References:
        Chin et al., Prompting4Debugging: Red-Teaming Text-to-Image Diffusion Models by Finding Problematic Prompts,
        arXiv:2309.06135. Wen et al., Hard Prompts Made Easy (PEZ), arXiv:2302.03668, algorithm 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str] = "p4d"
    info: ClassVar[AttackInfo] = AttackInfo(
        paper="Chin et al., Prompting4Debugging (P4D), arXiv:2309.06135",
        access="white box",
        changes="the prompt: words inside of it (k), or all of it (n)",
        needs=("unedited model", "pictures"),
    )

    variant: Literal["k", "n"] = Field(
        default="k",
        description="k: words inside the target's prompt; n: a prompt of its own. The paper reports both.",
    )
    tokens: int = Field(default=16, ge=1, description="N, words of the prompt of variant n; 16 in the published code.")
    every: int = Field(default=3, ge=1, description="K, the prompt's tokens between two words of variant k; 3 there.")
    steps: int = Field(default=200, ge=1, description="Steps of AdamW; 3000 in the published code.")
    lr: float = Field(default=0.1, gt=0, description="Their length; 0.1 in the published code.")
    weight_decay: float = Field(default=0.1, ge=0, description="Pull to zero; 0.1 in the published code.")
    batch: int = Field(default=1, ge=1, description="Examples of each prompt in a step; 1 in the published code.")
    examples: int = Field(
        default=16, ge=1, description="Noised pictures of each prompt to compare on; the published code noises anew."
    )
    look_every: int = Field(default=20, ge=1, description="Steps between two looks at all examples; the best is kept.")

    def attack(self, subject: Subject, *, progress: Progress | None = None) -> Outcome:
        """Search for all prompts side by side, then draw with the best words found for each.

        Args:
            subject: The model under attack. Its random control draws random words in the same places.
            progress: Told the steps.

        Returns:
            Pictures; ``details`` has the prompts, the mean loss of each step and each prompt's loss on all examples.

        Raises:
            InputError: If so many words do not fit what the model reads.
        """
        backbone, prompts = subject.backbone, target_prompts(subject)
        generator = generator_for(subject.settings.seed, self.name)
        plan = self._places(backbone, prompts)
        losses, scores = [], None
        with backbone.frozen():
            chosen = torch.randint(len(plan.words), (int(plan.free.sum()),), generator=generator)
            if not subject.random:
                examples = self._examples(subject, generator=generator)
                search = _Search(settings=self, backbone=backbone, plan=plan, examples=examples, losses=losses)
                chosen, scores = search.run(chosen, generator=generator, progress=progress)
            said = [TokenPrompt(row) for row in plan.filled(chosen)]
            jobs = subject.jobs
            images = draw_tokens(
                subject, [said[prompts.index(job.prompt)] for job in jobs], seeds=[job.seed for job in jobs]
            )
        details = {"losses": losses, "scores": scores, "targets": list(prompts), "found": found_prompts(backbone, said)}
        return Outcome(images=images, steps=len(losses), details=details)

    def _places(self, backbone: Backbone, prompts: Sequence[str]) -> Places:
        if self.variant == "n":
            return Places.of(backbone, [[None] * self.tokens] * len(prompts))
        return Places.of(backbone, [interleaved(text_ids(backbone, text), every=self.every) for text in prompts])

    def _examples(self, subject: Subject, *, generator: torch.Generator) -> Draw:
        """Return noised pictures with what the *unedited* model predicts for the target's prompt, grouped by prompt."""
        pictures = target_pictures(subject, each=1)
        draw = pictures.noised(
            subject.backbone, by_prompt(range(len(pictures.prompts)), batch=self.examples), generator=generator
        )
        with subject.unedited() as original, torch.no_grad():
            words = original.encode_prompts(pictures.prompts).to(draw.x_t)
            size = subject.settings.batch_size
            parts = [slice(i, i + size) for i in range(0, len(draw), size)]
            target = torch.cat([original.predict(draw.x_t[p], draw.t[p], words[draw.prompt_index[p]]) for p in parts])
        return Draw(x_t=draw.x_t, t=draw.t, prompt_index=draw.prompt_index, target=target)


def interleaved(ids: Sequence[int], *, every: int) -> list[int | None]:
    """Return a prompt's tokens with free places (None): one before each ``every`` tokens, one after a full lot.

    Example:
        >>> interleaved([7, 8, 9, 6], every=2)
        [None, 7, 8, None, 9, 6, None]
    """
    places = [place for i in range(0, len(ids), every) for place in (None, *ids[i : i + every])]
    return [*places, None] if len(ids) % every == 0 else places


@dataclass(frozen=True, kw_only=True)
class Places:
    """Prompts with free places, and the words that may stand there.

    Args:
        ids: (prompts, tokens) padded ids, any word's at free places.
        free: (prompts, tokens) where words are searched, row by row.
        lengths: Tokens of each prompt, without start and end.
        words: (words,) ids to choose from.
        table: (words, dim) their vectors, in float32.
    """

    ids: TokenIds
    free: Bool[Tensor, "prompts tokens"]
    lengths: tuple[int, ...]
    words: Int[Tensor, " words"]
    table: Float[Tensor, "words dim"]

    @classmethod
    def of(cls, backbone: Backbone, bodies: Sequence[Sequence[int | None]]) -> Places:
        """Return the places of prompts in which None is a free one."""
        words = vocabulary(backbone)
        ids = padded(backbone, [[int(words[0]) if i is None else i for i in body] for body in bodies])
        free = torch.zeros_like(ids, dtype=torch.bool)
        for row, body in enumerate(bodies):
            free[row, 1 : 1 + len(body)] = torch.tensor([i is None for i in body])
        table = backbone.word_vectors(words).detach().float()
        return cls(ids=ids, free=free, lengths=tuple(map(len, bodies)), words=words, table=table)

    def read(self, backbone: Backbone, vectors: Float[Tensor, "places dim"]) -> Tensor:
        """Return what the text encoder says (prompts, tokens, dim) with these vectors at the free places."""
        own = backbone.word_vectors(self.ids).detach()
        free = self.free.to(own.device)
        read = own.masked_scatter(free[..., None], vectors.to(own))
        return as_conditioning(backbone.read_tokens(self.ids, vectors=read)).tokens

    def filled(self, chosen: Int[Tensor, " places"]) -> list[tuple[int, ...]]:
        """Return the prompts' ids with words of these numbers at the free places."""
        ids = self.ids.masked_scatter(self.free, self.words[chosen.cpu()])
        return [tuple(row[1 : 1 + length]) for row, length in zip(ids.tolist(), self.lengths, strict=True)]


@dataclass(kw_only=True)
class _Search:
    """One search.

    Args:
        settings: Steps.
        backbone: The edited model.
        plan: Where words are searched.
        examples: What the unedited model predicts.
        losses: Of every step so far.
    """

    settings: P4D
    backbone: Backbone
    plan: Places
    examples: Draw
    losses: list[float]

    def run(
        self, chosen: Tensor, *, generator: torch.Generator, progress: Progress | None
    ) -> tuple[Tensor, list[float]]:
        """Return the best words found for each prompt's places, and each prompt's loss with them."""
        settings, table = self.settings, self.plan.table
        vectors = table[chosen.to(table.device)].clone().requires_grad_(True)
        optimizer = torch.optim.AdamW([vectors], lr=settings.lr, weight_decay=settings.weight_decay)
        best, scores = chosen.clone(), torch.full((len(self.plan.ids),), float("inf"))
        owner = self.plan.free.nonzero()[:, 0]
        for step in range(settings.steps + 1):
            nearby = nearest(vectors.detach(), table)
            if step % settings.look_every == 0 or step == settings.steps:
                now = self.scores(table[nearby])
                best = torch.where((now < scores)[owner], nearby.cpu(), best)
                scores = torch.minimum(now, scores)
            if step == settings.steps:
                break
            read = table[nearby].requires_grad_(True)
            vectors.grad = self._gradient(read, generator=generator)
            optimizer.step()
            if progress is not None:
                progress(step + 1, settings.steps)
        return best, scores.tolist()

    def _gradient(self, read: Tensor, *, generator: torch.Generator) -> Tensor:
        prompts, held = len(self.plan.ids), self.settings.examples
        inside = torch.randint(held, (prompts, self.settings.batch), generator=generator)
        index = (inside + held * torch.arange(prompts)[:, None]).flatten().to(self.examples.t.device)
        loss = self._loss(self.plan.read(self.backbone, read), index)
        self.losses.append(float(loss.detach().mean()))
        return torch.autograd.grad(loss.sum(), read)[0]

    @torch.no_grad()
    def scores(self, read: Tensor) -> Tensor:
        """Return each prompt's loss (prompts,) on all examples, on the CPU."""
        words, size = self.plan.read(self.backbone, read), self.settings.examples
        parts = torch.arange(len(self.examples), device=self.examples.t.device).split(size)
        return torch.cat([self._loss(words, part) for part in parts]).cpu()

    def _loss(self, words: Tensor, index: Tensor) -> Tensor:
        """Return the mean squared error (prompts,) of each prompt among these examples, in their order."""
        draw, rows = self.examples, self.examples.prompt_index[index]
        predicted = self.backbone.predict(draw.x_t[index], draw.t[index], words[rows].to(draw.x_t))
        asked = rows.unique_consecutive()
        return torch.stack([target_mse(predicted[rows == p], draw.answer[index][rows == p]).total for p in asked])
