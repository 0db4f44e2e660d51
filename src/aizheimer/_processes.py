"""The processes that work on one command together, as ``accelerate launch`` starts them; alone is the usual case.

Every process runs the same program on the same random numbers. What costs time is shared by rows
(`aizheimer._row_shares`), gradients are averaged, and what decides how the program goes on is told by the main process,
so that all of them take the same way. Only the main process writes and speaks.

Finding out who is there costs no import: launchers say it in ``RANK`` and ``WORLD_SIZE``. The group is formed at the
first call of `processes`, by accelerate. Values travel as JSON, tensors as their bytes; nothing is pickled.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from aizheimer._launcher import check_launcher
from aizheimer.errors import AizheimerError, ProcessError, ToldError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")
P = ParamSpec("P")

_PATIENCE_HOURS = 12
"""How long a process waits for another, which may be drawing all pictures of a preparation."""


def process_count() -> int:
    """Return how many processes a launcher has started for this command; 1 without one."""
    return max(1, int(os.environ.get("WORLD_SIZE") or 1))


def process_rank() -> int:
    """Return this process's number, 0 for the main one."""
    return int(os.environ.get("RANK") or 0) if process_count() > 1 else 0


def is_main() -> bool:
    """Return whether this process writes and speaks."""
    return process_rank() == 0


def main_only(write: Callable[P, None]) -> Callable[P, None]:
    """Let only the main process do what a function does."""

    @functools.wraps(write)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        if is_main():
            write(*args, **kwargs)

    return guarded


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The group, seen from one of them. Alone, every method returns what it was given.

    All processes must call the same methods in the same order.

    Args:
        rank: This process's number.
        count: How many there are.

    Example:
        >>> Processes().tell({"stop": True})
        {'stop': True}
    """

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this one writes and speaks."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where this process's tensors must be to be sent: its own GPU, or the CPU."""
        import torch

        return _state().device if self.count > 1 else torch.device("cpu")

    def tell(self, value: T) -> T:
        """Return the main process's value, made of JSON values, in every process."""
        return value if self.count == 1 else self._told(value)

    def on_main(self, work: Callable[[], T]) -> T | None:
        """Do something in the main process while the others wait.

        Returns:
            What it returned; None in the others.

        Raises:
            ToldError: In the others, if it failed in the main process, where its own error is raised.
        """
        if self.count == 1:
            return work()
        result = None
        if self.is_main:
            try:
                result = work()
            except AizheimerError as error:
                self._told({"message": str(error), "exit_code": error.exit_code})
                raise
        if failure := self._told(None):
            raise ToldError(failure["message"], exit_code=failure["exit_code"])
        return result

    def in_turn(self, work: Callable[[], T]) -> T:
        """Do something in the main process first and then in all others, who find what it has stored."""
        first = self.on_main(lambda: [work()])
        return first[0] if first is not None else work()

    def tell_tensors(self, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Return the main process's tensors, on the CPU, in every process."""
        import torch

        if self.count == 1:
            return dict(tensors or {})
        own = {name: tensor.detach().cpu().contiguous() for name, tensor in (tensors or {}).items()}
        shapes = self._told({name: [str(t.dtype).removeprefix("torch."), *t.shape] for name, t in own.items()})
        told = {}
        for name, (dtype, *shape) in shapes.items():
            sent = own[name] if self.is_main else torch.empty(shape, dtype=getattr(torch, dtype))
            there = sent.to(self.device)
            with company():
                torch.distributed.broadcast(there, src=0)
            told[name] = there.cpu()
        return told

    def make_same(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the main one's values, in place."""
        import torch

        if self.count == 1:
            return
        with torch.no_grad(), company():
            for tensor in tensors:
                sent = tensor.contiguous()  # itself, but for channels last
                torch.distributed.broadcast(sent, src=0)
                tensor.copy_(sent)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors, gradients for instance, by their means over the processes, in place."""
        import torch

        if self.count == 1:
            return
        with torch.no_grad(), company():
            for tensor in tensors:
                sent = tensor.contiguous()
                torch.distributed.all_reduce(sent)
                tensor.copy_(sent.div_(self.count))

    def everywhere(self, flags: Tensor) -> Tensor:
        """Return which of some boolean flags are True in every process."""
        import torch

        if self.count == 1:
            return flags
        numbers = flags.to(self.device, torch.int32)
        with company():
            torch.distributed.all_reduce(numbers, op=torch.distributed.ReduceOp.MIN)
        return numbers.bool().to(flags.device)

    def gather(self, rows: Tensor, counts: list[int]) -> Tensor:
        """Return the rows of all processes, one after the other.

        Args:
            rows: (own rows, ...) this process's.
            counts: How many rows each process has; no gradient flows.
        """
        import torch

        if self.count == 1:
            return rows
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows.detach()
        parts = [torch.empty_like(padded) for _ in counts]
        with company():
            torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])

    def _told(self, value: Any) -> Any:
        import torch

        text = json.dumps(value).encode() if self.is_main else b""
        size = torch.tensor([len(text)], device=self.device)
        with company():
            torch.distributed.broadcast(size, src=0)
            sent = torch.frombuffer(bytearray(text), dtype=torch.uint8) if self.is_main else None
            room = torch.empty(int(size), dtype=torch.uint8) if sent is None else sent
            there = room.to(self.device)
            torch.distributed.broadcast(there, src=0)
        return json.loads(bytes(there.cpu().tolist()))


@functools.cache
def processes() -> Processes:
    """Return the processes of this command; with more than one, the first call waits until all are there.

    Raises:
        ProcessError: If they do not find each other.
        InputError: If the launcher wants what no run does; see `aizheimer._launcher.check_launcher`.
    """
    if process_count() == 1:
        return Processes()
    check_launcher()
    with company():
        state = _state()
    atexit.register(_leave)
    return Processes(rank=state.process_index, count=state.num_processes)


def _state() -> Any:
    from datetime import timedelta

    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=_PATIENCE_HOURS))


def _leave() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def company() -> Iterator[None]:
    """Turn what torch says when another process is gone into one line."""
    try:
        yield
    except RuntimeError as error:
        if not _is_loss(error):
            raise
        raise ProcessError(
            f"another process of this command has ended or cannot be reached ({' '.join(str(error).split())[:160]}); "
            "what was written so far is kept: start the command again, a run with --resume"
        ) from error


def _is_loss(error: RuntimeError) -> bool:
    """Whether torch says that another process cannot be reached; gloo's errors are of no class of their own."""
    import torch

    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()
