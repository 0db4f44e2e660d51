"""Scenes on the tiny pipeline whose judges know the unedited model's pictures by heart."""

import contextlib
import dataclasses

from aizheimer.concepts.concept import Concept
from aizheimer.evaluation import generate
from aizheimer.evaluation.judges import Judges
from aizheimer.evaluation.settings import EvaluationSettings
from aizheimer.evaluation.suite import Scene
from tests.tiny import LABELS, STYLES
from tests.unit.evaluation.builders import MemoryJudge

SETTINGS = EvaluationSettings(steps=1, batch_size=16, bootstrap=100)
SANTA = Concept("santa claus")
NOTO = Concept("noto", kind="style")


def scene_of(backbone, *, edit=None, concept=SANTA, cache=False, objects=LABELS, styles=STYLES, **fields):
    judges = Judges(MemoryJudge(objects, name="objects"), MemoryJudge(styles, name="styles"))
    options = {"judges": judges, "settings": SETTINGS, "cache_dir": cache, **fields}
    return Scene(backbone=backbone, edit=edit, concept=concept, **options)


def learn(monkeypatch, suite, scene):
    """Let the judges see the unedited model's pictures with the names that the plan says; returns the plan."""
    drawn = []
    real = Scene.pairs

    def record(self, plan, **options):
        drawn.append((plan, real(self, plan, **options)))
        return drawn[-1][1]

    with monkeypatch.context() as patch:
        patch.setattr(Scene, "pairs", record)
        suite.run(dataclasses.replace(scene, edit=None))
    for plan, pairs in drawn:
        scene.judges.object.learn(pairs.original, [image.object for image in plan])
        scene.judges.style.learn(pairs.original, [image.style for image in plan])
    return [image for plan, _ in drawn for image in plan]


@contextlib.contextmanager
def counting(monkeypatch):
    """Count the pictures that are really drawn."""
    counted = []
    real = generate.draw_batch
    with monkeypatch.context() as patch:
        patch.setattr(
            generate, "draw_batch", lambda pipe, batch, **o: counted.append(len(batch)) or real(pipe, batch, **o)
        )
        yield counted


def numbers(result):
    return {name: (metric.original, metric.value) for name, metric in result.figures.items()}
