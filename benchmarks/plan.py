"""What `aizheimer plan` predicts, against what a run then takes.

For each method a plan is made and a short run is measured on the same model, twice: once for peak memory as PyTorch's
allocator sees it above the weights, and once for seconds a step (of a closed form: in all), since watching memory takes
time itself; and the sizes of edit, checkpoint and cache. A trained method's total is not compared: the run is shorter.

``--model sd15-random`` is a pipeline of the size of Stable Diffusion 1.5 with random weights, of the real classes: a
gigabyte of parameters, and nothing to download. ``--tiny`` makes it a small one, to try the script.

Usage:
    python benchmarks/plan.py [--model emoji | sd15-random] [--concept penguin] [--methods esd aizheimer] [--steps 5]
    [--out FILE] [KEY=VALUE...]
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measuring import write_json

from aizheimer.api import as_concept, forget, load_model, load_recipe, plan
from aizheimer.backbones.base import Backbone, backbone_for
from aizheimer.backbones.memory import allocated_peak, weight_bytes
from aizheimer.engine.callbacks import Callbacks

METHODS = ("esd", "aizheimer", "closed-distraction", "concept-ablation", "spm", "forget-me-not")
RANDOM = "sd15-random"


def sd15_random(*, tiny: bool = False) -> Backbone:
    """Return a pipeline of Stable Diffusion 1.5's shape with random weights; its words and world are the emoji model's.

    Args:
        tiny: A network of a few channels instead, of the same shape.
    """
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    emoji = load_model("emoji")
    tokenizer: Any = copy.deepcopy(emoji.pipe.tokenizer)
    tokenizer.model_max_length = 77
    width, channels = (64, (32, 64, 64, 64)) if tiny else (768, (320, 640, 1280, 1280))
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=12,
        num_attention_heads=width // 64,
        eos_token_id=tokenizer.eos_token_id,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32,) * 4 if tiny else (128, 256, 512, 512),
        layers_per_block=2,
        sample_size=512,
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=16 if tiny else 64, cross_attention_dim=width, attention_head_dim=8, block_out_channels=channels
        ),
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return backbone_for(pipe, world=emoji.world)


def compare(backbone: Backbone, concept: str, *, method: str, overrides: list[str], steps: int) -> dict[str, Any]:
    """Return predicted and measured figures of one method, and their ratios."""
    content = type(load_recipe(method).method).model_fields
    short = [f"training.steps={steps}", "training.drift_limit=null"] if "training" in content else []
    own = ["start=null", "enough=null"] if "start" in content and short else []
    recipe = load_recipe(method, [*short, *own, *overrides])
    predicted = plan(backbone, concept, method=recipe)
    target = as_concept(concept, world=backbone.world)
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        watched, timed = (Path(folder) / name for name in ("watched", "timed"))
        peak = allocated_peak(lambda: forget(backbone, target, method=recipe, out=watched), backbone.device)
        started = time.perf_counter()
        callbacks = Callbacks(on_step=lambda row: seconds.append(row["seconds"]))
        forget(backbone, target, method=recipe, out=timed, callbacks=callbacks)
        whole = time.perf_counter() - started
        sizes = {path.name: path.stat().st_size for path in timed.iterdir() if path.is_file()}
        cache = sum(path.stat().st_size for path in (timed / "cache").rglob("*") if path.is_file())
    time_of = {"step_seconds": statistics.median(seconds[1:] or seconds)} if seconds else {"solve_seconds": whole}
    measured = {
        "peak_bytes": weight_bytes(backbone.components.values()) + peak,
        **time_of,
        "edit_bytes": sum(size for name, size in sizes.items() if name.startswith("edit.")),
        "checkpoint_bytes": sum(size for name, size in sizes.items() if name.startswith("checkpoint")),
        "cache_bytes": cache,
    }
    expected = {
        "peak_bytes": predicted.memory["peak"],
        "step_seconds": predicted.seconds["step"],
        "solve_seconds": predicted.seconds["solve"],
        "edit_bytes": predicted.disk["edit"],
        "checkpoint_bytes": predicted.disk["checkpoint"],
        "cache_bytes": predicted.disk["cache"],
    }
    ratios = {name: expected[name] / value for name, value in measured.items() if value}
    return {
        "predicted": expected,
        "measured": measured,
        "predicted / measured": ratios,
        "plan": predicted.model_dump(mode="json"),
    }


def main() -> None:
    """Compare every method, print and write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="parameters of every method")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--tiny", action="store_true", help=f"make {RANDOM} a small one")
    parser.add_argument("--concept", default="penguin")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "plan.json")
    args = parser.parse_args()
    os.environ.pop("AIZHEIMER_CACHE", None)  # what a run keeps is then in its folder, and found by no other run
    backbone = sd15_random(tiny=args.tiny) if args.model == RANDOM else load_model(args.model)
    results: dict[str, Any] = {}
    for method in args.methods:
        results[method] = compare(backbone, args.concept, method=method, overrides=args.overrides, steps=args.steps)
        content = {
            "model": args.model,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "overrides": args.overrides,
            "results": results,
        }
        write_json(args.out, content)
        print(method, json.dumps(results[method]["predicted / measured"]))


if __name__ == "__main__":
    main()
