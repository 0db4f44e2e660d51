"""How much memory something takes: weights by counting them, and what is allocated on the way by watching."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from aizheimer.errors import InputError

_UNITS = {"GiB": 2**30, "MiB": 2**20, "GB": 10**9, "MB": 10**6}


def weight_bytes(networks: Iterable[nn.Module]) -> int:
    """Return the bytes of networks' parameters and buffers; what two of them share counts once."""
    tensors = {id(tensor): tensor for network in networks for tensor in network.state_dict(keep_vars=True).values()}
    return sum(tensor.nbytes for tensor in tensors.values())


@dataclass
class Watch:
    """Memory that is being watched.

    Args:
        read: Ends the watching and returns what was seen.
        peak: That, when it has ended.
    """

    read: Callable[[], int]
    peak: int | None = None

    def end(self) -> int:
        """Watch no longer, and return the most bytes that were held; again and again the same."""
        if self.peak is None:
            self.peak = self.read()
        return self.peak


@contextmanager
def watching(device: torch.device) -> Iterator[Watch]:
    """Watch what PyTorch holds, above what it held before, till the block or `Watch.end`.

    On a CPU every operation is slower while it is watched, so that nothing should be timed then.

    Args:
        device: Where it is held.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        watch = Watch(lambda: torch.cuda.max_memory_allocated(device) - before)
    else:
        profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        profiler.start()
        watch = Watch(lambda: _highest(profiler))
    try:
        yield watch
    finally:
        watch.end()


def allocated_peak(action: Callable[[], Any], device: torch.device) -> int:
    """Return the most bytes that PyTorch held during one call, above what it held before.

    Memory that a library takes inside an operation, such as a convolution's workspace, goes past PyTorch on a CPU and
    is not seen.

    Args:
        action: What is watched; its result is dropped.
        device: Where it computes.
    """
    with watching(device) as watch:
        action()
        return watch.end()


def _highest(profiler: profile) -> int:
    """Stop a profiler and return the most bytes that were held while it ran."""
    profiler.stop()
    found: Any = profiler.profiler
    events = [event for event in found.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def resident_bytes() -> int:
    """Return what this process holds in memory, libraries included; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


def available_bytes(device: torch.device) -> int:
    """Return what can still be taken where something computes; 0 where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)


def parse_size(text: str) -> int:
    """Return the bytes of a size such as ``8GiB``.

    Raises:
        InputError: If it is not a positive number and a unit.

    Example:
        >>> parse_size("1.5 GiB")
        1610612736
    """
    for unit, factor in _UNITS.items():
        number = text.strip().removesuffix(unit)
        if number != text.strip():
            try:
                size = float(number)
            except ValueError:
                break
            if size > 0:
                return int(size * factor)
    raise InputError(f"size: got {text!r}; wanted a number and a unit ({', '.join(_UNITS)}), such as 8GiB")


def size_text(count: float) -> str:
    """Return bytes as a person reads them.

    Example:
        >>> size_text(1610612736)
        '1.50 GiB'
    """
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
