"""Run one command in several real processes that find each other over the loopback, as accelerate starts them.

They are forked from a server that has imported everything, and computed nothing, before: importing takes longer than
the runs. A test's own process opens no socket.
"""

import functools
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import accelerate  # noqa: F401 - imported for the processes to come
import torch

import aizheimer
import aizheimer.api
import aizheimer.methods._trained
from aizheimer.backbones.stable_diffusion import StableDiffusionBackbone  # noqa: F401
from aizheimer.cli import main
from aizheimer.evaluation import evaluate  # noqa: F401


@dataclass(frozen=True)
class Company:
    """The processes of one command, the main one first, and the files they write to."""

    processes: list[BaseProcess]
    logs: list[Path]

    def ended(self) -> list[int | None]:
        """Wait for all of them and return their exit codes."""
        for process in self.processes:
            process.join()
        return [process.exitcode for process in self.processes]

    def said(self, rank: int = 0) -> str:
        """Return what one of them has written."""
        return self.logs[rank].read_text()

    def __enter__(self) -> "Company":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave none behind."""
        for process in self.processes:
            process.kill()
            process.join()


def start(
    words: Sequence[object],
    *,
    count: int,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    work: Callable[[list[str]], int] = main,
) -> Company:
    """Begin a command, or other work on its words, in ``count`` processes; their output goes into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    port, threads = free_port(), torch.get_num_threads()
    logs = [folder / f"process-{rank}.log" for rank in range(count)]
    args = [str(word) for word in words]
    # What the test has set for itself; the server keeps the environment that it was started in.
    own = {name: os.environ[name] for name in ("AIZHEIMER_CACHE",) if name in os.environ} | dict(environment or {})
    own |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": str(threads)}
    own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [own | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    processes = [
        _server().Process(target=_run, args=(work, args, ranks[rank], threads, logs[rank]), daemon=True)
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    return Company(processes, logs)


@functools.cache
def _server() -> ForkServerContext:
    places = [str(Path(aizheimer.__file__).parents[1]), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _run(
    work: Callable[[list[str]], int], args: list[str], environment: Mapping[str, str], threads: int, log: Path
) -> None:
    torch.set_num_threads(threads)
    os.environ |= environment
    with log.open("w", buffering=1) as file:
        sys.stdout = sys.stderr = file
        code = work(args)
    sys.exit(code)


def free_port() -> int:
    """Return a port that nobody listens at."""
    ours, theirs = multiprocessing.get_context("forkserver").Pipe()
    process = _server().Process(target=_send_free_port, args=(theirs,), daemon=True)
    process.start()
    port = ours.recv()
    process.join()
    return port


def _send_free_port(there: Connection) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        there.send(found.getsockname()[1])
