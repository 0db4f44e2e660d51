"""Ray, which is optional: started for what needs it, or joined, and stopped again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from aizheimer._imports import require

Backend: TypeAlias = Literal["local", "ray"]


@contextmanager
def started(workers: int | None) -> Iterator[tuple[Any, int]]:
    """Start Ray on this machine, or join it where ``RAY_ADDRESS`` says; stop it afterwards if it was started here.

    Args:
        workers: Jobs at a time on this machine; None takes every core. A cluster has its own size.

    Yields:
        Ray, and how many jobs at a time there are.

    Raises:
        MissingDependencyError: If Ray is not installed.
    """
    ray: Any = require("ray", extra="ray")
    ours = not ray.is_initialized()
    if ours:
        size = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers or os.cpu_count() or 1}
        ray.init(include_dashboard=False, log_to_driver=False, **size)
    try:
        yield ray, workers or int(ray.cluster_resources().get("CPU", 1))
    finally:
        if ours:
            ray.shutdown()
