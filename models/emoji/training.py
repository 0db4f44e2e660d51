"""What every training script here shares: resumable state, a loss log, EMA, Muon, sheets."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic iteration of Muon (Jordan et al., 2024)


def save_atomic(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that ``kill -9`` leaves either the old or the new one."""
    partial = path.with_suffix(".tmp")
    torch.save(state, partial)
    os.replace(partial, path)


def load_state(path: Path) -> dict[str, Any] | None:
    """Read our own checkpoint (tensors and plain values only), or None."""
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


class Log:
    """Append one JSON line per report to ``<stage>.jsonl`` and print it."""

    def __init__(self, path: Path, elapsed: float = 0.0) -> None:
        self.path, self.started = path, time.time() - elapsed

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, earlier sittings included."""
        return time.time() - self.started

    def write(self, **values: Any) -> None:
        """Log one row; floats are rounded to five significant digits."""
        row = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in values.items()}
        row["seconds"] = round(self.elapsed, 1)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(" ".join(f"{k}={v}" for k, v in row.items()), flush=True)


class EMA:
    """Exponential moving average of a model's parameters, with a warm-up of its rate."""

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.shadow = {k: v.detach().clone() for k, v in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """Move the average one step towards the model."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        names, values = zip(*model.named_parameters(), strict=True)
        torch._foreach_lerp_([self.shadow[n] for n in names], list(values), 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and the update count."""
        return {"shadow": self.shadow, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore in place."""
        self.updates = state["updates"]
        for name, value in state["shadow"].items():
            self.shadow[name].copy_(value)

    def copy_to(self, model: torch.nn.Module) -> None:
        """Write the average into the model."""
        model.load_state_dict(self.shadow, strict=False)


def orthogonalise(matrix: torch.Tensor, steps: int = 5, block: int = 64) -> torch.Tensor:
    """Newton-Schulz iteration towards the nearest (semi-)orthogonal matrix, ``block`` rows at a time.

    Blocks keep the cost at 20 x block flops a weight: a batch of 16 on a CPU can afford it.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    rows, columns = x.shape
    if rows > block and rows % block == 0:
        x = x.reshape(rows // block, block, columns)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.reshape(rows, columns)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz, for matrices and (flattened) convolutions.

    ``torch.optim.Muon`` takes 2-D parameters only; most of a UNet's weights are 4-D.
    Updates are scaled by 0.2 sqrt(max(m, n)) so that AdamW's learning rates apply
    (Liu et al., 2025, arXiv:2502.16982, section 2.2).
    """

    def __init__(
        self, params: list[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                buffer = state["momentum_buffer"].lerp_(p.grad, 1 - group["momentum"])
                nesterov = p.grad.lerp(buffer, group["momentum"]).flatten(1)
                update = orthogonalise(nesterov).view_as(p)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(nesterov.shape)))


def cosine(step: int, total: int, *, warmup: int = 100, floor: float = 0.02) -> float:
    """Learning-rate factor: linear warm-up, then cosine decay to ``floor``."""
    if step < warmup:
        return (step + 1) / warmup
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """(batch, 3, h, w) in [-1, 1] to uint8 (batch, h, w, 3)."""
    return images.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def save_sheet(images: torch.Tensor, path: Path, columns: int, *, zoom: int = 2) -> None:
    """Write (batch, 3, h, w) in [-1, 1] as a PNG sheet with ``columns`` pictures a row."""
    array = to_uint8(images)
    rows = [np.concatenate(list(array[i : i + columns]), axis=1) for i in range(0, len(array) - columns + 1, columns)]
    sheet = Image.fromarray(np.concatenate(rows, axis=0))
    sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.NEAREST).save(path)
