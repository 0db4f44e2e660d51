"""How long the suite `canvas` takes for one edit: what a user types, timed, with a cache that holds nothing.

Each command is a process of its own, its start and the loading of model and judges included. Processor seconds are
those of the process by the kernel's account: on a machine that has other work, they say more than the clock does. A
picture counts as drawn if the command put it into the cache. The last command asks for another figure of the same
pictures.

Example:
    python benchmarks/canvas_seconds.py
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measuring import write_json

RESULTS = Path("benchmarks/results/canvas_seconds.json")
COMMANDS = (
    "aizheimer forget cat --method uce --out cat",
    "aizheimer evaluate cat --suite canvas",
    "aizheimer evaluate cat --suite canvas --effective-only",
)


def timed(command: str, *, folder: Path, cache: Path) -> dict[str, Any]:
    """Run a command in a folder, and say what it took and how many pictures it drew."""
    there, before = pictures(cache), resource.getrusage(resource.RUSAGE_CHILDREN)
    load, started = os.getloadavg()[0], time.perf_counter()
    environment = {**os.environ, "AIZHEIMER_CACHE": str(cache)}
    subprocess.run(shlex.split(command), cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "command": command,
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, 1),
        "pictures_drawn": pictures(cache) - there,
        "load_before": round(load, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }


def pictures(cache: Path) -> int:
    """Return how many pictures a cache holds."""
    return sum(1 for file in (cache / "images").rglob("*") if file.is_file())


def main() -> None:
    """Time the commands, and write what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS)
    output = parser.parse_args().output.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = [timed(command, folder=folder, cache=folder / "cache") for command in COMMANDS]
    machine = {"processors": len(os.sched_getaffinity(0)), "nice": os.nice(0), "torch": torch.__version__}
    write_json(output, {"run": "python benchmarks/canvas_seconds.py", **machine, "rows": rows})
    for row in rows:
        print(f"{row['command']}: {row['wall_seconds']} s, {row['pictures_drawn']} pictures")


if __name__ == "__main__":
    main()
