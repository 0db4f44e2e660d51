"""Code that uses Ray, run in a process of its own: Ray opens sockets, which a test's process may not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def printed(code: str, *args: object, cache: Path, timeout: float) -> list[Any]:
    """Run the code and return the lists and mappings that it printed as JSON, a line each.

    Args:
        code: Python; its ``sys.argv[1:]`` are the ``args``.
        cache: The process's own cache.
        timeout: Seconds.
    """
    env = {**os.environ, "AIZHEIMER_CACHE": str(cache), "RAY_USAGE_STATS_ENABLED": "0"}
    env |= {"RAY_raylet_start_wait_time_s": "300"}  # a busy machine takes longer than Ray's half a minute
    env |= {"RAY_worker_niceness": "0"}  # by default its workers give way to all else, other tests among it
    words = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("[", "{"))]
