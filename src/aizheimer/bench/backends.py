"""Where jobs are run: here one after the other, or on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from aizheimer._ray import started

Job = TypeVar("Job")
Answer = TypeVar("Answer")


def run_local(jobs: Sequence[Job], work: Callable[[Job], Answer]) -> Iterator[tuple[Job, Answer]]:
    """Do the jobs one after the other in this process, where they share one loaded model."""
    for job in jobs:
        yield job, work(job)


def run_on_ray(
    jobs: Sequence[Job], work: Callable[[Job], Answer], *, workers: int | None = None
) -> Iterator[tuple[Job, Answer | Exception]]:
    """Do the jobs on Ray and yield each answer when it is there, in whatever order.

    Ray is started on this machine, or joined where ``RAY_ADDRESS`` says; the bench's folder must then be one that all
    its machines see. It is stopped afterwards if it was started here.

    Args:
        jobs: What to do.
        work: Does one job, in a process of its own; it and the jobs must be importable there.
        workers: Jobs at a time on this machine; None takes every core. Not used for a cluster.

    Yields:
        A job with its answer, or with the error of a worker that died.

    Raises:
        MissingDependencyError: If Ray is not installed.
    """
    with started(workers) as (ray, _):

        def answer(job: Job) -> Answer:  # Ray takes plain functions only, no partial ones and none of C
            return work(job)

        remote = ray.remote(num_cpus=1, max_retries=0)(answer)
        pending = {remote.remote(job): job for job in jobs}
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            job = pending.pop(done)
            try:
                yield job, ray.get(done)
            except Exception as error:  # the worker was killed: its job is a failed row, not the end
                yield job, error
