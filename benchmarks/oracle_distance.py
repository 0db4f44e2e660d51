"""How far each method's pictures are from those of a model that was trained without the concepts: the oracle.

The oracle is what forgetting promises: a UNet trained from nothing on the same drawings but those of the targets
(`models/emoji/train_unet.py --without ...`). It draws every target prompt of the comparison from the same noise, and
CLIP's image tower compares: 1 - cosine, mean over pictures. As a share of the unedited model's own distance, 0 is the
oracle and 1 is as far as doing nothing. Two trainings on the same data do not draw alike, either: `floor` is the same
share for prompts of other concepts, which both models know.

Example:
    python models/emoji/train_unet.py --name oracle --fast --minutes 120 --without cat pizza
    python benchmarks/oracle_distance.py --unet models/emoji/build/oracle.pt --targets cat pizza
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from measuring import SETTINGS, Bench, write_json
from safetensors.torch import load_file
from torch import Tensor

from aizheimer.api import load_model
from aizheimer.concepts.neighbours import nearest
from aizheimer.evaluation.generate import PromptJob, generate
from aizheimer.evaluation.plan import PlannedImage, candidates, plan_images


def load_oracle(checkpoint: Path) -> Any:
    """Return the embedded model with the averaged UNet and text encoder of a training checkpoint."""
    backbone = load_model("emoji")
    state = torch.load(checkpoint, weights_only=True)
    for network, name in ((backbone.pipe.unet, "unet_ema"), (backbone.pipe.text_encoder, "text_ema")):
        network.load_state_dict(state[name]["shadow"], strict=False)  # buffers are not averaged
    return backbone


def draw(backbone: Any, bench: Bench, plan: list[PlannedImage]) -> Tensor:
    """Return unit vectors (n, dim) of the planned pictures."""
    jobs = [PromptJob(image.prompt, image.seed) for image in plan]
    pictures = generate(backbone.pipe, jobs, guidance=backbone.world.guidance, precision=SETTINGS.precision)
    assert bench.judges.clip is not None, "the embedded model ships a CLIP"
    return bench.judges.clip.embed_images(pictures)


def distance(a: Tensor, b: Tensor) -> float:
    """Return the mean of 1 - cosine over paired rows of unit vectors (n, dim)."""
    return float((1 - (a.float() * b.float()).sum(-1)).mean())


def main() -> None:
    """Draw with the oracle, compare, and write the distances into the cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unet", type=Path, required=True, help="checkpoint of the training without the targets")
    parser.add_argument("--targets", nargs="+", required=True, help="what it was trained without")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/methods.json"))
    args = parser.parse_args()
    bench, oracle = Bench(compiled=False), load_oracle(args.unet)
    content = json.loads(args.results.read_text())
    features = load_file(args.results.with_suffix(".safetensors"))
    floors = []
    for target in args.targets:
        concept, model = bench.concept(target), bench.plain
        near = nearest(target, candidates(concept, model.world), model.embed_concepts, SETTINGS.neighbours)
        plan = plan_images(concept, model.world, neighbours=[label for label, _ in near], settings=SETTINGS)
        wanted = draw(oracle, bench, [image for image in plan if image.role == "target"])
        untouched = distance(features[f"unedited/{target}"], wanted)
        rest = [image for image in plan if image.role == "other"]
        floors.append(distance(draw(model, bench, rest), draw(oracle, bench, rest)) / untouched)
        for cell in content["cells"]:
            if cell["target"] == target and (seen := features.get(f"{cell['method']}/{target}")) is not None:
                found = distance(seen, wanted)
                cell["oracle"] = {"distance": found, "unedited": untouched, "relative": found / untouched}
        print(f"{target}: unedited {untouched:.3f}, floor {floors[-1]:.2f}", flush=True)
    content["oracle"] = {"targets": args.targets, "floor": sum(floors) / len(floors)}
    write_json(args.results, content)


if __name__ == "__main__":
    main()
