"""export, import, stack, diff, push, pull and several concepts, as a user types them."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from aizheimer.edits.io import load_edit

UCE = ("--method", "uce", "retain_neighbours=1", "retain_others=1", "retain_general=1")


@pytest.fixture(scope="session")
def uce_run(saved_tiny_pipeline, tmp_path_factory):
    """A quick run of another concept on the same base. Read only."""
    from aizheimer import api

    folder = tmp_path_factory.mktemp("runs") / "cat"
    options = {"retain_neighbours": 1, "retain_others": 1, "retain_general": 1}
    api.forget(saved_tiny_pipeline, "cat", method="uce", out=folder, **options)
    return folder


def test_export_prints_the_error_of_every_layer_and_how_to_load(cli, uce_run):
    done = cli("export", uce_run, "--format", "lora-kohya", "--rank", 4)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    layers = [line for line in lines if line.startswith("  unet.") and "rank 4" in line]
    assert len(layers) == len(load_edit(uce_run).deltas)
    assert all(line.endswith("%") for line in layers)
    assert any(line.startswith("wrote      exports/cat-lora-kohya.safetensors (") for line in lines)
    assert lines[-1].startswith("load       put it into models/loras")
    assert any("lora_down" in name for name in load_file("exports/cat-lora-kohya.safetensors"))
    again = cli("export", uce_run, "--format", "lora-kohya")
    assert again.code == 2
    assert "is there already" in again.error


def test_export_as_json(cli, uce_run, tmp_path):
    done = cli("export", uce_run, "--format", "delta", "--out", tmp_path / "x.safetensors", "--json")
    found = json.loads(done.out)
    assert found["error"] == 0
    assert found["bytes"] == (tmp_path / "x.safetensors").stat().st_size


def test_an_unknown_format(cli, uce_run):
    done = cli("export", uce_run, "--format", "lora")
    assert done.code == 2
    assert "unknown format 'lora'" in done.error


def test_import_makes_a_run_that_generates(cli, uce_run, saved_tiny_pipeline, tmp_path):
    cli("export", uce_run, "--format", "delta", "--out", tmp_path / "x.safetensors")
    words = ("--base", saved_tiny_pipeline, "--concept", "cat", "--method", "uce")
    done = cli("import", tmp_path / "x.safetensors", *words)
    assert done.code == 0, done.err
    said = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    count = len(load_edit(uce_run).deltas)
    assert said["matched"].startswith(f"{count} tensors")
    assert said["unmatched"] == "0 tensors"
    assert said["changed"].startswith(f"{count}, unchanged 0; most: unet.")
    assert cli("generate", "cat", "--model", saved_tiny_pipeline, "--edit", "runs/cat", "--steps", 1).code == 0
    again = cli("import", tmp_path / "x.safetensors", *words)
    assert again.code == 2
    assert "already holds a run" in again.error
    assert (
        json.loads(cli("import", tmp_path / "x.safetensors", *words, "--overwrite", "--json").out)["changed"] == count
    )


def test_import_lists_what_has_no_place(cli, uce_run, saved_tiny_pipeline, tmp_path):
    cli("export", uce_run, "--format", "delta", "--out", tmp_path / "x.safetensors")
    tensors = load_file(tmp_path / "x.safetensors")
    value = next(iter(tensors.values()))
    save_file(tensors | {f"stranger.{i}": value.clone() for i in range(7)}, tmp_path / "y.safetensors")
    done = cli("import", tmp_path / "y.safetensors", "--base", saved_tiny_pipeline, "--concept", "cat")
    assert "unmatched  7 tensors" in done.out
    assert "and 2 more" in done.out


def test_stack_minus_and_diff(cli, uce_run, session_run):
    done = cli("stack", uce_run, f"{session_run}@0.5", "--out", "both")
    assert done.code == 0, done.err
    assert "forgets    cat (uce, strength 1)" in done.out
    assert "forgets    santa claus (aizheimer, strength 0.5)" in done.out
    assert "order" not in done.out, "changes of weights add up"
    assert cli("stack", "both", "--minus", f"{session_run}@0.5", "--out", "cat-again").code == 0
    found = json.loads(cli("diff", uce_run, "cat-again", "--json").out)
    assert found["apart"] < 1e-5
    assert "apart" in cli("diff", uce_run, session_run).out
    assert "wanted RUN or RUN@STRENGTH" in cli("stack", f"{uce_run}@much", "--out", "x").error


def test_show_lists_what_a_sum_is_made_of(cli, uce_run, session_run):
    assert cli("stack", session_run, f"{uce_run}@-0.5", "--out", "s").code == 0
    lines = [line.split() for line in cli("show", "s").out.splitlines()]
    for said in ("forgets santa claus", "exaggerates cat", "forgets santa claus aizheimer strength 1"):
        assert said.split() in lines
    assert ["exaggerates", "cat", "uce", "strength", "-0.5"] in lines
    found = json.loads(cli("show", "s", "--json").out)
    assert found["targets"] == ["santa claus"]
    assert [(part["concept"], part["strength"]) for part in found["parts"]] == [("santa claus", 1.0), ("cat", -0.5)]


@pytest.mark.filterwarnings("always")
def test_stack_minus_lists_what_is_left_and_refuses_what_is_not_in_it(cli, uce_run, session_run):
    assert cli("stack", f"{session_run}@0.5", uce_run, "--out", "s").code == 0
    done = cli("stack", "s", "--minus", session_run, "--out", "over")
    assert done.code == 0, done.err
    assert "exaggerates santa claus (aizheimer, strength -0.5)\nforgets    cat (uce, strength 1)" in done.out
    assert "warning: more was taken away than was there: what is left exaggerates santa claus" in done.err
    done = cli("stack", "s", "--minus", f"{session_run}@0.25", "--out", "rest", "--json")
    parts = [(part["concept"], part["strength"]) for part in json.loads(done.out)["parts"]]
    assert parts == [("santa claus", 0.25), ("cat", 1.0)]
    assert "warning" not in done.err
    refused = cli("stack", uce_run, "--minus", session_run, "--out", "never")
    assert refused.code == 2
    assert "the edit of santa claus (aizheimer, strength 1) is not in this one" in refused.error
    assert "made of cat (uce, strength 1)" in refused.error
    assert not Path("never").exists()
    nothing = cli("stack", uce_run, "--minus", uce_run, "--out", "nothing")
    assert nothing.code == 0
    assert "forgets    nothing" in nothing.out
    assert "warning: nothing is left: this edit changes nothing" in nothing.err


@pytest.mark.long
def test_stack_says_where_the_order_matters(cli, saved_tiny_pipeline, uce_run):
    from aizheimer import api

    api.forget(saved_tiny_pipeline, "dog", method="negative-prompt", out="dog")
    done = cli("stack", uce_run, "dog", "--out", "both")
    assert done.code == 0, done.err
    assert f"order      {uce_run} and dog: in either order" in done.out
    assert json.loads(cli("stack", uce_run, "dog", "--out", "again", "--json").out)["order"][0]["commutes"]


@pytest.mark.long
def test_forget_several_says_how(cli, saved_tiny_pipeline):
    base = ("--model", saved_tiny_pipeline)
    done = cli("forget", "cat", "dog", *UCE, *base, "--out", "pets")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == "forgotten  in one run of uce"
    alone = cli("forget", "cat", "dog", "--method", "oce", *base, "--out", "others")
    assert alone.out.splitlines()[0] == "forgotten  each alone, and the edits added"
    native = cli("forget", "cat", "dog", "--method", "negative-prompt", *base, "--out", "more", "--json")
    assert json.loads(native.out)["how"] == "in one run of negative-prompt"
    onto = cli("forget", "fox", "--onto", "pets", *UCE, *base, "--out", "three", "--json")
    assert json.loads(onto.out)["concepts"] == ["fox", "cat", "dog"]
    wrong = cli("forget", "cat", "dog", "--onto", "pets", *base)
    assert wrong.code == 2
    assert "Got 2 concepts and --onto; give one concept" in wrong.error
