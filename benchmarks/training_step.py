"""One training step: ours against the published notebook's way, interleaved in one run.

Both compute the same loss (distraction on the concept's tokens) on the same latents and update the same weights (q, k,
v and out of every cross-attention) with Adam.

- notebook: every weight of UNet and text encoder requires gradients, the text encoder runs in every step, the attention
  matrix is written out.
- ours: everything else is frozen, the text embedding is cached, the columns are read inside the fused kernel.

Times are the median of all rounds (wall clock), memory is the peak that PyTorch's allocator held during a step above
what it held before, and what stays allocated in gradients afterwards.

Usage:
    python benchmarks/training_step.py [--rounds 15] [--out benchmarks/results/training_step.json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from attention_probe import explicit, peak_bytes
from torch import Tensor

from aizheimer.api import load_model
from aizheimer.backbones.base import Backbone
from aizheimer.modules.attention import attention_probe
from aizheimer.modules.maps import AttentionMap
from aizheimer.modules.parameters import select_layers, select_parameters, trainable
from aizheimer.objectives.distraction import distraction

PROMPT = "Santa Claus in noto style"
CONCEPT = "Santa Claus"
HELD = contextlib.ExitStack()
"""What keeps a model frozen for as long as this runs."""


def inputs(backbone: Backbone, batch: int) -> tuple[Tensor, Tensor]:
    """Return latents and timesteps."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(batch, *backbone.latent_shape, generator=generator)
    return latents, torch.randint(0, 1000, (batch,), generator=generator)


def ours(batch: int) -> tuple[Backbone, Callable[[], None]]:
    """Return a model and its training step as the package takes it."""
    backbone = load_model("emoji")
    HELD.enter_context(backbone.frozen())
    layers = select_layers(list(backbone.attention_modules()), "all")
    selection = select_parameters(backbone.denoiser, layers, ("q", "k", "v", "out"))
    parameters = HELD.enter_context(trainable(backbone.denoiser, selection))
    columns = backbone.token_columns([PROMPT] * batch, CONCEPT, policy="concept")
    embeddings = backbone.encode_prompts([PROMPT] * batch)
    latents, t = inputs(backbone, batch)
    optimiser = torch.optim.Adam(parameters.values(), 2e-5)

    def step() -> None:
        with attention_probe(backbone.denoiser, layers, columns) as probe:
            backbone.predict(latents, t, embeddings)
            loss = distraction(probe.maps, variant="notebook", tokens=backbone.max_tokens).total
            loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return backbone, step


def notebook(batch: int) -> tuple[Backbone, Callable[[], None]]:
    """Return a model and its training step as the notebook takes it."""
    backbone = load_model("emoji")
    for net in (backbone.pipe.unet, backbone.pipe.text_encoder):
        net.requires_grad_(True)
    layers = list(backbone.attention_modules())
    selection = select_parameters(backbone.denoiser, layers, ("q", "k", "v", "out"))
    named = dict(backbone.denoiser.named_parameters())
    optimiser = torch.optim.Adam([named[name] for name in selection.names], 2e-5)
    columns = backbone.token_columns([PROMPT] * batch, CONCEPT, policy="concept")
    count = int(columns[0].sum())
    ids = backbone.tokenize([PROMPT] * batch)
    latents, t = inputs(backbone, batch)

    def step() -> None:
        embeddings = backbone.pipe.text_encoder(ids)[0]
        with explicit(backbone.denoiser, layers, columns) as read:
            backbone.denoiser(latents, t, embeddings)
            maps = {
                # The explicit processor folds heads into the batch.
                layer: AttentionMap(
                    p.unflatten(0, (batch, -1))[..., :count], torch.ones(batch, count, dtype=torch.bool)
                )
                for layer, p in read.items()
            }
            loss = distraction(maps, variant="notebook", tokens=backbone.max_tokens).total
            loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return backbone, step


def gradient_bytes(backbone: Backbone) -> int:
    """Return what gradients still occupy after a step."""
    nets = (backbone.pipe.unet, backbone.pipe.text_encoder)
    return sum(p.grad.nbytes for net in nets for p in net.parameters() if p.grad is not None)


def measure(batch: int, rounds: int) -> dict[str, dict[str, float]]:
    """Time both ways in turn."""
    ways = {"notebook": notebook(batch), "ours": ours(batch)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    rows: dict[str, dict[str, float]] = {}
    for name, (backbone, step) in ways.items():
        rows[name] = {"peak_megabytes": peak_bytes(step) / 1e6}
        step()
        rows[name]["left_in_gradients_megabytes"] = gradient_bytes(backbone) / 1e6
    for _ in range(rounds):
        for name, (_, step) in ways.items():
            started = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - started)
    for name, row in rows.items():
        row["milliseconds"] = statistics.median(times[name]) * 1e3
    pairs = [a / b for a, b in zip(times["notebook"], times["ours"], strict=True)]
    rows["notebook / ours"] = {
        "milliseconds": statistics.median(pairs),
        "peak_megabytes": rows["notebook"]["peak_megabytes"] / rows["ours"]["peak_megabytes"],
    }
    return {name: {key: round(value, 3) for key, value in row.items()} for name, row in rows.items()}


def main() -> None:
    """Measure batches of 2 (the notebook's) and 8, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "training_step.json")
    args = parser.parse_args()
    results = {f"embedded model, batch {batch}": measure(batch, args.rounds) for batch in (2, 8)}
    content = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "rounds": args.rounds,
        "results": results,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
