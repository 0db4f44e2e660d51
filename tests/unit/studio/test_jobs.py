"""The queue: one job at a time, each owner sees its own, what is stopped ends, what fails says why."""

import threading
import time

import pytest

from aizheimer.errors import InputError
from aizheimer.studio.jobs import KEPT_EACH, WAITING_EACH, JobQueue


@pytest.fixture
def queue():
    made = JobQueue()
    yield made
    made.close()


class Held:
    """Work that goes on until it is let go, and tells when it has begun."""

    def __init__(self, *, keeps: bool = False):
        self.begun, self.let_go, self.keeps = threading.Event(), threading.Event(), keeps

    def __call__(self, desk):
        self.begun.set()
        for count in range(10_000):
            if self.keeps and desk.stopping:
                return {"kept": count}
            desk.say("holding", count, 0) if self.keeps else desk.progress("holding", count, 10_000)
            if self.let_go.wait(0.01):
                return {"count": count}
        raise TimeoutError


def test_a_job_tells_how_far_it_is_and_what_it_came_to(queue):
    def work(desk):
        desk.progress("adding", 1, 2)
        desk.note(rows=[1])
        desk.note(more="x")
        return {"answer": 42}

    job = queue.submit("ann", work, kind="sum", title="adding up")
    assert queue.wait(job)
    view = queue.look("ann", job)
    assert (view.state, view.stage, view.done, view.total) == ("done", "adding", 1, 2)
    assert (view.notes, view.result) == ({"rows": [1], "more": "x"}, {"answer": 42})
    assert (view.kind, view.title, view.ended) == ("sum", "adding up", True)


def test_jobs_run_one_at_a_time_in_turn(queue):
    running, most, order = [0], [0], []

    def work(name):
        def act(desk):
            running[0] += 1
            most[0] = max(most[0], running[0])
            time.sleep(0.02)
            order.append(name)
            running[0] -= 1
            return {}

        return act

    jobs = [queue.submit(f"owner {i}", work(i), kind="k", title="t") for i in range(5)]
    assert all(queue.wait(job) for job in jobs)
    assert (most, order) == ([1], [0, 1, 2, 3, 4])


def test_who_waits_sees_how_many_come_first_and_may_leave(queue):
    held, ran = Held(), []
    queue.submit("ann", held, kind="k", title="t")
    assert held.begun.wait(5)
    second = queue.submit("bob", lambda desk: ran.append(1) or {}, kind="k", title="t")
    third = queue.submit("ann", lambda desk: {}, kind="k", title="t")
    assert [queue.look("bob", second).ahead, queue.look("ann", third).ahead] == [1, 2]
    assert queue.stop("bob", second)
    assert queue.look("bob", second).state == "stopped"
    assert queue.look("ann", third).ahead == 1
    held.let_go.set()
    assert queue.wait(third)
    assert ran == []


def test_nobody_sees_or_stops_the_job_of_another(queue):
    held = Held()
    job = queue.submit("ann", held, kind="k", title="secret")
    assert held.begun.wait(5)
    assert queue.look("bob", job) is None
    assert queue.all("bob") == []
    assert not queue.stop("bob", job)
    assert not queue.look("ann", job).stopping
    assert [view.id for view in queue.all("ann")] == [job]
    held.let_go.set()


def test_a_job_that_is_stopped_ends_at_its_next_word(queue):
    held = Held()
    job = queue.submit("ann", held, kind="k", title="t")
    assert held.begun.wait(5)
    assert queue.stop("ann", job)
    assert queue.wait(job)
    assert (queue.look("ann", job).state, queue.look("ann", job).result) == ("stopped", {})
    assert not queue.stop("ann", job)


def test_a_job_that_can_keep_something_does(queue):
    held = Held(keeps=True)
    job = queue.submit("ann", held, kind="k", title="t")
    assert held.begun.wait(5)
    queue.stop("ann", job)
    assert queue.wait(job)
    view = queue.look("ann", job)
    assert (view.state, view.stopping, set(view.result)) == ("done", True, {"kept"})


def test_an_error_of_ours_is_told_and_any_other_is_named_only(queue, capsys):
    def ours(desk):
        raise InputError("got x,\n  wanted y")

    def other(desk):
        raise ZeroDivisionError("/secret/path")

    first, second = (queue.submit("ann", work, kind="k", title="t") for work in (ours, other))
    assert queue.wait(second)
    assert queue.look("ann", first).error == "got x, wanted y"
    error = queue.look("ann", second).error
    assert "ZeroDivisionError" in error
    assert "secret" not in error
    assert "/secret/path" in capsys.readouterr().err
    after = queue.submit("ann", lambda desk: {"fine": True}, kind="k", title="t")
    assert queue.wait(after)
    assert queue.look("ann", after).state == "done"


def test_every_change_has_a_higher_version(queue):
    versions = []
    job = None

    def work(desk):
        for count in range(3):
            desk.progress("s", count, 3)
            versions.append(queue.all("ann")[0].version)
        return {}

    job = queue.submit("ann", work, kind="k", title="t")
    assert queue.wait(job)
    assert versions == sorted(set(versions))
    assert queue.look("ann", job).version > versions[-1]


def test_one_owner_cannot_fill_the_queue(queue):
    held = Held()
    for _ in range(WAITING_EACH):
        queue.submit("ann", held, kind="k", title="t")
    with pytest.raises(InputError, match="jobs in the queue"):
        queue.submit("ann", held, kind="k", title="t")
    queue.submit("bob", held, kind="k", title="t")
    held.let_go.set()


def test_old_jobs_are_forgotten(queue):
    for _ in range(KEPT_EACH + 3):
        assert queue.wait(queue.submit("ann", lambda desk: {}, kind="k", title="t"))
    assert KEPT_EACH <= len(queue.all("ann")) <= KEPT_EACH + 1


def test_something_short_waits_for_no_long_job(queue):
    held = Held()
    with queue.between_jobs() as free:
        assert free
    job = queue.submit("ann", held, kind="k", title="t")
    assert held.begun.wait(5)
    with queue.between_jobs(0.05) as free:
        assert not free
    held.let_go.set()
    assert queue.wait(job)


def test_closing_stops_what_runs():
    queue, held = JobQueue(), Held()
    queue.submit("ann", held, kind="k", title="t")
    assert held.begun.wait(5)
    queue.close()
    assert not any(thread.name == "aizheimer-studio" and thread.is_alive() for thread in threading.enumerate())
