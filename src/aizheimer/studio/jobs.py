"""A queue of long jobs: one at a time, each seen by its owner alone, and stopped when that owner asks."""

from __future__ import annotations

import contextlib
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from aizheimer.errors import AizheimerError, InputError

State: TypeAlias = Literal["waiting", "running", "done", "failed", "stopped"]

WAITING_EACH = 4
"""Jobs that one owner may have in the queue."""
KEPT_EACH = 24
"""Ended jobs that are remembered of one owner."""


class JobStopped(AizheimerError):
    """The owner asked for the end, and there was nothing worth keeping."""


@dataclass(frozen=True, kw_only=True)
class JobView:
    """What an owner sees of a job; a snapshot.

    Args:
        id: Names the job.
        kind: What sort of job it is, as the page tells them apart.
        title: What it does, in words.
        state: How far it is.
        version: Grows with every change, so that a page knows when to draw anew.
        stage: What is being done now.
        done: Of that stage.
        total: Of that stage; 0 when nobody knows.
        ahead: Jobs that come first.
        seconds: Since it began to run.
        stopping: Whether its end has been asked for.
        notes: What it told on the way.
        result: What it came to, when it is done.
        error: Why it failed, in one line.
    """

    id: str
    kind: str
    title: str
    state: State = "waiting"
    version: int = 0
    stage: str = ""
    done: int = 0
    total: int = 0
    ahead: int = 0
    seconds: float = 0.0
    stopping: bool = False
    notes: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("done", "failed", "stopped")


class Desk:
    """What a job's work is given: it tells how far it is, and learns here that it should stop."""

    def __init__(self, change: Callable[..., None], stop: threading.Event) -> None:
        self._change, self._stop = change, stop

    @property
    def stopping(self) -> bool:
        """Whether the owner asked for the end; work that can keep something looks here and returns it."""
        return self._stop.is_set()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Tell how far a stage is.

        Raises:
            JobStopped: The owner asked for the end.
        """
        if self.stopping:
            raise JobStopped("stopped")
        self.say(stage, done, total)

    def say(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Tell how far a stage is, and go on whatever was asked."""
        self._change(stage=stage, done=done, total=total)

    def note(self, **values: Any) -> None:
        """Add to what the owner sees; a value is replaced as a whole, never changed in place."""
        self._change(notes=values)


Work: TypeAlias = Callable[[Desk], Mapping[str, Any]]
"""Does the job and returns its result as JSON values."""


@dataclass
class _Job:
    """A job as the queue keeps it."""

    owner: str
    work: Work
    view: JobView
    stop: threading.Event = field(default_factory=threading.Event)
    began: float = 0.0
    ended: float = 0.0


class JobQueue:
    """Runs jobs one after the other on a thread of its own.

    Example:
        >>> queue = JobQueue()
        >>> job = queue.submit("ann", lambda desk: {"answer": 42}, kind="sum", title="adding")
        >>> queue.wait(job), queue.look("ann", job).result["answer"], queue.look("bob", job)
        (True, 42, None)
        >>> queue.close()
    """

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._changed = threading.Condition()
        self._machine = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="aizheimer-studio", daemon=True)
        self._thread.start()

    def submit(self, owner: str, work: Work, *, kind: str, title: str) -> str:
        """Put a job at the end of the queue and return its id.

        Raises:
            InputError: The owner has too many jobs in the queue already.
        """
        with self._changed:
            waiting = [job for job in self._jobs.values() if job.owner == owner and not job.view.ended]
            if len(waiting) >= WAITING_EACH:
                raise InputError(f"you have {len(waiting)} jobs in the queue; wait for one, or stop one.")
            job = _Job(owner, work, JobView(id=secrets.token_urlsafe(12), kind=kind, title=title))
            self._jobs[job.view.id] = job
            self._forget_old(owner)
            self._changed.notify_all()
            return job.view.id

    def look(self, owner: str, job_id: str) -> JobView | None:
        """Return an owner's job as it is now; None if there is none of that name, or it is another's."""
        with self._changed:
            job = self._jobs.get(job_id)
            return self._seen(job) if job is not None and job.owner == owner else None

    def all(self, owner: str) -> list[JobView]:
        """Return all that is known of an owner's jobs, the oldest first."""
        with self._changed:
            return [self._seen(job) for job in self._jobs.values() if job.owner == owner]

    def stop(self, owner: str, job_id: str) -> bool:
        """Ask for the end of an owner's job; returns whether there was anything to stop."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None or job.owner != owner or job.view.ended:
                return False
            job.stop.set()
            if job.view.state == "waiting":
                self._change(job, state="stopped")
            else:
                self._change(job, stopping=True)
            return True

    def wait(self, job_id: str, timeout: float = 60.0) -> bool:
        """Wait for a job's end; returns whether it came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._jobs[job_id].view.ended, timeout)

    @contextlib.contextmanager
    def between_jobs(self, timeout: float = 0.3) -> Iterator[bool]:
        """Hold the machine for something short; yields False if a job has it."""
        held = self._machine.acquire(timeout=timeout)
        try:
            yield held
        finally:
            if held:
                self._machine.release()

    def close(self) -> None:
        """Stop what runs, drop what waits, and end the thread."""
        with self._changed:
            self._closed = True
            for job in self._jobs.values():
                job.stop.set()
            self._changed.notify_all()
        self._thread.join(timeout=10)

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            with self._machine:
                self._run(job)

    def _next(self) -> _Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._first() is not None)
            return None if self._closed else self._first()

    def _first(self) -> _Job | None:
        return next((job for job in self._jobs.values() if job.view.state == "waiting"), None)

    def _run(self, job: _Job) -> None:
        with self._changed:
            if job.view.ended:  # stopped while the machine was being waited for
                return
            job.began = time.monotonic()
            self._change(job, state="running")
        try:
            result = dict(job.work(Desk(lambda **values: self._change(job, **values), job.stop)))
        except JobStopped:
            self._change(job, state="stopped")
        except AizheimerError as error:
            self._change(job, state="failed", error=" ".join(str(error).split()))
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            self._change(job, state="failed", error=f"unexpected {type(error).__name__}; the server's log says more.")
        else:
            self._change(job, state="done", result=result)

    def _change(self, job: _Job, **values: Any) -> None:
        with self._changed:
            if "notes" in values:
                values["notes"] = {**job.view.notes, **values["notes"]}
            job.view = replace(job.view, version=job.view.version + 1, **values)
            if job.view.ended:
                job.ended = time.monotonic()
            self._changed.notify_all()

    def _seen(self, job: _Job) -> JobView:
        if job.view.state == "waiting":
            ahead = 0
            for other in self._jobs.values():
                if other is job:
                    break
                ahead += not other.view.ended
            return replace(job.view, ahead=ahead)
        if not job.began:
            return job.view
        return replace(job.view, seconds=(job.ended or time.monotonic()) - job.began)

    def _forget_old(self, owner: str) -> None:
        ended = [key for key, job in self._jobs.items() if job.owner == owner and job.view.ended]
        for key in ended[: max(0, len(ended) - KEPT_EACH)]:
            del self._jobs[key]
