"""One training step at the size of Stable Diffusion 1.5: ours, the published codes' ways, and the limit.

A UNet of 860 million parameters is built from Stable Diffusion 1.5's configuration with random weights; latents are
64 x 64, the batch is one, everything is float32. What is trained, q, k, v and out of every cross-attention, is updated
by Adam in every way but forget-me-not's own.

- notebook: every weight of UNet and text encoder asks for gradients, the text encoder runs in the step, the attention
  matrix is written out (distraction).
- forget-me-not: the whole UNet is trained with AdamW, the text encoder runs without gradients, the attention matrix is
  written out (re-steering). Its averages alone take 6.9 GB.
- forget-me-not, attn2: the same with its only_optimize_ca.
- attention: ours; everything else is frozen, the text is encoded beforehand, the target's columns are read inside the
  fused kernel, and the forward pass ends at the last layer that is read.
- retention: ours with one retain example in the same batch, held to the teacher's prediction.
- checkpointed: ours, attention only, blocks recomputed in the backward pass.
- bf16: ours with retention, blocks recomputed, frozen weights in bfloat16.
- probe: the whole forward pass with the target's columns read, and the prediction in the loss: what reading adds to
  the limit.
- limit: one forward pass with plain attention and one backward pass, the same weights frozen; nothing is read.

Single options beside them, measured when they are named (`--ways attention adam8bit`), each against attention:
bf16 alone (precision, without weights), channels_last, compile, adam8bit; and accumulation, two examples one after the
other, against two rows, both in one batch.

Every measurement is a process of its own, and the ways take turns, so that a machine that slows down slows them all.
Seconds are of a forward and a backward pass after one that is not counted; the update is told apart. Memory is what the
process holds at its peak during the step (resident), above what it held before the model was built.

Usage:
    python benchmarks/full_size_step.py [--tiny] [--rounds 5] [--ways notebook attention limit] [--out FILE]
    python benchmarks/full_size_step.py --no-measuring --page docs/performance.md
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from methods_table import write_between

WAYS = (
    "limit",
    "notebook",
    "forget-me-not",
    "forget-me-not, attn2",
    "attention",
    "retention",
    "checkpointed",
    "bf16",
    "probe",
)
OPTIONS: dict[str, dict[str, Any]] = {
    "checkpointed": {"checkpointing": True},
    "bf16": {"checkpointing": True, "precision": "bf16", "weights": "bf16"},
    "bf16 alone": {"precision": "bf16"},
    "channels_last": {"channels_last": True},
    "compile": {"compile": True},
    "adam8bit": {"optimizer": "adam8bit"},
    "accumulation": {"accumulation": 2},
    "two rows": {},
}
"""What the ways that are ours set of `TrainSettings`; those that are none of WAYS have to be named."""
NAMES = tuple(dict.fromkeys([*WAYS, *OPTIONS]))
RESULTS = Path(__file__).parent / "results"
TOKENS, TARGET = 77, (4, 7)
FULL: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
TINY: dict[str, Any] = FULL | {"sample_size": 16, "block_out_channels": (32, 64, 64, 64), "cross_attention_dim": 64}
Step = Callable[[], None]


def build(*, tiny: bool) -> Any:
    """Return the UNet with random weights."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(**(TINY if tiny else FULL)).requires_grad_(False)


def text_encoder(width: int) -> Any:
    """Return a text encoder of the UNet's width with random weights: CLIP-L's at full size."""
    from transformers import CLIPTextConfig, CLIPTextModel

    heads = max(1, width // 64)
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=heads,
        num_hidden_layers=12,
        vocab_size=49408,
    )
    return CLIPTextModel(config).requires_grad_(False)


def inputs(unet: Any, rows: int) -> tuple[Any, Any, Any]:
    """Return latents, timesteps and encoded text."""
    import torch

    generator = torch.Generator().manual_seed(1)
    size, width = unet.config.sample_size, unet.config.cross_attention_dim
    x_t = torch.randn(rows, 4, size, size, generator=generator)
    return x_t, torch.tensor([500] * rows), torch.randn(rows, TOKENS, width, generator=generator)


def layers_of(unet: Any) -> list[str]:
    """Return the names of the cross-attention modules."""
    return [name for name, _ in unet.named_modules() if name.endswith("attn2")]


def columns(rows: int, *, forget: int = 1) -> Any:
    """Return three target tokens in the first rows."""
    import torch

    marked = torch.zeros(rows, TOKENS, dtype=torch.bool)
    marked[:forget, TARGET[0] : TARGET[1]] = True
    return marked


def trained(unet: Any) -> list[Any]:
    """Let q, k, v and out of every cross-attention ask for gradients, and return them."""
    from aizheimer.modules.parameters import select_parameters

    selection = select_parameters(unet, layers_of(unet), ("q", "k", "v", "out"))
    chosen = list(selection.parameters(unet).values())
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


def explicit(unet: Any, way: str) -> tuple[Step, Any]:
    """Return the step of a published code, which writes the attention matrix out, and its optimiser."""
    import torch
    from attention_probe import explicit as written_out

    from aizheimer.modules.maps import AttentionMap
    from aizheimer.objectives.distraction import distraction

    parameters, encoder = trained(unet), text_encoder(unet.config.cross_attention_dim)
    notebook = way == "notebook"
    if notebook:
        encoder.requires_grad_(True)
    if way in ("notebook", "forget-me-not"):
        unet.requires_grad_(True)
    optimiser: Any = torch.optim.Adam(parameters, 2e-5)
    if not notebook:
        optimiser = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], 2e-6)
    x_t, t, _ = inputs(unet, 1)
    ids, marked = torch.arange(TOKENS)[None], columns(1)
    count = int(marked.sum())

    def step() -> None:
        with torch.set_grad_enabled(notebook):
            words = encoder(ids)[0]
        with written_out(unet, layers_of(unet), marked) as read:
            unet(x_t, t, words)
            if notebook:
                valid = torch.ones(1, count, dtype=torch.bool)
                maps = {layer: AttentionMap(p.unflatten(0, (1, -1)), valid) for layer, p in read.items()}
                loss = distraction(maps, variant="notebook", tokens=TOKENS).total
            else:
                loss = torch.stack([p.square().sum() for p in read.values()]).sum().sqrt()
            loss.backward()

    return step, optimiser


def ours(unet: Any, way: str, stack: contextlib.ExitStack) -> tuple[Step, Any]:
    """Return the step as the package takes it, and its optimiser."""
    import torch

    from aizheimer.engine.lean import lean
    from aizheimer.engine.optim import build_optimizer
    from aizheimer.engine.settings import TrainSettings
    from aizheimer.modules.attention import attention_probe
    from aizheimer.objectives.distraction import distraction

    trained(unet)
    settings = TrainSettings(**{"optimizer": "adam", "lr": 2e-5, **OPTIONS.get(way, {})})
    stack.enter_context(lean(unet, settings))
    retains = way in ("retention", "bf16")
    forget = 2 if way == "two rows" else 1
    rows = 2 if retains else forget
    x_t, t, words = inputs(unet, rows)
    marked, target = columns(rows, forget=forget), torch.zeros_like(x_t[:1])
    # Recomputed blocks run to the end, as in the package.
    whole = retains or way in ("probe", "checkpointed")

    def step() -> None:
        for _ in range(settings.accumulation):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.precision == "bf16"):
                with attention_probe(unet, layers_of(unet), marked) as probe:
                    if whole:
                        output = unet(x_t, t, words).sample
                    else:
                        probe.read(lambda: unet(x_t, t, words))
                loss = distraction(probe.maps, variant="notebook", tokens=TOKENS).total
                if retains:
                    loss = loss + (output[1:] - target).float().square().mean()
                elif way == "probe":
                    loss = loss + output.square().mean()
            (loss / settings.accumulation).backward()

    parameters = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    return step, build_optimizer(parameters, settings)


def limit(unet: Any) -> tuple[Step, Any]:
    """Return one plain forward and backward pass with the same weights frozen."""
    import torch

    optimiser = torch.optim.Adam(trained(unet), 2e-5)
    x_t, t, words = inputs(unet, 1)

    def step() -> None:
        unet(x_t, t, words).sample.square().mean().backward()

    return step, optimiser


def resident(name: str) -> int:
    """Return a line of the process's own memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def measure(way: str, *, tiny: bool) -> dict[str, float]:
    """Measure one way, in this process."""
    import torch

    before = resident("VmRSS")
    with contextlib.ExitStack() as stack:
        unet = build(tiny=tiny)
        if way == "limit":
            step, optimiser = limit(unet)
        elif way in ("notebook", "forget-me-not", "forget-me-not, attn2"):
            step, optimiser = explicit(unet, way)
        else:
            step, optimiser = ours(unet, way, stack)
        built = resident("VmRSS")
        seconds = updates = 0.0
        for turn in range(2):
            if turn == 1:  # The first pass makes what is made once, and the optimiser's averages.
                Path("/proc/self/clear_refs").write_text("5")
            started = time.perf_counter()
            step()
            seconds = time.perf_counter() - started
            optimiser.step()
            updates = time.perf_counter() - started - seconds
            optimiser.zero_grad(set_to_none=True)
        peak = resident("VmHWM")
    return {
        "seconds": seconds,
        "update_seconds": updates,
        "peak_bytes": peak - before,
        "model_bytes": built - before,
        "threads": torch.get_num_threads(),
    }


def in_own_process(way: str, *, tiny: bool) -> dict[str, float]:
    """Measure one way in a process of its own."""
    command = [sys.executable, __file__, "--measure", way, *(["--tiny"] if tiny else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return {"failed": done.returncode}
    return json.loads(done.stdout.splitlines()[-1])


def summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Return medians, and ratios to some ways of the same round with their spread."""
    found: dict[str, dict[str, Any]] = {}
    for way in rounds[0]:
        rows = [turn[way] for turn in rounds if "failed" not in turn[way]]
        if not rows:
            found[way] = {"failed": [turn[way]["failed"] for turn in rounds]}
            continue
        found[way] = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        for other in ("notebook", "limit", "attention", "two rows"):
            for name in ("seconds", "peak_bytes"):
                pairs = [turn for turn in rounds if other in turn and "failed" not in {**turn[way], **turn[other]}]
                ratios = [turn[way][name] / turn[other][name] for turn in pairs]
                if ratios:
                    spread = {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
                    found[way][f"{name} / {other}"] = spread
    return found


def table(content: dict[str, Any]) -> str:
    """Return what was measured as Markdown; ratios are medians over rounds, with the least and the most."""

    def ratio(row: dict[str, Any], name: str) -> str:
        found = row.get(name)
        return f"{found['median']:.2f} ({found['least']:.2f}-{found['most']:.2f})" if found else ""

    lines = [
        "| a step | seconds | of the notebook's | of the limit | peak, GiB | of the notebook's | of the limit |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for way, row in content["summary"].items():
        if "seconds" not in row:
            lines.append(f"| {way} | failed | | | | | |")
            continue
        times = [ratio(row, f"seconds / {other}") for other in ("notebook", "limit")]
        peaks = [ratio(row, f"peak_bytes / {other}") for other in ("notebook", "limit")]
        cells = [way, f"{row['seconds']:.1f}", *times, f"{row['peak_bytes'] / 2**30:.2f}", *peaks]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure all ways in turn, print and write after every round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a network of a few channels, to try the script")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=NAMES, default=list(WAYS))
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--page", type=Path, help="write the table between its marks in this page")
    parser.add_argument("--no-measuring", action="store_true", help="only write the page of what is there")
    parser.add_argument("--measure", choices=NAMES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, tiny=args.tiny)))
        return
    out = args.out or RESULTS / ("full_size_step_tiny.json" if args.tiny else "full_size_step.json")
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(0 if args.no_measuring else args.rounds):
        rounds.append({way: in_own_process(way, tiny=args.tiny) for way in args.ways})
        content = {"network": TINY if args.tiny else FULL, "summary": summary(rounds), "rounds": rounds}
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_suffix(".tmp")
        partial.write_text(json.dumps(content, indent=1) + "\n")
        partial.replace(out)
    content = json.loads(out.read_text())
    print(json.dumps(content["summary"], indent=1))
    if args.page:
        write_between(args.page, "full-size", table(content))


if __name__ == "__main__":
    main()
