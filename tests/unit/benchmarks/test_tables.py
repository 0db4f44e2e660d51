"""Tables of the benchmarks of forgetting further, from rows by hand."""

import importlib
import sys

import pytest

from tests.architecture.source import REPOSITORY


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(REPOSITORY / "benchmarks")):
            del sys.modules[name]


def share(value, original=1.0):
    return {"value": value, "original": original}


def test_self_made_is_averaged_over_targets_and_what_failed_is_left_out(load):
    module = load("self_made")
    cells = [
        {
            "method": "concept-ablation", "target": target, "images": images, "ua": share(ua), "ira": share(0.4, 0.8),
            "near": share(0.9, 0.9), "cra": share(0.3, 0.4), "seconds": 10.0,
        }
        for target, images, ua in (("cat", "generate:5", 1.0), ("rocket", "generate:5", 0.5), ("cat", "real", 0.25))
    ]  # fmt: skip
    cells.append({"method": "doco", "target": "cat", "images": "real", "error": "no"})
    assert module.table(cells).splitlines()[2:] == [
        "| concept-ablation | anchor | the model, 5 | 2 | 75 % | 50 % | 100 % | 75 % | 10 |",
        "| concept-ablation | anchor | real drawings | 1 | 25 % | 50 % | 100 % | 75 % | 10 |",
    ]


def test_what_is_left_of_an_edit_stands_behind_what_it_was(load):
    module = load("shrink")
    figures = {"ua": 1.0, "ira": 0.9, "near": 0.8}
    made = {
        "method": "esd", "target": "cat", "require": ["UA>=0.95"], "rank": 4,
        "numbers": {"before": 500_000, "after": 4000},
        "layers": {"before": 10, "after": 3}, "before": figures, "after": {**figures, "ua": 0.96},
    }  # fmt: skip
    lines = module.table([made, {"method": "uce", "target": "cat", "error": "misses it"}]).splitlines()
    assert lines[2] == (
        "| esd, cat | 500,000 → 4,000 | 1.000 → 0.008 | 4 | 10 → 3 | 100 % → 96 % | 90 % → 90 % | 80 % → 80 % |"
    )
    assert lines[3].startswith("| uce, cat | misses it |")
    assert module.table([{**made, "rank": None}]).splitlines()[2].count("| whole |") == 1
    assert lines[-1] == "Asked for: `UA>=0.95`; figures on pictures that the search has not seen."


def test_a_student_stands_behind_its_teacher(load):
    made = {
        "target": "cat", "init": "pruned", "way": "spared", "steps": 1500,
        "parameters": {"teacher": 8_000_000, "student": 2_000_000}, "teacher": {"ua": 0.0, "retained": 1.0},
        "student": {"ua": 1.0, "retained": 0.5}, "retention_drift": 0.03, "forget_drift": 0.02,
    }  # fmt: skip
    assert load("distill_smaller").table([made]).splitlines()[2] == (
        "| cat | pruned | spared | 1,500 | 8.00 → 2.00 | 0 % → 100 % | 100 % → 50 % | 0.030, 0.020 |"
    )


def test_rates_by_radius_are_means_and_the_worst_neighbour_is_named(load):
    rows = [
        {"target": target, "neighbour": near, "radius": radius, "n": 20, "target_words": own, "neighbour_words": rate}
        for target, near, radius, own, rate in (
            ("cat", "dog", 0.1, 1.0, 0.0),
            ("pizza", "pie", 0.1, 0.5, 0.0),
            ("cat", "dog", 0.3, 1.0, 0.5),
            ("pizza", "pie", 0.3, 1.0, 1.0),
        )
    ]
    lines = load("robustness").radius_table(rows).replace("\N{NO-BREAK SPACE}", " ").splitlines()
    assert lines[2] == "| 0.1 | 75 % | 0 % |  |"
    assert lines[3] == "| 0.3 | 100 % | 75 % | 100 %, pizza from pie |"


def test_robustness_keeps_shares_of_the_unedited_model_and_leaves_failures_out(load):
    good = {"method": "uce", "status": "done", "ua": 0.9, "asr.concept-inversion": 0.2, "asr.soft-prompt": 0.4}
    good |= {
        f"{name}{part}": 0.4 * (1 + len(part) // 9) for name in ("ira", "cra", "near") for part in ("", ".original")
    }
    good |= {"asr.soft-prompt.neighbour": 0.1}
    rows = [{**good, "concept": "cat"}, {"method": "uce", "concept": "dog", "status": "failed"}]
    assert (
        load("robustness").bench_table(rows).replace("\N{NO-BREAK SPACE}", " ").splitlines()[2]
        == "| uce | 90 % | 50 % | 50 % | 50 % | 20 % | 40 % | 10 % |"
    )
