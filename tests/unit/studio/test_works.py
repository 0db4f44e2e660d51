"""The works on a tiny pipeline: from a concept to a file, through the queue, as the page asks for them."""

import threading
import time
from pathlib import Path

import pytest
from safetensors import safe_open

from aizheimer.attacks.results import AttackResult
from aizheimer.backbones.loading import load_pipeline
from aizheimer.edits.io import load_edit
from aizheimer.errors import InputError
from aizheimer.evaluation.results import EvaluationResult
from aizheimer.reports.wording import headline, percent
from aizheimer.studio.cards import card
from aizheimer.studio.jobs import JobQueue
from aizheimer.studio.orders import NOBODY, Studio
from aizheimer.studio.shelf import Shelf
from aizheimer.studio.visitors import Visitor, new_token
from aizheimer.studio.works import remember
from tests.unit.edits.artifacts import CROSS, NORM, edit_of_weights
from tests.unit.edits.running import edit_of
from tests.unit.edits.test_adapter_hooks import spm

FAST = {"model": "pipeline", "concept": "santa claus", "keep": ["cat"], "method": "uce"}


@pytest.fixture
def studio(saved_tiny_pipeline, tmp_path, monkeypatch):
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path / "cache"))
    queue = JobQueue()
    made = Studio(shelf=Shelf([str(saved_tiny_pipeline)]), queue=queue, root=tmp_path / "studio")
    assert made.shelf.names == (saved_tiny_pipeline.name,)
    yield made
    queue.close()


@pytest.fixture
def ann(studio):
    return studio.visitor(new_token())


def values(studio, **options):
    return {**FAST, "model": studio.shelf.names[0], **options}


def ended(studio, visitor, job):
    assert studio.queue.wait(job, timeout=150)
    view = studio.queue.look(visitor.id, job)
    assert view.state == "done", view.error
    return view


@pytest.mark.long
def test_from_a_concept_to_a_lora(studio, ann, tmp_path):
    view = ended(studio, ann, studio.forget(ann, values(studio, strength=0.5)))
    assert view.result["run"] == "santa-claus"
    assert ann.names() == ["santa-claus"]
    sheet = view.notes["sheet"]
    assert "santa claus" in sheet["prompts"][0]
    assert any("cat" in prompt for prompt in sheet["prompts"])
    assert all(ann.file("pictures", name).stat().st_size for name in [*sheet["before"], *sheet["now"]])
    assert load_edit(ann.run("santa-claus")).provenance.strength == 0.5

    drawn = ended(studio, ann, studio.ask(ann, "try", {"run": "santa-claus", "prompt": "a photo of santa claus"}))
    before, after = (ann.file("pictures", drawn.result[name]).read_bytes() for name in ("before", "after"))
    assert before != after
    same = studio.ask(ann, "try", {"run": "santa-claus", "prompt": "a photo of santa claus", "strength": 0.0})
    same = ended(studio, ann, same)
    assert ann.file("pictures", same.result["after"]).read_bytes() == before

    asked = {"run": "santa-claus", "prompt": "a photo of santa claus", "words": ["santa claus", "photo"]}
    seen = ended(studio, ann, studio.ask(ann, "attention", asked))
    assert [one["word"] for one in seen.result["maps"]] == ["santa claus", "photo"]
    assert all(0 < share < 1 for one in seen.result["maps"] for share in one["mass"])

    stacked = ended(studio, ann, studio.ask(ann, "stack", {"parts": [("santa-claus", 0.5), ("santa-claus", 0.25)]}))
    assert stacked.result["does"] == "forget “santa claus”"
    less = ended(studio, ann, studio.ask(ann, "stack", {"parts": [("santa-claus", -0.5)]}))
    assert less.result["does"] == "exaggerate “santa claus”"
    assert len(ann.names()) == 3

    done = ended(studio, ann, studio.ask(ann, "export", {"run": "santa-claus", "format": "lora-kohya"}))
    with safe_open(ann.file("exports", done.result["file"]), "pt") as file:
        assert any(name.endswith("lora_up.weight") for name in file.keys())  # noqa: SIM118
    zipped = ended(studio, ann, studio.ask(ann, "export", {"run": "santa-claus", "format": "diffusers"}))
    assert zipped.result["file"].endswith(".zip")
    outside = {path.name for path in tmp_path.iterdir()} - {"cache", "studio"}
    assert outside == set()


@pytest.mark.long
def test_stopping_a_training_keeps_its_best_state(studio, ann):
    job = studio.forget(ann, values(studio, method="aizheimer-paper", steps=5000))
    deadline = time.monotonic() + 150
    while (view := studio.queue.look(ann.id, job)).stage != "forgetting" or view.done < 12:
        assert not view.ended, view.error
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert view.total == 5000
    assert studio.stop(ann)
    view = ended(studio, ann, job)
    assert view.result["stopped"] == "asked"
    assert ann.names() == ["santa-claus"]
    rows = view.notes["history"]
    assert len(rows) >= 2
    assert {"mass_ratio", "retention_drift"} <= set(rows[0])
    assert view.result["step"] in [row["step"] for row in rows]


def test_stopping_before_the_training_keeps_nothing(studio, ann):
    job = studio.forget(ann, values(studio, method="aizheimer-paper"))
    deadline = time.monotonic() + 60
    while studio.queue.look(ann.id, job).state == "waiting":
        assert time.monotonic() < deadline
    assert studio.stop(ann)
    assert studio.queue.wait(job, timeout=100)
    assert studio.queue.look(ann.id, job).state == "stopped"
    assert ann.names() == []
    assert list(ann.runs.glob("*")) == []


def test_what_cannot_be_used_is_told_before_anything_is_queued(studio, ann, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a short path: a longer name is refused for its length
    Path("mine.yaml").write_text("method: uce\n")
    for wrong, match in [
        ({"concept": ""}, "concept"),
        ({"model": "../../etc"}, "no model"),
        ({"method": "./mine.yaml"}, "method: there is no"),
        ({"method": "no-such"}, "method: there is no"),
        ({"steps": 5}, "does not train"),
    ]:
        with pytest.raises(InputError, match=match):
            studio.forget(ann, values(studio, **wrong))
    for kind, asked in [
        ("try", {"run": "../x", "prompt": "a cat"}),
        ("evaluate", {"run": "none"}),
        ("stack", {"parts": []}),
        ("export", {"run": "/etc"}),
    ]:
        with pytest.raises(InputError):
            studio.ask(ann, kind, asked)
    assert studio.queue.all(ann.id) == []


def test_a_gated_edit_is_exported_once_its_box_is_ticked(studio, ann, saved_tiny_pipeline):
    edit_of(load_pipeline(saved_tiny_pipeline), spm()).save(ann.new_run("gated"))
    remember(ann.run("gated"), studio.shelf.names[0])
    refused = studio.ask(ann, "export", {"run": "gated"})
    assert studio.queue.wait(refused, timeout=150)
    said = studio.queue.look(ann.id, refused).error
    assert "or write it with the box “Let a gated edit (SPM) act on all prompts alike”" in said
    assert "--" not in said
    done = ended(studio, ann, studio.ask(ann, "export", {"run": "gated", "ungated": True}))
    assert ann.file("exports", done.result["file"]).stat().st_size > 0


@pytest.mark.long
def test_an_edit_is_measured_and_attacked_on_the_embedded_model(tmp_path, monkeypatch):
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path / "cache"))
    queue = JobQueue()
    try:
        studio = Studio(shelf=Shelf(["emoji"]), queue=queue, root=tmp_path / "studio")
        ann = studio.visitor(new_token())
        asked = {"model": "emoji", "concept": "Santa Claus", "method": "uce"}
        assert ended(studio, ann, studio.forget(ann, asked)).result["run"] == "santa-claus"
        run = ann.run("santa-claus")

        seen = ended(studio, ann, studio.ask(ann, "evaluate", {"run": "santa-claus", "samples": 8}))
        saved = EvaluationResult.load(run / "evaluation.json")
        assert saved.edit == load_edit(run).digest
        assert (seen.stage, seen.total) == ("drawing and judging", seen.done)
        assert seen.result["headline"] == headline(saved)
        figures = {row["name"]: row for row in seen.result["figures"]}
        assert figures["UA, forgotten"]["edited"] == percent(saved.ua.value)
        assert [one["label"] for one in seen.result["neighbours"]] == [one.label for one in saved.neighbours]
        assert percent(saved.ua.value) in card("evaluate", seen)

        asked = {"run": "santa-claus", "attack": "quantise", "images": 2}
        seen = ended(studio, ann, studio.ask(ann, "attack", asked))
        attacked = AttackResult.load(run / "attack-quantise.json")
        assert attacked.edit == load_edit(run).digest
        assert attacked.unedited is not None, "controls are run unless they are left out"
        assert attacked.asr.n == 2
        assert seen.result["figures"]["ASR"] == percent(attacked.asr.value)
        assert ann.file("pictures", seen.result["picture"]).stat().st_size > 0
        assert seen.result["picture"] in card("attack", seen)
    finally:
        queue.close()


def test_a_model_without_judges_says_what_measuring_lacks(studio, ann, saved_tiny_pipeline):
    edit_of_weights(load_pipeline(saved_tiny_pipeline), CROSS).save(ann.new_run("x"))
    remember(ann.run("x"), studio.shelf.names[0])
    seen = ended(studio, ann, studio.ask(ann, "evaluate", {"run": "x", "samples": 3}))
    assert not any(row["name"].startswith("UA") for row in seen.result["figures"])
    assert "judge" in " ".join(seen.result["warnings"])
    job = studio.ask(ann, "attack", {"run": "x", "attack": "seed-search"})
    assert studio.queue.wait(job, timeout=150)
    seen = studio.queue.look(ann.id, job)
    assert seen.state == "failed"
    assert "judge" in seen.error
    assert "unexpected" not in seen.error
    assert not list(ann.run("x").glob("attack-*"))


def test_what_a_lora_cannot_hold_is_left_out_once_its_box_is_ticked(studio, ann, saved_tiny_pipeline):
    edit_of_weights(load_pipeline(saved_tiny_pipeline), (*CROSS, NORM)).save(ann.new_run("norm"))
    remember(ann.run("norm"), studio.shelf.names[0])
    refused = studio.ask(ann, "export", {"run": "norm"})
    assert studio.queue.wait(refused, timeout=150)
    said = studio.queue.look(ann.id, refused).error
    assert "leave them out with the box “Leave out what a LoRA cannot hold”" in said
    done = ended(studio, ann, studio.ask(ann, "export", {"run": "norm", "partial": True}))
    assert done.result["left_out"] == 1


@pytest.mark.long
def test_nobody_uses_the_edit_of_another(studio, ann):
    ended(studio, ann, studio.forget(ann, values(studio)))
    bob = Visitor.of(new_token(), root=studio.root)
    assert bob.names() == []
    with pytest.raises(InputError, match="no edit"):
        studio.ask(bob, "export", {"run": "santa-claus"})


def test_neighbours_are_suggested_unless_a_job_has_the_machine(studio):
    found = studio.suggest(studio.shelf.names[0], "santa claus")
    assert "cat" in found or "mrs claus" in found
    assert "santa claus" not in found
    assert studio.suggest(studio.shelf.names[0], "  ") == []
    begun, end = threading.Event(), threading.Event()
    studio.queue.submit("ann", lambda desk: {"begun": begun.set(), "waited": end.wait(30)}, kind="try", title="drawing")
    assert begun.wait(10)
    try:
        assert studio.suggest(studio.shelf.names[0], "santa claus") == []
    finally:
        end.set()


def test_who_is_faster_than_the_model_is_loaded_gets_neighbours_too(studio):
    begun = threading.Event()

    def load(desk):
        begun.set()
        return {"slept": time.sleep(2.5)}  # longer than a visitor waits for another's job

    studio.queue.submit(NOBODY, load, kind="load", title="loading")
    assert begun.wait(10)
    assert studio.suggest(studio.shelf.names[0], "santa claus")
