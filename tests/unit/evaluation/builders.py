"""Edits and judges that are real but whose effect is known beforehand."""

import contextlib
from dataclasses import dataclass, field

import torch

from aizheimer.detectors.base import JudgeResult
from aizheimer.evaluation.settings import EvaluationSettings

SMALL = EvaluationSettings(
    target_images=4, neighbours=3, neighbour_images=2, others=4, other_images=1, steps=2, batch_size=8, bootstrap=200
)


@dataclass(frozen=True)
class WordEdit:
    """Turns the embedding of one word's tokens around: every prompt with the word is drawn differently, no other is.

    ``scale`` 0 changes nothing.
    """

    word: str
    scale: float = -1.0
    is_noop: bool = False

    @contextlib.contextmanager
    def applied(self, pipe):
        rows = pipe.tokenizer(self.word, add_special_tokens=False)["input_ids"]
        weight = pipe.text_encoder.get_input_embeddings().weight
        before = weight.detach().clone()
        with torch.no_grad():
            weight[rows] += 30 * self.scale * weight[rows].roll(1, dims=-1) if self.scale else 0
        try:
            yield pipe
        finally:
            with torch.no_grad():
                weight.copy_(before)


@dataclass(frozen=True)
class DecoderEdit:
    """Makes the decoder paint everything in one tone: the model is destroyed."""

    is_noop: bool = False

    @contextlib.contextmanager
    def applied(self, pipe):
        parameters = list(pipe.vae.decoder.conv_out.parameters())
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p in parameters:
                p.zero_()
        try:
            yield pipe
        finally:
            with torch.no_grad():
                for p, old in zip(parameters, before, strict=True):
                    p.copy_(old)


@dataclass
class MemoryJudge:
    """Names exactly the pictures it was shown with their names, and answers "none of these" to any other."""

    classes: tuple[str, ...]
    name: str = "memory"
    known: dict = field(default_factory=dict)

    def with_weights(self, weights):
        """The same judge, who also tells its weights as ours do."""
        return type("Weighty", (MemoryJudge,), {"weights": weights})(self.classes, self.name, self.known)

    def learn(self, pictures, names):
        for picture, name in zip(pictures, names, strict=True):
            self.known[picture.tobytes()] = name

    def judge(self, images):
        labels = [self.known.get(picture.tobytes()) for picture in images]
        index = torch.tensor([self.classes.index(n) if n in self.classes else 0 for n in labels])
        probabilities = torch.nn.functional.one_hot(index, len(self.classes)).float()
        return JudgeResult(labels=labels, confidence=probabilities.amax(1), probabilities=probabilities)
