"""Queries of the frozen model's attention to text, computed once and kept on the disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aizheimer.backbones.base import Backbone
from aizheimer.backbones.conditioning import Conditioning, Conditions, as_conditioning
from aizheimer.data.cache import TensorCache, backbone_key, tensor_hashes
from aizheimer.data.latents import Progress
from aizheimer.data.sources import Draw

PART = 16
"""Inputs in one file: what is computed and held in memory at a time, and what a killed process loses."""

Record = Callable[[Tensor, Tensor, Conditioning], Mapping[str, Tensor]]
"""Runs the frozen denoiser on latents, timesteps and prompts, and returns (inputs, queries, width) by layer."""


class BankPlan(BaseModel):
    """How many queries to keep, and what to do with them.

    Example:
        >>> BankPlan(warm_start=50).keep
        'float16'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    forget: int = Field(default=64, ge=1, description="Most inputs of forget prompts whose queries are kept.")
    retain: int = Field(default=128, ge=1, description="Most inputs of retain prompts whose queries are kept.")
    keep: Literal["float16", "float32"] = Field(
        default="float16", description="Number format that queries are kept in; float16 rounds them to 11 bits."
    )
    warm_start: int | None = Field(
        default=None,
        ge=1,
        description="Steps on the bank to begin with, before training.steps go through the network; null trains on the "
        "bank alone.",
    )


@dataclass(frozen=True, kw_only=True)
class QueryBank:
    """Queries by layer, input after input. What was kept on the disk is mapped, and only what is asked for is read.

    Args:
        parts: Of every `PART` inputs one mapping of layer to (inputs, queries, width), the output of the layer's query
            projection; the last may have fewer.
        prompt_index: (inputs,) which prompt each was asked with.
    """

    parts: tuple[Mapping[str, Tensor], ...]
    prompt_index: Tensor

    def __len__(self) -> int:
        """Return the number of inputs."""
        return len(self.prompt_index)

    def rows(self, layer: str, index: Tensor) -> Tensor:
        """Return the queries (chosen, queries, width) of some inputs in one layer, in the format they are kept in.

        Args:
            layer: Its name.
            index: (chosen,) numbers of inputs.
        """
        first = self.parts[0][layer]
        # Not torch.stack: under a CPU's autocast to bfloat16 it refuses what is kept in float16.
        found = torch.empty(len(index), *first.shape[1:], dtype=first.dtype)
        for place, i in enumerate(index.tolist()):
            found[place] = self.parts[i // PART][layer][i % PART]
        return found


def kept_queries(
    backbone: Backbone,
    draw: Draw,
    *,
    conditions: Conditions,
    layers: list[str],
    record: Record,
    plan: BankPlan,
    cache: TensorCache,
    progress: Progress | None = None,
) -> QueryBank:
    """Return the frozen model's queries for some inputs: from the disk, or recorded now.

    The key is everything they depend on, the weights included, so whoever asks alike shares them.

    Args:
        backbone: The frozen model.
        draw: The inputs.
        conditions: Encoded prompts; ``draw.prompt_index`` counts in it.
        layers: Names of the attention modules.
        record: Computes them.
        plan: Names the number format.
        cache: Where they are kept; without a folder they stay in memory.
        progress: Called with (inputs done, inputs).
    """
    told = as_conditioning(conditions)[draw.prompt_index.cpu()]
    keep = torch.float16 if plan.keep == "float16" else torch.float32
    model = "" if cache.folder is None else backbone.fingerprint()
    parts: list[Mapping[str, Tensor]] = []
    for start in range(0, len(draw), PART):
        rows = slice(start, start + PART)
        x_t, t, prompts = draw.x_t[rows], draw.t[rows], told[rows]

        def compute(x_t: Tensor = x_t, t: Tensor = t, prompts: Conditioning = prompts) -> dict[str, Tensor]:
            found = record(x_t, t, prompts.to(x_t))
            return {layer: found[layer].to("cpu", keep) for layer in layers}

        content = {
            "layers": layers,
            "keep": plan.keep,
            "denoiser": model,
            "inputs": tensor_hashes({"x_t": x_t, "t": t}),
            "prompts": tensor_hashes(prompts.tensors()),
        }
        key = "" if cache.folder is None else backbone_key(backbone, kind="queries", content=content)
        parts.append(cache.get(key, compute))
        if progress is not None:
            progress(min(start + PART, len(draw)), len(draw))
    return QueryBank(parts=tuple(parts), prompt_index=draw.prompt_index.cpu())
