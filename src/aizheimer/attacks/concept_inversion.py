r"""Concept inversion: learn a new word for the concept against the edited model (CCE).

An edit takes a concept away from its name; the denoiser may still be able to draw it. Textual inversion looks for a
word that says so: vectors :math:`v` at the text encoder's entrance, with every weight frozen,

.. math:: \min_v\; \mathbb E_{x_0, t, \epsilon}\, \lVert \epsilon - \epsilon_\theta(x_t, c(v), t) \rVert^2

on pictures :math:`x_0` of the target, where :math:`c(v)` is a prompt of the target with the new word in the place of
its name.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer._seeding import generator_for
from aizheimer.attacks._pictures import target_pictures, target_prompts
from aizheimer.attacks.base import AttackInfo, NotApplicable, Outcome, Progress, Subject
from aizheimer.backbones.base import Backbone
from aizheimer.concepts.mentions import mention
from aizheimer.data.free_words import FreeWords, free_words, nearest_words, padded, text_ids, vocabulary
from aizheimer.evaluation.generate import PromptJob
from aizheimer.objectives.prompt_attack import Attack, AttackPlan, search_vectors
from aizheimer.objectives.reconstruction import noise_mse


class ConceptInversion(BaseModel):
    """Learn vectors of a new word from pictures of the target, then ask for the target by that word.

    Example:
        >>> ConceptInversion(tokens=2).tokens
        2

    References:
        Pham et al., Circumventing Concept Erasure Methods For Text-to-Image Generative Models, arXiv:2308.01508.
        Gal et al., An Image is Worth One Word, arXiv:2208.01618, eq. 2.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str] = "concept-inversion"
    info: ClassVar[AttackInfo] = AttackInfo(
        paper="Pham et al., Circumventing Concept Erasure Methods (CCE), arXiv:2308.01508",
        access="white box",
        changes="the meaning of a new word in the prompt",
        needs=("unedited model", "pictures"),
    )

    tokens: int = Field(default=1, ge=1, description="Vectors of the new word; 1 in the paper.")
    steps: int = Field(default=200, ge=1, description="Steps of Adam; up to 5000 in the published scripts.")
    lr: float = Field(default=5e-3, gt=0, description="Their length; 5e-3 in the published scripts, times batch size.")
    pictures: int = Field(default=5, ge=1, description="Target pictures of each prompt.")
    batch: int = Field(default=4, ge=1, description="Noised pictures in a step; 4 x 4 in the published scripts.")

    def attack(self, subject: Subject, *, progress: Progress | None = None) -> Outcome:
        """Learn the word and draw the target's prompts with it.

        Args:
            subject: The model under attack. Its random control draws with vectors of the same length that nothing
                was learned of: those that the search starts from.
            progress: Told the steps.

        Returns:
            Pictures; ``details`` has the loss of every step and the nearest words, ``tensors`` the vectors.

        Raises:
            NotApplicable: If a prompt does not hold the target's name, so that no word can take its place.
            InputError: If the prompts with the new word are longer than the model reads.
        """
        backbone, prompts = subject.backbone, target_prompts(subject)
        generator = generator_for(subject.settings.seed, self.name)
        start = random_words(backbone, self.tokens, generator=generator)
        with backbone.frozen(), free_words(backbone, start) as words:
            written = {prompt: in_place(prompt, subject.concept.target, words.text) for prompt in prompts}
            found = Attack(vectors=start, losses=())
            if not subject.random:
                found = self._search(subject, words, list(written.values()), generator=generator, progress=progress)
            words.vectors = found.vectors
            jobs = [PromptJob(written[job.prompt], job.seed) for job in subject.jobs]
            images = subject.draw(jobs, cache_dir=False)
        near = nearest_words(backbone, found.vectors)
        details = {"losses": list(found.losses), "words": near, "prompts": list(written.values())}
        return Outcome(images=images, steps=len(found.losses), details=details, tensors={"word": found.vectors.cpu()})

    def _search(
        self,
        subject: Subject,
        words: FreeWords,
        written: list[str],
        *,
        generator: torch.Generator,
        progress: Progress | None,
    ) -> Attack:
        backbone, done = subject.backbone, 0
        ids = padded(backbone, [text_ids(backbone, text) for text in written])
        pictures = target_pictures(subject, each=self.pictures)

        def loss(vectors: Tensor) -> Tensor:
            nonlocal done
            words.vectors = vectors
            chosen = torch.randint(len(ids), (self.batch,), generator=generator)
            draw = pictures.noised(backbone, chosen, generator=generator)
            read = backbone.read_tokens(ids[chosen]).to(draw.x_t)
            done += 1
            if progress is not None:
                progress(done, self.steps)
            return noise_mse(backbone.predict(draw.x_t, draw.t, read), draw.answer).total

        plan = AttackPlan(tokens=self.tokens, steps=self.steps, lr=self.lr)
        return search_vectors(loss, words.vectors, plan=plan)


def in_place(prompt: str, target: str, word: str) -> str:
    """Return the prompt with the word in the place of the target's name.

    Example:
        >>> in_place("a photo of Santa  Claus", "santa claus", "<free0>")
        'a photo of <free0>'

    Raises:
        NotApplicable: If the name is not in it.
    """
    written, count = mention(target).subn(lambda _: word, prompt)
    if not count:
        raise NotApplicable(f"concept-inversion: {target!r} is not in {prompt!r}, so no word can take its place")
    return written


def random_words(backbone: Backbone, count: int, *, generator: torch.Generator) -> Float[Tensor, "words dim"]:
    """Return vectors in random directions, as long as those of the model's own words are on average."""
    table = backbone.word_vectors(vocabulary(backbone)).detach().float()
    drawn = torch.randn((count, table.shape[1]), generator=generator)
    length = torch.linalg.vector_norm(table, dim=-1).mean()
    return length * (drawn / torch.linalg.vector_norm(drawn, dim=-1, keepdim=True)).to(table.device)
