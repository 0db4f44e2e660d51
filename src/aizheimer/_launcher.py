"""What ``accelerate launch`` says in environment variables, held against what a run does: nothing is ignored."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from aizheimer.errors import InputError

_PLAIN = "start them with accelerate launch --multi_gpu, and save memory with aizheimer plan --fit (docs/processes.md)"
_STRATEGIES = {"FULL_SHARD": True, "1": True, "SHARD_GRAD_OP": False, "2": False}
"""Of FSDP's first version, by name and by number: whether a block's weights are given up after its forward pass."""


@dataclass(frozen=True, slots=True)
class Sharding:
    """How processes share the weights that are not trained.

    Args:
        reshard: Whether a block's are given up after its forward pass; else after its backward pass.
    """

    reshard: bool


class Training(Protocol):
    """What is asked of a recipe's training; see `aizheimer.engine.settings.TrainSettings`."""

    @property
    def precision(self) -> str:
        """What is computed in."""
        ...

    @property
    def accumulation(self) -> int:
        """Batches in a step."""
        ...

    @property
    def checkpointing(self) -> bool:
        """Whether blocks are recomputed."""
        ...

    @property
    def compile(self) -> bool:
        """Whether blocks are compiled."""
        ...

    @property
    def channels_last(self) -> bool:
        """How convolutions are laid out."""
        ...


def asked_sharding() -> Sharding | None:
    """Return how the launcher wants the weights shared (``--use_fsdp``); None if it does not.

    Raises:
        InputError: If it wants them shared in a way that no run does.
    """
    if not _said("ACCELERATE_USE_FSDP"):
        return None
    if _said("FSDP_OFFLOAD_PARAMS"):
        raise InputError(
            "got FSDP with parameters offloaded from the launcher (FSDP_OFFLOAD_PARAMS); wanted them on their devices: "
            "leave --fsdp_offload_params out"
        )
    if os.environ.get("FSDP_VERSION", "1") == "2":
        return Sharding(reshard=_said("FSDP_RESHARD_AFTER_FORWARD", default="true"))
    strategy = os.environ.get("FSDP_SHARDING_STRATEGY", "FULL_SHARD").upper()
    if strategy not in _STRATEGIES:
        raise InputError(
            f"got FSDP's strategy {strategy} from the launcher (FSDP_SHARDING_STRATEGY); wanted FULL_SHARD or "
            "SHARD_GRAD_OP"
        )
    return Sharding(reshard=_STRATEGIES[strategy])


def refuse_sharding(what: str) -> None:
    """Refuse FSDP where nothing is trained, so that nothing would be shared.

    Args:
        what: What is done instead, as the message begins.

    Raises:
        InputError: If the launcher asks for it.
    """
    if asked_sharding() is not None:
        raise InputError(
            f"{what}: got FSDP from the launcher (ACCELERATE_USE_FSDP), which shares the weights of a network that is "
            f"trained, and here every process holds the whole model; wanted data-parallel processes: {_PLAIN}"
        )


def check_launcher() -> None:
    """Refuse, whatever is to be done, what no run does.

    Raises:
        InputError: If the launcher asks for DeepSpeed, or for a kind of FSDP that no run has.
    """
    if _said("ACCELERATE_USE_DEEPSPEED"):
        raise InputError(
            "got DeepSpeed from the launcher (ACCELERATE_USE_DEEPSPEED); wanted data-parallel processes, or FSDP: "
            f"{_PLAIN}"
        )
    asked_sharding()


def check_training(training: Training) -> None:
    """Refuse what a launcher asks for and a training would not do: the recipe alone says how it is trained.

    A launcher that says nothing says ``no``, 1 and ``false``.

    Args:
        training: The recipe's settings.

    Raises:
        InputError: If the launcher wants another precision, accumulation or recomputing than the recipe, or wants the
            weights shared that the recipe wants in a form in which they cannot be.
    """
    told = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if told not in ("no", training.precision):
        raise InputError(
            f"got mixed precision {told} from the launcher (ACCELERATE_MIXED_PRECISION) and training.precision="
            f"{training.precision} of the recipe, which is what counts; set training.precision, or leave it out of the "
            "launcher"
        )
    parts = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if parts not in ("1", "auto", str(training.accumulation)):
        raise InputError(
            f"got {parts} gradient accumulation steps from the launcher (ACCELERATE_GRADIENT_ACCUMULATION_STEPS) and "
            f"training.accumulation={training.accumulation} of the recipe, which is what counts; set "
            "training.accumulation, or leave it out of the launcher"
        )
    if asked_sharding() is None:
        return
    if _said("FSDP_ACTIVATION_CHECKPOINTING") and not training.checkpointing:
        raise InputError(
            "got activation checkpointing from the launcher (FSDP_ACTIVATION_CHECKPOINTING) and training.checkpointing="
            "false of the recipe, which is what counts; set training.checkpointing, or leave it out of the launcher"
        )
    for name, wanted in (("compile", training.compile), ("channels_last", training.channels_last)):
        if wanted:
            raise InputError(
                f"got FSDP from the launcher (ACCELERATE_USE_FSDP) and training.{name}=true of the recipe; shared "
                f"weights cannot be had so: set training.{name}=false, or leave --use_fsdp out"
            )


def _said(variable: str, *, default: str = "false") -> bool:
    return os.environ.get(variable, default).lower() in ("true", "1")
