"""Measure an embedded model: does it draw what it is asked, in the style it is asked?

All concepts x styles at 20 steps (DDIM, or Euler for emoji-mmdit) with fixed seeds, judged by the object and the style
judge (a rejected picture counts as wrong); then every concept by its synonyms only. Prints
the figures, writes raw JSON for every picture, a sheet of 10 x 5 samples, and the time of a
batch of eight. Resumes: judged chunks are kept beside the output until it is complete.

Example:
    python models/emoji/evaluate.py --output benchmarks/results/emoji_model.json
    python models/emoji/evaluate.py --model emoji-mmdit --output benchmarks/results/emoji_mmdit_model.json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from emoji_data import CANONICAL, STYLES, read_concepts, synonym_prompt
from sitting import SHEET_LABELS
from train_mmdit import T5_ROWS, CountedRows
from training import save_sheet

from aizheimer.backbones import load_pipeline
from aizheimer.detectors.classifier import ImageJudge

ASSETS = Path(__file__).parents[2] / "src" / "aizheimer" / "assets"
SAMPLERS = {"emoji": "DDIM", "emoji-mmdit": "flow Euler"}
RESULTS = {"emoji": "emoji_model.json", "emoji-mmdit": "emoji_mmdit_model.json"}


def sample(pipe: DiffusionPipeline, prompts: list[str], seeds: list[int], args: argparse.Namespace) -> torch.Tensor:
    """Pictures (batch, 3, 64, 64) in [-1, 1], each from its own seed."""
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    counted = {"max_sequence_length": 1} if args.model == "emoji-mmdit" else {}
    settings = {"num_inference_steps": args.steps, "guidance_scale": args.guidance, "output_type": "pt", **counted}
    return pipe(prompts, generator=generators, **settings).images * 2 - 1


def count_rows(pipe: DiffusionPipeline) -> None:
    """Have the one row of zeros that `sample` asks for count for those that the pipeline has by default.

    The numbers are the same (`train_mmdit.py`), in a quarter of the time.
    """
    pipe.transformer.set_attn_processor(CountedRows(T5_ROWS))


def jobs(fraction: float) -> list[dict]:
    """Every picture to draw: prompt, seed, and what it should be."""
    rows = read_concepts()
    result = []
    for c, row in enumerate(rows):
        for s, style in enumerate(STYLES):
            result.append(
                {"kind": "label", "prompt": CANONICAL.format(label=row.label, style=style), "seed": c * 5 + s}
            )
            result[-1] |= {"object": row.label, "style": style, "group": row.group}
    for c, row in enumerate(rows):
        style = STYLES[c % 5]
        result.append({"kind": "synonym", "prompt": synonym_prompt(row, style), "seed": 10_000 + c})
        result[-1] |= {"object": row.label, "style": style, "group": row.group}
    if fraction >= 1:
        return result
    keep = np.random.default_rng(0).permutation(len(result))[: int(len(result) * fraction)]
    return [result[i] for i in sorted(keep)]


def share(rows: list[dict], key: str) -> float:
    """Share of rows whose judgement of ``key`` is right."""
    return sum(r["judged_" + key] == r[key] for r in rows) / max(1, len(rows))


def timing(pipe: DiffusionPipeline, args: argparse.Namespace) -> float:
    """Seconds for a batch of eight pictures, the best of three."""
    prompts, best = [CANONICAL.format(label="cat", style="noto")] * 8, float("inf")
    for _ in range(3):
        started = time.perf_counter()
        sample(pipe, prompts, list(range(8)), args)
        best = min(best, time.perf_counter() - started)
    return best


def judge_all(pipe: DiffusionPipeline, todo: list[dict], args: argparse.Namespace) -> list[dict]:
    """Draw and judge every job; finished ones are read back from the side file."""
    judges = {k: ImageJudge.load(args.judges / k) for k in ("object", "style")}
    side = args.output.with_suffix(".partial.jsonl")
    done = [json.loads(line) for line in side.read_text().splitlines()] if side.exists() else []
    for start in range(len(done), len(todo), args.batch):
        chunk = todo[start : start + args.batch]
        images = sample(pipe, [j["prompt"] for j in chunk], [j["seed"] for j in chunk], args)
        names = {k: judge.judge(images).labels for k, judge in judges.items()}
        rows = [
            j | {"judged_object": names["object"][i], "judged_style": names["style"][i]} for i, j in enumerate(chunk)
        ]
        with side.open("a") as file:
            file.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
        done += rows
        print(
            f"\r{len(done)}/{len(todo)} object {share(done, 'object'):.3f} style {share(done, 'style'):.3f}",
            end="",
            flush=True,
        )
    print()
    return done


def summary(rows: list[dict]) -> dict:
    """The figures of the card."""
    labelled = [r for r in rows if r["kind"] == "label"]
    spoken = [r for r in rows if r["kind"] == "synonym"]
    groups = sorted({r["group"] for r in rows})
    return {
        "object_accuracy": share(labelled, "object"),
        "style_accuracy": share(labelled, "style"),
        "n": len(labelled),
        "synonym_object_accuracy": share(spoken, "object"),
        "synonym_n": len(spoken),
        "none_of_these": sum(r["judged_object"] is None for r in labelled) / max(1, len(labelled)),
        "object_accuracy_by_group": {g: share([r for r in labelled if r["group"] == g], "object") for g in groups},
        "style_accuracy_by_style": {s: share([r for r in labelled if r["style"] == s], "style") for s in STYLES},
        "no_style": sum(r["judged_style"] is None for r in labelled) / max(1, len(labelled)),
        "object_accuracy_by_style": {s: share([r for r in labelled if r["style"] == s], "object") for s in STYLES},
    }


def main() -> None:
    """Evaluate and write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(RESULTS), default="emoji")
    parser.add_argument("--pipeline", type=Path, help="a folder to measure in the place of the model's")
    parser.add_argument("--judges", type=Path, default=ASSETS / "emoji" / "judges")
    parser.add_argument("--output", type=Path, help="benchmarks/results/emoji_model.json, or the other model's")
    parser.add_argument("--sheet", type=Path, help="also write a 10 x 5 sample sheet here")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--fraction", type=float, default=1.0, help="judge only a fixed random part")
    args = parser.parse_args()
    args.pipeline = args.pipeline or ASSETS / args.model / "pipeline"
    args.output = args.output or Path("benchmarks/results") / RESULTS[args.model]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    pipe = load_pipeline(args.pipeline)
    if args.model == "emoji-mmdit":
        count_rows(pipe)
    if args.sheet:
        prompts = [CANONICAL.format(label=label, style=s) for s in STYLES for label in SHEET_LABELS]
        save_sheet(sample(pipe, prompts, list(range(50)), args), args.sheet, 10)
    seconds = timing(pipe, args)
    rows = judge_all(pipe, jobs(args.fraction), args)
    figures = summary(rows) | {"seconds_batch_of_8": seconds, "threads": torch.get_num_threads()}
    settings = {
        "steps": args.steps,
        "guidance": args.guidance,
        "scheduler": SAMPLERS[args.model],
        "fraction": args.fraction,
    }
    partial = args.output.with_suffix(".tmp")
    partial.write_text(
        json.dumps({"settings": settings, "figures": figures, "pictures": rows}, ensure_ascii=False, indent=0)
    )
    os.replace(partial, args.output)
    args.output.with_suffix(".partial.jsonl").unlink()
    print(json.dumps(figures, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
