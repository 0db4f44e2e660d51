"""Several workers on one search: this process asks for points and is told of them, workers on Ray measure them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from aizheimer._ray import started

Handle: TypeAlias = Any
"""A worker of Ray; Ray is optional, so its types are not imported."""


class Measures(Protocol):
    """What a worker needs of a search."""

    def outcome(self, base: dict[str, Any]) -> Any:
        """Return what became of a point."""
        ...


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point that was asked for.

    Args:
        asked: Optuna's trial.
        base: What `Measures.outcome` is given.
        needs: Returns the name of the edit that has to be made for it, empty once that is there.
    """

    asked: Any
    base: dict[str, Any]
    needs: Callable[[], str]


class _Worker:
    """A process of Ray's with the model loaded once."""

    def __init__(self, make: Callable[[], Measures]) -> None:
        self.search = make()

    def outcome(self, base: dict[str, Any]) -> Any:
        return self.search.outcome(base)


def measured_on_ray(
    make: Callable[[], Measures], next_point: Callable[[], Point | None], *, workers: int | None
) -> Iterator[tuple[Point, Any]]:
    """Measure points on Ray, so many at a time, and yield each with its outcome when it is there.

    No point is measured twice and no edit made twice: a point whose edit is being made waits for that.

    Args:
        make: Makes the search in a worker, once.
        next_point: Asks for a point; None when there are enough. It is asked again after every outcome.
        workers: Points at a time; None takes every core.

    Yields:
        A point with its outcome, or with the error of a worker that died.
    """
    with started(workers) as (ray, count):
        actor = ray.remote(num_cpus=1)(_Worker)
        idle: list[Handle] = []
        busy: dict[Any, tuple[Point, Handle]] = {}
        held: list[Point] = []
        while True:
            while len(busy) + len(held) < count and (point := next_point()) is not None:
                held.append(point)
            for point in _startable(held, {point.needs() for point, _ in busy.values()}):
                held.remove(point)
                worker = idle.pop() if idle else actor.remote(make)
                busy[worker.outcome.remote(point.base)] = (point, worker)
            if not busy:
                return
            (done,), _ = ray.wait(list(busy), num_returns=1)
            point, worker = busy.pop(done)
            try:
                outcome = ray.get(done)
            except Exception as error:  # the worker died, or its point is a bug's: a failed trial, not the end
                outcome = error
            else:
                idle.append(worker)
            yield point, outcome


def _startable(held: list[Point], making: set[str]) -> list[Point]:
    """Return the points whose edit is there, and of those whose edit nobody is making one for each."""
    found = []
    for point in held:
        name = point.needs()
        if name and name in making:
            continue
        making.add(name)
        found.append(point)
    return found
