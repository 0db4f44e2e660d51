"""What a training step holds in memory where processes share the frozen weights (FSDP), and where each has them all.

One step of attention keys and values in a UNet of Stable Diffusion 1.5's shape with weights that mean nothing, each
process with a latent of its own: first with the whole network in every process, then with shares. Figures are the main
process's: bytes of parameters, resident memory before and in the step (its highest), and whether the gradients are the
same. Linux alone tells the highest.

Usage:
    accelerate launch --multi_gpu --num_processes 2 benchmarks/sharded_weights.py [--size 32] [--tiny] [--output FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from measuring import write_json
from torch import Tensor

from aizheimer._processes import processes
from aizheimer.modules.sharded import sharded

GIB = 2**30
TINY: dict[str, Any] = {"block_out_channels": (32, 32, 64, 64), "norm_num_groups": 8}


def network(*, tiny: bool) -> UNet2DConditionModel:
    """Return the UNet, of which keys and values of cross-attention learn."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, **(TINY if tiny else {}))
    unet = unet.to_empty(device="cpu").requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in unet.named_parameters():
        spread = 0.02 if parameter.ndim > 1 else 0.0
        parameter.data.normal_(mean=float("norm" in name and name.endswith("weight")), std=spread, generator=generator)
        parameter.requires_grad_("attn2.to_k" in name or "attn2.to_v" in name)
    return unet


def step(unet: Any, *, size: int) -> dict[str, Tensor]:
    """Send one latent forward and its loss backward; return the gradients."""
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(1, 4, size, size, generator=generator)
    words = torch.randn(1, 77, 768, generator=generator)
    unet(latent, 500, words).sample.square().mean().backward()
    found = {name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None}
    unet.zero_grad(set_to_none=True)
    return found


def measured(unet: Any, *, size: int, share: bool) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Take a step after a first one, and return what it held and its gradients."""
    with sharded(unet) if share else contextlib.nullcontext():
        held = sum(_own(parameter).numel() * parameter.element_size() for parameter in unet.parameters())
        step(unet, size=size)
        gc.collect()
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        started = time.perf_counter()
        gradients = step(unet, size=size)
        seconds = time.perf_counter() - started
        most = _resident("VmHWM")
    figures = {"parameters": held / GIB, "before": before / GIB, "highest": most / GIB, "seconds": seconds}
    return figures, gradients


def _own(parameter: Any) -> Tensor:
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def _resident(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Measure both and write what the main process found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32, help="of the latents")
    parser.add_argument("--tiny", action="store_true", help="a small network, to try the script")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/sharded_weights.json"))
    args = parser.parse_args()
    team, unet = processes(), network(tiny=args.tiny)
    whole, wanted = measured(unet, size=args.size, share=False)
    shared, found = measured(unet, size=args.size, share=True)
    apart = max(float((found[name] - gradient).abs().max() / gradient.abs().max()) for name, gradient in wanted.items())
    content = {
        "processes": team.count,
        "size": args.size,
        "parameters": sum(parameter.numel() for parameter in unet.parameters()),
        "gib": {"whole": whole, "shared": shared},
        "gradients_apart": apart,
    }
    if team.is_main:
        write_json(args.output, content)
        print(content)


if __name__ == "__main__":
    main()
