"""Several workers on one search: who measures what, in which order it is told, and what a dead worker costs."""

import importlib.util
import sys

import pytest

import aizheimer
from aizheimer import _ray
from aizheimer.errors import InputError, MissingDependencyError
from aizheimer.tuning.workers import Point, measured_on_ray
from tests.ray_runs import printed

ASKED = {"require": "UA>=0.9", "method": "uce"}


class FakeRay:
    """Ray in this process: a call is an actor, its method and a point; the newest is done first."""

    def __init__(self):
        self.actors, self.down = 0, False

    def is_initialized(self):
        return False

    def init(self, **options):
        self.options = options

    def shutdown(self):
        self.down = True

    def cluster_resources(self):
        return {"CPU": 3.0}

    def remote(self, **_options):
        def decorate(kind):
            def make(*args):
                self.actors += 1
                actor = kind(*args)
                actor.outcome = Call(actor.outcome)
                return actor

            return type("Actor", (), {"remote": staticmethod(make)})

        return decorate

    def wait(self, pending, *, num_returns):
        assert num_returns == 1
        return [pending[-1]], pending[:-1]

    def get(self, call):
        return call()


class Call:
    """A method whose ``remote`` is done when it is asked for."""

    def __init__(self, method):
        self.method = method

    def remote(self, base):
        return lambda: self.method(base)


@pytest.fixture
def ray(monkeypatch):
    fake = FakeRay()
    monkeypatch.setattr(_ray, "require", lambda name, extra: fake)
    return fake


class Measurer:
    """A search that makes edits: each must be made once, before it is measured again."""

    def __init__(self, made):
        self.made = made

    def outcome(self, base):
        if base["edit"] == "broken":
            raise RuntimeError("the worker died")
        self.made.append(base["edit"])
        return base["number"] * 10


def measured(ray, edits, *, count):
    """Return what was told, in order, and the edits that were made, each time."""
    made, left = [], list(enumerate(edits))

    def next_point():
        if not left:
            return None
        number, edit = left.pop(0)
        return Point(asked=None, base={"number": number, "edit": edit}, needs=lambda: "" if edit in made else edit)

    told = [
        (point.base["number"], found)
        for point, found in measured_on_ray(lambda: Measurer(made), next_point, workers=count)
    ]
    return told, made


def test_every_point_is_measured_once_by_so_many_workers(ray):
    told, made = measured(ray, "abcde", count=2)
    assert sorted(told) == [(i, 10 * i) for i in range(5)]
    assert sorted(made) == list("abcde")
    assert ray.actors == 2
    assert ray.options["num_cpus"] == 2
    assert ray.down


def test_a_point_waits_for_an_edit_that_is_being_made(ray):
    told, _ = measured(ray, "aaab", count=3)
    assert next(number for number, _ in told) == 0, "the others of this edit were not begun"
    assert sorted(number for number, _ in told) == [0, 1, 2, 3]


def test_a_worker_that_dies_costs_its_point(ray):
    told, _ = measured(ray, ["a", "broken", "c"], count=1)
    assert [number for number, _ in told] == [0, 1, 2]
    assert "died" in str(told[1][1])
    assert ray.actors == 2, "another takes its place"


def test_all_cores_by_default(ray):
    measured(ray, "abcdef", count=None)
    assert ray.actors == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workers": 2}, "workers: local trials run one after the other; give the backend ray"),
        ({"backend": "ray", "workers": 0}, "workers: got 0; wanted 1 or more"),
        ({"backend": "ray", "model": object()}, "Ray's workers load the model themselves; name its folder"),
    ],
)
def test_what_cannot_be(monkeypatch, tmp_path, changes, said):
    monkeypatch.setitem(sys.modules, "ray", sys)
    options = {"model": "emoji", **ASKED, **changes}
    with pytest.raises(InputError, match=said):
        aizheimer.tune(options.pop("model"), "cat", out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_without_ray_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'aizheimer\[ray\]'"):
        aizheimer.tune("emoji", "cat", out=tmp_path / "run", backend="ray", **ASKED)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'")
class TestRay:
    """In a process of its own, see `ray_runs`."""

    @pytest.mark.long
    def test_a_search_that_was_begun_here_goes_on_there(self, tmp_path):
        code = (
            "import sys; import aizheimer\n"
            "from aizheimer.errors import GateError\n"
            "from aizheimer.tuning.record import TuneRecord\n"
            "asked = {'require': 'UA>=0.9', 'method': 'uce', 'search': ['strength=0.4..1.2']}\n"
            "asked |= {'samples': 3, 'cheap': 0}\n"
            "for trials, where in ((1, {}), (2, {'backend': 'ray', 'workers': 1, 'resume': True})):\n"
            "    try:\n"
            "        aizheimer.tune('emoji', 'penguin', out=sys.argv[1], trials=trials, **where, **asked)\n"
            "    except GateError:\n"
            "        pass\n"
            "    print(TuneRecord.load(sys.argv[1] + '/tune.json').model_dump_json())"
        )
        found = printed(code, tmp_path / "run", cache=tmp_path / "cache", timeout=1780)
        first, second = (record["trials"] for record in found)
        assert [trial["number"] for trial in second] == [0, 1]
        assert second[:1] == first, "what was measured is not measured again"
        assert {trial["state"] for trial in second} == {"measured"}
        assert len({trial["settings"]["strength"] for trial in second}) == 2

    def test_outcomes_and_a_worker_that_dies(self, tmp_path):
        code = (
            "import json, os; from aizheimer.tuning.workers import Point, measured_on_ray\n"
            "class Search:\n"
            "    def outcome(self, base):\n"
            "        if base['number'] == 2: os._exit(1)\n"
            "        return {**base, 'pid': os.getpid()}\n"
            "left = list(range(5))\n"
            "def ask(): return Point(asked=None, base={'number': left.pop(0)}, needs=str) if left else None\n"
            "told = [(p.base['number'], f) for p, f in measured_on_ray(Search, ask, workers=2)]\n"
            "lost = [n for n, f in told if isinstance(f, Exception)]\n"
            "print(json.dumps([sorted(n for n, _ in told), lost]))"
        )
        assert printed(code, cache=tmp_path, timeout=1780) == [[[0, 1, 2, 3, 4], [2]]]
