"""How long and how fast to train: the hyper-parameters every trained method shares."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainSettings(BaseModel):
    """Settings of the training loop.

    Example:
        >>> TrainSettings(steps=10, schedule="cosine").batch_size
        8
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(default=200, ge=1, description="Optimiser steps at most; early stopping may end sooner.")
    lr: float = Field(default=2e-5, gt=0, description="Peak learning rate.")
    schedule: Literal["constant", "cosine", "plateau"] = Field(
        default="constant",
        description="constant; cosine falls to zero over the steps; plateau multiplies by plateau_factor when the mean "
        "loss of an epoch (plateau_every steps) has not improved for plateau_patience epochs.",
    )
    warmup: int = Field(default=0, ge=0, description="Steps over which the rate rises linearly from zero.")
    plateau_every: int = Field(default=5, ge=1, description="Steps in an epoch of the plateau schedule.")
    plateau_patience: int = Field(default=10, ge=0, description="Epochs without improvement before the rate falls.")
    plateau_factor: float = Field(default=0.1, gt=0, lt=1, description="What the rate is multiplied by on a plateau.")
    plateau_threshold: float = Field(default=1e-4, ge=0, description="Relative improvement that counts as one.")
    batch_size: int = Field(
        default=8, ge=1, description="Forget examples in a step (in each of its accumulated parts)."
    )
    accumulation: int = Field(default=1, ge=1, description="Batches whose gradients are averaged into one step.")
    optimizer: Literal["adam", "adamw", "adam8bit", "adamw8bit"] = Field(
        default="adam",
        description="adam couples weight_decay into the gradient (L2), adamw decays the weights directly; adam8bit and "
        "adamw8bit keep their averages in 8 bits (extra 8bit).",
    )
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="Adam's averaging factors.")
    weight_decay: float = Field(default=0.0, ge=0, description="Pull of the trained weights towards zero.")
    clip: float | None = Field(default=1.0, gt=0, description="Largest gradient norm; null for no clipping.")
    precision: Literal["float32", "bf16"] = Field(
        default="float32", description="bf16 computes under autocast; what is trained stays float32."
    )
    weights: Literal["float32", "bf16"] = Field(
        default="float32",
        description="Number format of the denoiser's weights that are not trained, while others are; bf16 needs "
        "precision=bf16.",
    )
    checkpointing: bool = Field(
        default=False, description="Recompute the denoiser's blocks in the backward pass: less memory, a third slower."
    )
    channels_last: bool = Field(default=False, description="Lay convolutions out with the channels last.")
    compile: bool = Field(default=False, description="Compile the denoiser's blocks without attention.")
    vae_tiling: bool = Field(default=False, description="Encode pictures tile by tile, in less memory.")
    monitor_every: int = Field(default=10, ge=1, description="Steps between two looks at the held-out set.")
    stop_mass_ratio: float | None = Field(
        default=None, ge=0, lt=1, description="Stop when held-out attention mass has fallen to this share of its start."
    )
    drift_limit: float | None = Field(
        default=0.1,
        gt=0,
        description="Guard: largest held-out retention drift, the relative squared error to the teacher.",
    )
    allow_overfit: bool = Field(default=False, description="Switch the guard off, to study over-fitting.")
    checkpoint_every: int = Field(
        default=25, ge=1, description="Steps between two checkpoints, when there is a run folder."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed of everything random.")

    @model_validator(mode="after")
    def _consistent(self) -> TrainSettings:
        if self.weights == "bf16" and self.precision != "bf16":
            raise ValueError("weights=bf16 computes in bf16 as well; set precision=bf16, or leave weights at float32")
        return self
