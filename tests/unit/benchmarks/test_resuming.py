"""Benchmarks keep what they have measured, and stop where they say."""

import importlib
import sys

import pytest

from aizheimer.concepts import Concept
from aizheimer.methods.esd import ESD
from tests.architecture.source import REPOSITORY
from tests.trained import small, tiny_backbone


@pytest.fixture
def benchmark(monkeypatch):
    """Import a benchmark as its command does, from its own folder."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    yield importlib.import_module
    for name in ("measuring", "methods", "end_to_end", "feature_bank", "scaling"):
        sys.modules.pop(name, None)


def row_of(method, target, step, ua):
    figures = {"seconds": 10.0 * step + 1, "unet_evaluations": 100 * step}
    return {
        **{"method": method, "target": target, "step": step, "ua": {"value": ua}},
        **{"ira": {"value": 0.45, "original": 0.9}, **figures},
    }


def test_rows_are_kept_one_by_one_and_found_by_their_key(benchmark, tmp_path):
    measuring = benchmark("measuring")
    rows = measuring.Rows(tmp_path / "rows.json", key=("method", "target"))
    assert rows.find(method="uce", target="cat") is None
    rows.add({"method": "uce", "target": "cat", "seconds": 1}, cores=2)
    again = measuring.Rows(tmp_path / "rows.json", key=("method", "target"))
    assert again.find(method="uce", target="cat")["seconds"] == 1
    assert again.find(method="uce", target="dog") is None


def test_points_grow_and_what_does_not_train_has_one(benchmark):
    module = benchmark("end_to_end")
    assert module.points_of("uce", list(module.SHARES)) == [0]
    assert module.points_of("esd training.steps=64", [1.0, 1 / 32, 1 / 4]) == [2, 16, 64]
    assert module.points_of("esd training.steps=2", list(module.SHARES)) == [1, 2]


def test_points_end_at_the_first_that_reaches_the_bar_and_are_not_measured_again(benchmark, tmp_path, monkeypatch):
    module = benchmark("end_to_end")
    asked = []

    def measure(method, target, *, step, bench):
        asked.append((method, step))
        return row_of(method, target, step, 0.95 if method.startswith("esd") and step >= 16 else 0.5)

    monkeypatch.setattr(module, "measure", measure)
    command = ["end_to_end.py", "--methods", "esd training.steps=64", "uce", "--targets", "cat", "--eager"]
    monkeypatch.setattr(sys, "argv", [*command, "--output", str(tmp_path / "rows.json")])
    monkeypatch.setattr(
        module, "Bench", lambda **options: type("Bench", (), {"settings": benchmark("measuring").SETTINGS})
    )
    module.main()
    assert [step for method, step in asked if method.startswith("esd")] == [2, 4, 8, 16]
    assert asked[-1] == ("uce", 0)
    module.main()
    assert len(asked) == 5


def test_the_table_tells_what_it_took_and_what_was_never_reached(benchmark):
    module = benchmark("end_to_end")
    rows = [row_of("esd", "cat", 8, 0.5), row_of("esd", "cat", 16, 0.96), row_of("uce", "cat", 0, 0.4)]
    lines = module.table(rows).splitlines()
    assert lines[2] == "| esd | 1 of 1 | 16 | 161.0 | 1,600 | 96 % | 50 % |"
    assert lines[3] == "| uce | 0 of 1 |  |  |  | none (40 %) |  |"


@pytest.mark.parametrize(("step", "stopped"), [(2, "asked"), (4, "steps")])
def test_a_run_is_stopped_at_its_point_and_a_whole_one_ends_by_itself(benchmark, step, stopped):
    callbacks = benchmark("end_to_end").stopping_at(step)
    edit = small(ESD, rollout="teacher").unlearn(tiny_backbone(), Concept("santa claus"), callbacks=callbacks)
    assert edit.provenance.extra["stopped"] == stopped
    assert edit.provenance.extra["step"] == step


def test_ways_to_the_bank_are_recipes_that_exist(benchmark):
    from aizheimer.recipes.load import load_recipe

    ways = benchmark("feature_bank").ways(50, [5])
    made = {way: load_recipe(method.split()[0], method.split()[1:]).method for way, method in ways.items()}
    assert {way: method.training.steps for way, method in made.items()} == {
        **{"network": 50, "network, 5": 5, "bank": 50, "bank, then 5": 5}
    }
    assert made["network"].bank is None
    assert made["bank"].bank.warm_start is None
    assert made["bank, then 5"].bank.warm_start == 50


def test_the_scaling_runs_are_small_and_keep_the_recipes_batches(benchmark):
    from aizheimer.recipes.load import load_recipe

    module = benchmark("scaling")
    name, *overrides = module.STEP.split()
    whole, cut = load_recipe(name, overrides).method, load_recipe(name, [*overrides, *module.small(3)]).method
    assert (cut.training.steps, cut.bank, cut.start) == (3, None, None)
    assert (cut.training.batch_size, cut.retain_batch_size) == (whole.training.batch_size, whole.retain_batch_size)
