"""The benchmarks of forgetting further, each at its smallest on the tiny model, and taken up again."""

import importlib
import json
import sys

import pytest
import torch
from PIL import Image

from aizheimer.concepts import Concept
from aizheimer.data.latents import RolloutPlan
from aizheimer.evaluation.judges import Judges
from tests.architecture.source import REPOSITORY
from tests.tiny import LABELS
from tests.unit.evaluation.builders import MemoryJudge

SMALL = {
    "retain": ("neighbours", "others", "general", "batch_size", "monitor"),
    "training": ("steps", "batch_size"),
    "rollouts": ("forget", "retain", "holdout"),
}
FEW = [f"{group}.{key}=1" for group, keys in SMALL.items() for key in keys]
FEW += ["rollouts.steps=2", "rollouts.picture_steps=2"]
SURGERY = (
    "surgery base=uce cut=1 training.steps=1 rollouts.steps=1 rollouts.retain=1 rollouts.forget=1 retain.monitor=1"
)
"""Short: a row names a folder."""


@pytest.fixture
def load(monkeypatch, tiny_backbone, tmp_path):
    """Import a benchmark, with the tiny model in the place of the embedded one."""
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    monkeypatch.setattr("aizheimer.attacks.run.load_judge", lambda *args, **options: MemoryJudge(LABELS))
    before = set(sys.modules)

    def one(name):
        module, measuring = importlib.import_module(name), importlib.import_module("measuring")
        for changed in (module, measuring):
            monkeypatch.setattr(changed, "load_model", lambda name: tiny_backbone)
        monkeypatch.setattr(measuring, "load_judges", lambda world: Judges(object=MemoryJudge(LABELS)))
        monkeypatch.setattr(measuring, "compile_unet", lambda backbone: None)
        monkeypatch.setattr(measuring.Bench, "_features", lambda *args: torch.zeros(0))
        small = measuring.SETTINGS.model_copy(update={"steps": 2, "bootstrap": 50})
        monkeypatch.setattr(module, "SETTINGS", small)
        return module

    yield one
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(REPOSITORY / "benchmarks")):
            del sys.modules[name]


def test_surgery(load, tmp_path, monkeypatch):
    module, output = load("surgery"), tmp_path / "surgery.json"
    words = ["--output", str(output), "--edits", str(tmp_path / "edits"), "--targets", "cat", "--samples", "3"]
    words += ["--images", "2", "--steps", "1", "--rows", "uce retain_others=1", SURGERY, "sepme protect=-1"]
    module.main(words)
    cells = json.loads(output.read_text())["cells"]
    assert [cell["row"].split()[0] for cell in cells] == ["uce", "surgery", "sepme"]
    assert len(cells[1]["cut"]) == 1
    for cell in cells[:2]:
        assert [look["step"] for look in cell["relearn"]["curve"]] == [0, 1]
        assert {"value", "original", "n"} <= set(cell["ua"])
    assert "protect" in cells[2]["error"]
    monkeypatch.setattr(module.aizheimer, "forget", lambda *args, **options: pytest.fail("all of it was there"))
    module.main(words)
    assert json.loads(output.read_text())["cells"] == cells
    cells.pop(0)
    output.write_text(json.dumps({"cells": cells}))
    module.main(words)
    assert len(json.loads(output.read_text())["cells"]) == 3, "the edit was kept, only the figures are made anew"


def test_self_made(load, tmp_path, monkeypatch):
    module, output = load("self_made"), tmp_path / "self_made.json"
    monkeypatch.setattr(module, "PAIRS", {"cat": "dog"})
    lines = []
    for style, label in (("noto", "cat"), ("flat", "cat"), ("noto", "dog")):
        (tmp_path / "drawings" / style).mkdir(parents=True, exist_ok=True)
        name = f"{style}/{label}.png"
        Image.new("RGB", (32, 32), "red").save(tmp_path / "drawings" / name)
        lines.append({"file_name": name, "text": [f"{label} in {style} style"], "label": label, "style": style})
    (tmp_path / "drawings" / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["--output", str(output), "--edits", str(tmp_path / "edits"), "--samples", "3", "--counts", "1"]
    words += ["--methods", "forget-me-not", "concept-ablation", "--set", *FEW]
    module.main(words)
    assert [cell["images"] for cell in json.loads(output.read_text())["cells"]] == ["generate:1"] * 2
    words += ["--imagefolder", str(tmp_path / "drawings")]
    module.main(words)
    cells = json.loads(output.read_text())["cells"]
    found = {(cell["method"], cell["images"], cell["pictures_of"], cell.get("anchor")) for cell in cells}
    assert found == {
        (method, images, whose, "dog" if whose == "anchor" else "")
        for method, whose in (("forget-me-not", "target"), ("concept-ablation", "anchor"))
        for images in ("generate:1", "real")
    }
    drawn = {folder.name: len(list(folder.iterdir())) for folder in (tmp_path / "edits" / "drawings").iterdir()}
    assert drawn == {"cat": 2, "dog": 1}
    monkeypatch.setattr(module, "cell", lambda *args, **options: pytest.fail("all of it was there"))
    module.main(words)
    with pytest.raises(SystemExit, match="has no drawing of 'tree'"):
        module.drawings_of("tree", tmp_path / "drawings", tmp_path)
    with pytest.raises(SystemExit, match=r"holds no metadata\.jsonl; write it with"):
        module.drawings_of("cat", tmp_path, tmp_path)


def test_every_method_that_takes_pictures_is_in_the_benchmark(load):
    from aizheimer._registry import METHODS
    from aizheimer.recipes import load_recipe

    module = load("self_made")
    listed = {load_recipe(name).method_name for name in module.PICTURES}
    assert listed == {name for name in METHODS.entries if "images" in METHODS.get(name).model_fields}


def test_a_student(load, tiny_backbone, tmp_path):
    module, unet = load("distill_smaller"), tiny_backbone.denoiser
    same = module.narrower(unet, 1, init="pruned", seed=0).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in unet.state_dict().items())
    student = module.with_denoiser(tiny_backbone, module.narrower(unet, 2, init="pruned", seed=0))
    whole, half = (dict(net.named_parameters()) for net in (unet, student.denoiser))
    assert torch.equal(half["conv_in.bias"], whole["conv_in.bias"][::2])
    assert torch.equal(half["conv_in.weight"], whole["conv_in.weight"][::2]), "all latent channels are read"
    key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    assert torch.equal(half[key], whole[key][::2]), "words keep their width"
    inner = key.replace("attn2.to_k", "attn1.to_k")
    torch.testing.assert_close(half[inner], 2**0.5 * whole[inner][::2, ::2])
    fresh = module.narrower(unet, 2, init="random", seed=0).state_dict()
    assert fresh[inner].shape == half[inner].shape
    assert not torch.equal(fresh[inner], half[inner])
    assert student.fingerprint() != tiny_backbone.fingerprint()
    shallow = module.with_denoiser(tiny_backbone, module.narrower(unet, 2, init="shallow", seed=0))
    rest = {name: value for name, value in whole.items() if not name.startswith("mid_block.")}
    assert dict(shallow.denoiser.named_parameters()).keys() == rest.keys() != whole.keys()
    assert all(torch.equal(value, rest[name]) for name, value in shallow.denoiser.named_parameters())
    words = tiny_backbone.condition(["cat"])
    with torch.no_grad():
        drawn = shallow.predict(torch.ones(1, 4, 8, 8), torch.tensor([500]), words)
    assert drawn.shape == (1, 4, 8, 8)


def test_the_concept_is_never_shown(load, tiny_backbone, tmp_path):
    """In place of the concept's rollouts are the empty prompt's, prediction for prediction."""
    module, concept, plan = load("distill_smaller"), Concept("santa claus"), RolloutPlan(steps=2)
    spared, told = (
        module.lessons(tiny_backbone, concept, told=told, rollouts=3, plan=plan, folder=tmp_path)
        for told in (False, True)
    )
    for kept, own in (spared, told):
        assert own.prompts == tiny_backbone.world.prompts(concept)
        assert not any("santa claus" in prompt for prompt in kept.prompts)
        assert len(kept.bank) == 3 * plan.steps
    torch.testing.assert_close(spared[1].bank.prediction, spared[1].bank.null_prediction)
    assert not torch.allclose(told[1].bank.prediction, told[1].bank.null_prediction, atol=1e-3)


def test_distil_smaller(load, tiny_backbone, tmp_path, monkeypatch):
    module, output = load("distill_smaller"), tmp_path / "distill.json"
    words = ["--output", str(output), "--students", str(tmp_path / "students"), "--targets", "cat", "--steps", "2"]
    words += ["--inits", "pruned", "--rollouts", "6", "--rollout-steps", "2", "--labels", "1", "--seeds", "1"]
    module.main([*words, "--batch", "2"])
    rows = json.loads(output.read_text())["rows"]
    assert [row["way"] for row in rows] == ["spared", "told"]
    for row in rows:
        assert row["parameters"]["student"] < 0.5 * row["parameters"]["teacher"]
        assert {"ua", "retained"} <= set(row["teacher"]) & set(row["student"])
        assert row["retention_drift"] > 0
    steps = []
    monkeypatch.setattr(module, "tell", lambda row: steps.append(row["step"]))
    output.write_text(json.dumps({"rows": rows[:1]}))
    module.main([*words, "--batch", "2"])
    again = json.loads(output.read_text())["rows"]
    assert steps == [], "the training had ended; only the figures are made anew"
    assert again[1]["retention_drift"] == rows[1]["retention_drift"]
    monkeypatch.setattr(module, "row", lambda *args: pytest.fail("all of it was there"))
    module.main([*words, "--batch", "2"])


def test_the_table_of_surgery_is_of_rows_with_every_target(load, tmp_path):
    module = load("surgery")

    def made(row, target, ua, rate):
        figures = {name: {"value": ua} for name in ("ua", "ira", "near", "cra")}
        curve = [{"step": 0, "rate": 0.0}, {"step": 40, "rate": rate}]
        return {"row": row, "target": target, **figures, "seconds": 10.0, "relearn": {"curve": curve}}

    cells = [made("a", "cat", 1.0, 0.5), made("a", "dog", 0.5, 0.0), made("b", "cat", 1.0, 0.0)]
    cells.append({"row": "b", "target": "dog", "error": "no"})
    (tmp_path / "cells.json").write_text(json.dumps({"cells": cells}))
    page = tmp_path / "page.md"
    page.write_text("before <!-- surgery --> after")
    module.main(["--output", str(tmp_path / "cells.json"), "--page", str(page)])
    text = page.read_text()
    assert "| `a` | 75 % | 75 % | 75 % | 75 % | 25 % |" in text
    assert "`b`" not in text
    assert "Means over cat, dog." in text
    assert text.startswith("before")
    assert text.endswith("after")


def interference_rows():
    row = {"retained": 0.9, "retained_interval": [0.8, 0.95], "retained_original": 1.0, "seconds": 3.2}
    return {
        "uce / alone / cat": {**row, "ua": {"cat": 1.0}},
        "uce / alone / dog": {**row, "retained": 0.7, "ua": {"dog": 0.5}},
        "uce / together / 20": {**row, "ua": {"cat": 0.9, "dog": 0.4}},
        "uce / stack / 5": {**row, "ua": {"cat": 1.0}},
        "aizheimer / together / 5": {"error": "no"},
    }


def test_the_table_of_companies_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    for name in ("interference_page", "methods_table"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    page = importlib.import_module("interference_page")
    lines = page.table({"matrix": {"uce": {}, "aizheimer": {}}, "rows": interference_rows()}).splitlines()
    assert lines[2:] == [
        "| [uce](methods/uce.md) | 1 | each alone | 75 % | 50 % | 1 of 2 | 80 % | least 70 % |  |",
        "| [uce](methods/uce.md) | 5 | the edits added | 100 % | 100 % | 1 of 1 | 90 % | 80-95 | 3 |",
        "| [uce](methods/uce.md) | 20 | all in one run | 65 % | 40 % | 1 of 2 | 90 % | 80-95 | 3 |",
    ]
