"""Results whose every number is known, with pictures that can be told apart by their tone."""

import numpy as np

from aizheimer.evaluation.evaluate import ImagePairs
from aizheimer.evaluation.results import EvaluationResult, ImageRecord, Metric, NeighbourResult, Pair
from aizheimer.evaluation.settings import EvaluationSettings

SETTINGS = EvaluationSettings(bootstrap=50)


def metric(original, edited, *, unit="images"):
    return Metric.measure(
        np.array(original, float), np.array(edited, float), unit=unit, judge="judge", protocol="", settings=SETTINGS
    )


def record(role, name, *, seen=None, seed=0, style="noto"):
    wanted = {"role": role, "prompt": f"{name} in {style} style", "seed": seed, "object": name, "style": style}
    seen_as = {"original_object": name, "edited_object": seen, "original_style": style, "edited_style": style}
    return ImageRecord(**wanted, **seen_as, unchanged=False)


def result_of(target="Santa Claus", **changes):
    images = [
        record("target", target, seen="old man"),
        record("target", target, seen=target, style="flat"),
        record("target", target, seen=None, seed=1),
        record("neighbour", "old man", seen="old man"),
        record("neighbour", "old man", seen="old man", style="flat"),
        record("neighbour", "Mrs. Claus", seen="woman"),
        record("other", "tree", seen="tree"),
    ]
    fields = {
        "target": target, "kind": "object", "model_name": "tiny", "ua": metric([0, 0, 0], [1, 0, 1]),
        "ira": metric([1, 1, 1], [1, 0, 1], unit="concepts"), "near": metric([1, 1], [1, 0], unit="concepts"),
        "cra": metric([1] * 4, [1] * 4),
        "neighbours": [
            NeighbourResult(label="old man", original=1, edited=1, similarity=0.91, n=2),
            NeighbourResult(label="Mrs. Claus", original=1, edited=0, similarity=0.84, n=1),
        ],
        "others": [NeighbourResult(label="tree", original=1, edited=1, similarity=None, n=1)],
        "clip_target": Pair(original=27.31, edited=19.04), "unchanged_share": 0.25, "unchanged_retain_share": 0.5,
        "broken": Pair(original=0, edited=0.125), "broken_retain": Pair(original=0, edited=0.0625),
        "no_op": False, "collapse": False, "settings": SETTINGS,
        "guidance": 5.0, "images": images,
    }  # fmt: skip
    return EvaluationResult(**{**fields, **changes})


def pairs_of(result, *, size=8):
    """Picture i of the originals has tone 10 + i, of the edited ones 110 + i."""
    tones = np.arange(len(result.images), dtype=np.uint8)[:, None, None, None]
    shape = (len(result.images), size, size, 3)
    return ImagePairs(np.broadcast_to(tones + 10, shape).copy(), np.broadcast_to(tones + 110, shape).copy())
