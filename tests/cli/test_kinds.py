"""From forget to report with methods of every kind: trained, solved, acting while pictures are drawn."""

import json

import pytest

from aizheimer.edits.io import load_edit
from tests.contracts.quick import quick_recipe
from tests.tiers import all_but

SMALL = {
    "esd": ("training.steps=4", "training.monitor_every=2", "rollouts={forget: 2, retain: 1, holdout: 1, steps: 2}"),
    "uce": ("retain_others=2",),
    "negative_prompt": (),
    "adavd": (),
}


@pytest.mark.parametrize("method", all_but(["esd", "negative_prompt"], SMALL))
def test_from_forget_to_report(cli, saved_tiny_pipeline, tmp_path, method):
    run, name = tmp_path / "run", method.replace("_", "-")
    done = cli(
        "forget", "santa claus", "--method", method, "--model", saved_tiny_pipeline, "--out", run, *SMALL[method]
    )
    assert done.code == 0, done.err
    edit = load_edit(run)
    kind = quick_recipe(name).method.info.kind
    assert {"fine-tune": "editing ", "closed form": "solving ", "runtime": "runtime "}[kind] in done.err
    if edit.hook is not None:
        assert f"how pictures are drawn ({name}" in done.out

    found = json.loads(cli("show", run, "--json").out)
    assert found["method"] == name
    assert found["mergeable"] == (edit.hook is None) == (found["hook"] is None)
    lines = cli("show", run).out.splitlines()
    (changes,) = [line for line in lines if line.startswith("changes")]
    assert not changes.endswith("nothing")
    assert ("tensors" in changes) == bool(edit.deltas)

    assert cli("evaluate", run, "--samples", 3).code == 0
    done = cli("report", run)
    assert done.code == 0, done.err
    page = (run / "report.html").read_text(encoding="utf-8")
    assert ("Distance to the target" in page) == (kind == "fine-tune")
    assert ("Total loss" in page) == (kind == "fine-tune")


def test_a_name_that_is_neither_a_run_nor_a_method(cli):
    done = cli("show", "negative-promt")
    assert done.code == 2
    assert "'negative-promt' is neither a run folder nor a method, recipe or attack." in done.error
    assert "Did you mean 'negative-prompt'?" in done.error


@pytest.mark.parametrize("name", ["forget_me_not", "concept-ablation", "oracle"])
def test_a_methods_page_by_any_of_its_names(cli, name):
    done = cli("show", name)
    assert done.code == 0, done.err
    assert done.out.split(":")[0] in {"forget-me-not", "concept-ablation", "data-censoring"}
