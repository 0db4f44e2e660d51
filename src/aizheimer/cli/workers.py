"""Let several processes of this machine draw an evaluation's pictures, each its own share, into the cache."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Annotated

import typer

from aizheimer._processes import process_count
from aizheimer.cli import streams
from aizheimer.errors import InputError

Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes that draw at a time, on this machine.")]

OneShare = Annotated[
    str | None,
    typer.Option("--share", metavar="I/N", help="Only draw this share of the pictures, into the cache."),
]


def draw_with_workers(
    run: Path,
    workers: int,
    *,
    model: str | None,
    device: str | None,
    samples: int | None,
    full: bool,
    seed: int,
) -> None:
    """Start one ``aizheimer evaluate --share`` for each share, and wait for all of them.

    A worker that fails or is killed is said to have; what it has not drawn is missing in the cache, where whoever reads
    it draws it.

    Args:
        run: The run folder.
        workers: How many.
        model: The base, if it was named.
        device: Where all of them compute, if that was said.
        samples: See `aizheimer.api.evaluate`.
        full: See `aizheimer.api.evaluate`.
        seed: See `aizheimer.api.evaluate`.

    Raises:
        InputError: If this is one of several processes already.
    """
    if process_count() > 1:
        raise InputError("Got --workers under accelerate launch, whose processes share the pictures already.")
    words = [str(run), "--seed", str(seed)]
    words += ["--model", model] if model is not None else []
    words += ["--device", device] if device is not None else []
    words += ["--samples", str(samples)] if samples is not None else []
    words += ["--full"] if full else []
    streams.say(f"drawing    in {workers} processes")
    with tempfile.TemporaryFile("w+") as said:
        started = [_start(words, f"{i + 1}/{workers}", workers, said) for i in range(workers)]
        try:
            codes = [process.wait() for process in started]
        finally:
            for process in started:
                process.kill()
                process.wait()
        said.seek(0)
        errors = [line for line in said.read().splitlines() if line.startswith("error: ")]
    failed = [f"{i} {_how(code)}" for i, code in enumerate(codes, 1) if code != 0]
    if failed:
        why = f" ({errors[-1].removeprefix('error: ').rstrip('.')})" if errors else ""
        streams.say(f"warning: worker {', worker '.join(failed)}{why}; what is missing is drawn here")


def _start(words: list[str], share: str, workers: int, said: IO[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "aizheimer", "evaluate", *words, "--share", share]
    return subprocess.Popen(
        command, env=_environment(workers), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
    )


def _environment(workers: int) -> Mapping[str, str]:
    """Share the cores out, unless the user has said how many threads there are to be."""
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    return {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **os.environ}


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
