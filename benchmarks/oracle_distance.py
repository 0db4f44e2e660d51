"""How far each method's pictures are from those of a model that was trained without the concepts: the oracle.

The oracle is what forgetting promises: a UNet trained from nothing on the same drawings but those of the targets
(`models/emoji/train_unet.py --without ...`), which is what `data-censoring start=scratch` does with a model's own data.

Two things are measured. The oracle itself, by the same prompts, seeds and judges as every method: a row of the
comparison. And how far every other method's pictures of a target are from its own, from the same noise, as CLIP's
image tower sees them: 1 - cosine, mean over pictures, as a share of the unedited model's own distance. 0 is the oracle
and 1 is as far as doing nothing. Two trainings on the same data do not draw alike, either: `floor` is the same share
for prompts of other concepts, which both models know.

Example:
    python models/emoji/train_unet.py --name oracle --fast --minutes 120 --without cat pizza
    python benchmarks/oracle_distance.py --unet models/emoji/build/oracle.pt --targets cat pizza
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import SETTINGS, Bench, write_json
from methods_table import RETRAINED as ROW
from safetensors.torch import load_file, save_file
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.evaluation.evaluate import draw_pairs, planned
from aizheimer.evaluation.settings import EvaluationSettings


@dataclass(frozen=True, eq=False)
class Oracle:
    """The other training's weights, put on a pipeline like an edit.

    Args:
        networks: Averaged weights by attribute of the pipeline and name; buffers are not averaged, and are left alone.
        updates: Of the training.
        seconds: Of the training.
    """

    networks: dict[str, dict[str, Tensor]]
    updates: int
    seconds: float
    hook: None = None
    is_noop: bool = False

    @classmethod
    def load(cls, checkpoint: Path) -> Oracle:
        """Read a checkpoint of `train_unet.py`."""
        state = torch.load(checkpoint, weights_only=True)
        networks = {"unet": state["unet_ema"]["shadow"], "text_encoder": state["text_ema"]["shadow"]}
        return cls(networks, updates=state["step"], seconds=state["elapsed"])

    @contextmanager
    def applied(self, pipe: Any) -> Iterator[Any]:
        """Put the weights on the pipeline for the length of a ``with`` block."""
        own = {name: {k: v.clone() for k, v in getattr(pipe, name).state_dict().items()} for name in self.networks}
        try:
            for name, tensors in self.networks.items():
                getattr(pipe, name).load_state_dict(tensors, strict=False)
            yield pipe
        finally:
            for name, tensors in own.items():
                getattr(pipe, name).load_state_dict(tensors)

    def costs(self) -> dict[str, float]:
        """Return what the comparison says of every method's cost; the memory of the training was not measured."""
        size = sum(tensor.numel() for tensors in self.networks.values() for tensor in tensors.values())
        return {
            "cpu_seconds": round(self.seconds, 1),
            "unet_evaluations": 16 * self.updates,
            "artifact_megabytes": round(4e-6 * size, 2),
        }


def distance(a: Tensor, b: Tensor) -> float:
    """Return the mean of 1 - cosine over paired rows of unit vectors (n, dim)."""
    return float((1 - (a.float() * b.float()).sum(-1)).mean())


def floor(bench: Bench, oracle: Oracle, target: str) -> float:
    """Return how far both models' pictures of other concepts are apart."""
    backbone: Backbone = bench.fast
    concept = bench.concept(target)
    plan, _ = planned(backbone, concept, world=backbone.world, settings=bench.settings)
    rest = [image for image in plan if image.role == "other"]
    pairs = draw_pairs(
        backbone.pipe, oracle, plan=rest, settings=bench.settings, guidance=backbone.world.guidance, edit_key="oracle"
    )
    clip = bench.judges.clip
    assert clip is not None, "the embedded model ships a CLIP"
    return distance(clip.embed_images(pairs.original), clip.embed_images(pairs.edited))


def main() -> None:
    """Judge the oracle, compare, and write its row and all distances into the cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unet", type=Path, required=True, help="checkpoint of the training without the targets")
    parser.add_argument("--targets", nargs="+", required=True, help="what it was trained without")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/methods.json"))
    args = parser.parse_args()
    content, features_file = json.loads(args.results.read_text()), args.results.with_suffix(".safetensors")
    settings = SETTINGS.model_copy(update={"precision": EvaluationSettings(**content["settings"]).precision})
    bench, oracle, features = Bench(settings=settings), Oracle.load(args.unet), load_file(features_file)
    cells = [cell for cell in content["cells"] if cell["method"] != ROW]
    floors = []
    for target in args.targets:
        figures, (untouched, wanted) = bench.figures(oracle, target)
        cells.append({"method": ROW, "target": target, **oracle.costs(), **figures})
        features[f"{ROW}/{target}"] = wanted.to(torch.float16)
        unedited = distance(untouched, wanted)
        floors.append(floor(bench, oracle, target) / unedited)
        for cell in cells:
            if cell["target"] == target and (seen := features.get(f"{cell['method']}/{target}")) is not None:
                found = distance(seen, wanted)
                cell["oracle"] = {"distance": found, "unedited": unedited, "relative": found / unedited}
        shown = {name: round(figures[name]["value"], 3) for name in ("ua", "ira", "near", "cra")}
        print(f"{target}: {shown}, unedited {unedited:.3f} away, floor {floors[-1]:.2f}", flush=True)
    content["oracle"] = {"targets": args.targets, "floor": sum(floors) / len(floors), "updates": oracle.updates}
    save_file(features, features_file)
    write_json(args.results, {**content, "cells": cells})
    print(json.dumps(content["oracle"]))


if __name__ == "__main__":
    main()
