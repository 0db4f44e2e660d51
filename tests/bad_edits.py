"""Edits that are bad on purpose, made by real code on the tiny pipeline, and what it takes to find them out.

Each one changes what it must of the text encoder's word vectors, or of the denoiser, so that its fault is known;
nothing in the files that are judged is written by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel

from aizheimer.attacks.base import AttackInfo, NotApplicable, Outcome
from aizheimer.backbones.base import Backbone
from aizheimer.backbones.fingerprints import module_fingerprint
from aizheimer.concepts import Concept
from aizheimer.concepts.neighbours import nearest
from aizheimer.detectors.base import JudgeResult
from aizheimer.edits import ConceptRecord, Edit, Provenance
from aizheimer.evaluation.evaluate import evaluate
from aizheimer.evaluation.judges import Judges
from aizheimer.evaluation.plan import PlannedImage
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.evaluation.suite import Scene, SuiteResult
from aizheimer.proof.findings import Findings, read_findings

TARGET = Concept("santa claus")
SYNONYMS = ("father christmas", "kris kringle")
SETTINGS = EvaluationSettings(
    target_images=6, neighbours=2, neighbour_images=2, others=6, other_images=1, steps=2, batch_size=16, bootstrap=200
)


def no_op(backbone: Backbone) -> Edit:
    """Change weights by less than a picture can show: what UCE does when the concept is its own guide."""
    weight = dict(backbone.denoiser.named_parameters())["conv_out.weight"]
    return _edit(backbone, {"unet.conv_out.weight": torch.full_like(weight, 1e-9)})


def collapse(backbone: Backbone) -> Edit:
    """Fill the last layer with noise: whatever is asked for is lost, the target with the rest."""
    weight = dict(backbone.denoiser.named_parameters())["conv_out.weight"]
    return _edit(backbone, {"unet.conv_out.weight": 5 * torch.randn(weight.shape, generator=_generator())})


def neighbour_killer(backbone: Backbone) -> Edit:
    """Take the words of the target and of its nearest neighbours away, and leave all others."""
    labels = [item.label for item in backbone.world.vocabulary if item.label != TARGET.target]
    near = nearest(TARGET.target, labels, backbone.embed_concepts, SETTINGS.neighbours)
    return _without_words(backbone, [TARGET.target, *(label for label, _ in near)])


def prompt_only(backbone: Backbone) -> Edit:
    """Take away the one word that every training prompt held."""
    return _without_words(backbone, ["santa"])


def recoverable(backbone: Backbone) -> Edit:
    """Let the target's words mean "dog": a few steps of training away from the model it was made of."""
    return renamed(backbone, "santa", to="dog")


def renamed(backbone: Backbone, words: str, *, to: str, concept: Concept = TARGET) -> Edit:
    """Give the vectors of the words another word's, and change nothing else."""
    (other,) = _rows(backbone, [to])
    return _edit(backbone, _moved(backbone, dict.fromkeys(_rows(backbone, [words]), other)), concept)


def _without_words(backbone: Backbone, words: list[str]) -> Edit:
    """Turn the vectors of the words' own tokens into what no token has."""
    name, table = _table(backbone)
    rows, delta = _rows(backbone, words), torch.zeros_like(table)
    delta[rows] = 30 * table.detach()[rows].roll(1, dims=-1)
    return _edit(backbone, {name: delta})


def _moved(backbone: Backbone, tokens: dict[int, int]) -> dict[str, torch.Tensor]:
    """Give each token the vector of another."""
    name, table = _table(backbone)
    delta = torch.zeros_like(table)
    for row, other in tokens.items():
        delta[row] = table.detach()[other] - table.detach()[row]
    return {name: delta}


def _table(backbone: Backbone) -> tuple[str, torch.Tensor]:
    encoder = backbone.pipe.text_encoder
    wanted = encoder.get_input_embeddings().weight
    return next((f"text_encoder.{name}", p) for name, p in encoder.named_parameters() if p is wanted)


def _rows(backbone: Backbone, words: list[str]) -> list[int]:
    ids = backbone.pipe.tokenizer
    return sorted({row for word in words for row in ids(word, add_special_tokens=False)["input_ids"]})


def _edit(backbone: Backbone, deltas: dict[str, torch.Tensor], concept: Concept = TARGET) -> Edit:
    record = Provenance(
        method="bad",
        concept=ConceptRecord.of(concept),
        base_fingerprint=backbone.fingerprint(),
        text_fingerprint=module_fingerprint(backbone.pipe.text_encoder),
    )
    return Edit({name: delta.detach().float() for name, delta in deltas.items()}, record)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@dataclass
class NearestJudge:
    """Names a picture by the nearest of those it was shown, and "none of these" where none is near.

    Pictures of an edited model that was trained back are near the unedited model's, not equal to them.
    """

    classes: tuple[str, ...]
    name: str = "nearest"
    within: float = 4.0
    known: list[tuple[np.ndarray, str]] = field(default_factory=list)

    def learn(self, pictures: np.ndarray, names: list[str]) -> None:
        self.known += [(picture.astype(float), name) for picture, name in zip(pictures, names, strict=True)]

    def judge(self, images: Any) -> JudgeResult:
        memory = np.stack([picture for picture, _ in self.known])
        labels = []
        for picture in images:
            levels = np.abs(memory - picture.astype(float)).mean(axis=(1, 2, 3))
            labels.append(self.known[int(levels.argmin())][1] if levels.min() <= self.within else None)
        index = torch.tensor([self.classes.index(label) if label else 0 for label in labels])
        one_hot = torch.nn.functional.one_hot(index, len(self.classes)).float()
        return JudgeResult(labels=labels, confidence=one_hot.amax(1), probabilities=one_hot)


class Synonyms(BaseModel):
    """A suite of two prompt families: the words that were trained on, and others for the same thing."""

    name: ClassVar[str] = "families"

    def plan(self, scene: Scene) -> dict[str, list[PlannedImage]]:
        words = {"bare": (scene.concept.target,), "synonyms": SYNONYMS}
        styles = scene.backbone.world.styles
        return {
            family: [
                PlannedImage("target", f"{word} in {style} style", 3, scene.concept.target, style)
                for word in family_words
                for style in styles
            ]
            for family, family_words in words.items()
        }

    def run(self, scene: Scene, *, progress: Any = None) -> SuiteResult:
        figures = {}
        judge = scene.judge("object")
        for family, plan in self.plan(scene).items():
            pairs = scene.pairs(plan)
            gone = [[label != TARGET.target for label in judge.judge(p).labels] for p in (pairs.original, pairs.edited)]
            figures[f"ua.{family}"] = scene.metric(*map(np.array, gone), judge=judge.name, protocol="UA of the family")
        return SuiteResult.of(self, scene, figures)


class Relearn(BaseModel):
    """Train the word vectors back until the text encoder says for the target what the unedited one says."""

    name: ClassVar[str] = "relearn"
    info: ClassVar[AttackInfo] = AttackInfo(
        paper="a test", access="white box", changes="the weights", needs=("unedited model",)
    )

    steps: int = 60
    look_every: int = 10
    lr: float = 0.003

    def attack(self, subject: Any, *, progress: Any = None) -> Outcome:
        if subject.random:
            raise NotApplicable("relearn: nothing is random")
        backbone, jobs = subject.backbone, subject.jobs
        ids = backbone.tokenize([job.prompt for job in jobs])
        with subject.unedited(), torch.no_grad():
            wanted = backbone.read_tokens(ids)
        table = backbone.pipe.text_encoder.get_input_embeddings().weight
        before, asked, images, recovered = table.detach().clone(), table.requires_grad, subject.draw(jobs), None
        optimiser = torch.optim.Adam([table.requires_grad_(True)], lr=self.lr)
        try:
            for step in range(1, self.steps + 1):
                loss = (backbone.read_tokens(ids) - wanted).square().mean()
                (table.grad,) = torch.autograd.grad(loss, [table])
                optimiser.step()
                if step % self.look_every == 0:
                    images = subject.draw(jobs)
                    recovered = step if recovered is None and subject.shows(images).mean() >= 0.5 else recovered
        finally:
            with torch.no_grad():
                table.copy_(before)
            table.grad = None
            table.requires_grad_(asked)
        return Outcome(images=images, steps=self.steps, details={"steps_to_recover": recovered})


def judges_of(backbone: Backbone) -> Judges:
    """Return judges that know every picture the unedited model draws in these tests."""
    world = backbone.world
    labels = tuple(item.label for item in world.vocabulary)
    judges = Judges(object=NearestJudge(labels), style=NearestJudge(world.styles))
    scene = scene_of(backbone, None, judges)
    plans = [image for family in Synonyms().plan(scene).values() for image in family]
    blind = evaluate(backbone.pipe, None, concept=TARGET, world=world, judges=Judges(), settings=SETTINGS)
    plans += [PlannedImage(i.role, i.prompt, i.seed, i.object, i.style) for i in blind.images]
    plans += [PlannedImage("target", p, seed, TARGET.target) for seed in (0, 1) for p in world.prompts(TARGET)]
    pictures = scene.pairs(plans).original
    for name in ("object", "style"):
        known = [(p, getattr(i, name)) for p, i in zip(pictures, plans, strict=True) if getattr(i, name) is not None]
        getattr(judges, name).learn(np.stack([p for p, _ in known]), [label for _, label in known])
    return judges


def scene_of(backbone: Backbone, edit: Edit | None, judges: Judges) -> Scene:
    return Scene(backbone=backbone, edit=edit, concept=TARGET, judges=judges, settings=SETTINGS)


def measured(
    backbone: Backbone, edit: Edit, judges: Judges, folder: Any, *, settings: EvaluationSettings = SETTINGS
) -> Findings:
    """Save the edit, evaluate it for real, and return what its folder then holds."""
    edit.save(folder)
    concept = edit.provenance.concept.to_concept()
    result = evaluate(backbone.pipe, edit, concept=concept, world=backbone.world, judges=judges, settings=settings)
    result.save(folder / "evaluation.json")
    return read_findings(folder)
