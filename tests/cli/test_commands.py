"""generate, evaluate, ls, show, validate, env: what they print, and for whom."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from aizheimer._registry import METHODS
from aizheimer.cli.evaluate import Gate
from aizheimer.cli.forget import _print_result
from aizheimer.cli.generate import file_names
from aizheimer.concepts import Concept
from aizheimer.edits.hooks.negative_prompt import NegativePromptHook
from aizheimer.evaluation.results import EvaluationResult
from aizheimer.methods.hirm import HiRM
from aizheimer.recipes.load import load_recipe
from tests.trained import small, tiny_backbone
from tests.unit.edits.running import edit_of


class TestGenerate:
    def test_pictures_are_named_by_prompt_and_seed(self, cli, saved_tiny_pipeline):
        words = ["cat in noto style", "--model", saved_tiny_pipeline, "--steps", 2, "-n", 2, "--seed", 5]
        done = cli("generate", *words)
        assert done.code == 0, done.err
        assert done.out.splitlines() == ["pictures/cat-in-noto-style-5.png", "pictures/cat-in-noto-style-6.png"]
        for file in done.out.splitlines():
            with Image.open(file) as picture:
                assert picture.size == (32, 32)
                assert picture.format == "PNG"

    def test_an_edit_changes_pictures_and_strength_0_does_not(self, cli, saved_tiny_pipeline, session_run):
        def draw(name, *words):
            prompt = "santa claus in noto style"
            done = cli("generate", prompt, "--model", saved_tiny_pipeline, "--steps", 2, "--out", name, *words)
            assert done.code == 0, done.err
            with Image.open(done.out.strip()) as picture:
                return np.asarray(picture).astype(int)

        plain = draw("plain")
        assert np.array_equal(draw("none", "--edit", session_run, "--strength", 0), plain)
        assert not np.array_equal(draw("edited", "--edit", session_run, "--strength", 50), plain)

    def test_json_lists_the_files(self, cli, saved_tiny_pipeline):
        done = cli("generate", "cat", "--model", saved_tiny_pipeline, "--steps", 1, "--json")
        assert json.loads(done.out) == {"pictures": [{"prompt": "cat", "seed": 0, "file": "pictures/cat-0.png"}]}

    def test_files_of_different_prompts_never_meet(self):
        jobs = [("A b", 0), ("a-b!", 0), ("a b", 1), ("🎅", 0), ("x" * 200, 0), ("../x", 0)]
        names = file_names(jobs)
        assert len(set(names)) == len(jobs)
        assert names[:2] == ["a-b-0.png", "a-b-0-2.png"]
        assert all("/" not in name and len(name) < 80 for name in names)


class TestEvaluate:
    def test_figures_are_printed_and_kept_with_the_run(self, cli, run_folder):
        done = cli("evaluate", run_folder, "--samples", 6)
        assert done.code == 0, done.err
        result = EvaluationResult.load(run_folder / "evaluation.json")
        assert result.target == "santa claus"
        assert result.ua is None, "the tiny model has no judges"
        assert "santa claus" in done.out

    def test_json_is_the_result(self, cli, run_folder):
        done = cli("evaluate", run_folder, "--samples", 6, "--json")
        assert EvaluationResult.model_validate_json(done.out) == EvaluationResult.load(run_folder / "evaluation.json")

    def test_a_requirement_that_is_not_met_is_exit_3_with_the_figures_kept(self, cli, run_folder):
        done = cli("evaluate", run_folder, "--samples", 6, "--require", "ua=0.5")
        assert done.code == 3
        assert done.error == "UA could not be measured."
        assert (run_folder / "evaluation.json").is_file()

    @pytest.mark.parametrize(
        ("text", "value", "failure"),
        [
            ("ira=0.5", 0.5, ""),
            ("IRA=0.5", 0.49, "IRA is 0.490, required was 0.500"),
            ("ira=100%", 0.8, ""),
            ("ira=95%", 0.7, "IRA is 0.700, required was 0.760 (95% of the unedited model's 0.800)"),
        ],
    )
    def test_requirements(self, text, value, failure):
        assert Gate.parse(text).failure(result_with(ira=value)) == failure


class TestReport:
    def test_needs_an_evaluation(self, cli, run_folder):
        done = cli("report", run_folder)
        assert done.code == 2
        assert "aizheimer evaluate" in done.error
        assert not (run_folder / "report.html").exists()

    def test_a_gate_that_is_none_is_told_before_anything_is_drawn(self, cli, run_folder, monkeypatch):
        result_with(ira=0.8).model_copy(update={"target": "santa claus"}).save(run_folder / "evaluation.json")
        monkeypatch.setattr("aizheimer.api.load_base", lambda *a, **k: pytest.fail("the model was loaded"))
        done = cli("report", run_folder, "--gate", "releas")
        assert (done.code, "unknown gate 'releas'" in done.error) == (2, True)

    @pytest.mark.long
    def test_is_one_page_that_asks_for_nothing_else(self, cli, run_folder, saved_tiny_pipeline):
        assert cli("evaluate", run_folder, "--samples", 6).code == 0
        done = cli("report", run_folder)
        assert done.code == 0, done.err
        assert done.out.split() == ["report", str(run_folder / "report.html")]
        page = (run_folder / "report.html").read_text(encoding="utf-8")
        assert "santa claus" in page
        assert "data:image/png;base64," in page
        assert "http://" not in page.replace("http://www.w3.org/", "")
        assert str(saved_tiny_pipeline) not in page, "where the model lies is nobody else's business"


def result_with(*, ira: float) -> EvaluationResult:
    metric = {
        "value": ira,
        "interval": (0.0, 1.0),
        "original": 0.8,
        "change_interval": (-1.0, 1.0),
        "n": 10,
        "unit": "images",
        "judge": "a judge",
        "protocol": "in words",
    }
    content = {
        "target": "cat",
        "kind": "object",
        "model_name": "tiny",
        "ira": metric,
        "unchanged_share": 0.0,
        "unchanged_retain_share": 1.0,
        "broken": {"original": 0.0, "edited": 0.0},
        "no_op": False,
        "collapse": False,
        "settings": {},
        "guidance": 5.0,
        "images": [],
    }
    return EvaluationResult.model_validate(content)


class TestLs:
    def test_methods_and_recipes_have_a_line_each(self, cli):
        done = cli("ls")
        lines = done.out.splitlines()
        assert done.code == 0
        assert lines.index("methods") < lines.index("recipes")
        for name in METHODS.names():
            (line,) = [line for line in lines if line.split()[0] == name][:1]
            assert len(line.split()) > 4, f"{name} is not described"
        for name in ("aizheimer", "aizheimer-paper", "aizheimer-notebook"):
            (line,) = [line for line in lines if line.split()[0] == name][-1:]
            assert len(line.split()) > 4, f"{name} is not described"

    def test_json(self, cli):
        found = json.loads(cli("ls", "--json").out)
        default = found["methods"]["aizheimer"]
        assert (default["kind"], default["kind_in_words"]) == ("fine-tune", "closed form, then fine-tune if needed")
        assert default["needs"] == ["prompts", "retain prompts"]
        assert found["methods"]["aizheimer"]["status"] == "stable"
        assert {"aizheimer", "aizheimer-paper", "aizheimer-notebook"} <= found["recipes"].keys()

    def test_one_of_the_lists(self, cli):
        assert json.loads(cli("ls", "methods", "--json").out).keys() == {"methods"}
        assert "methods" not in cli("ls", "recipes").out.splitlines()

    def test_the_matrix(self, cli):
        found = json.loads(cli("ls", "--matrix", "--json").out)
        assert list(found["families"]) == ["sd", "sd2-v", "sdxl", "sd3", "flux"]
        assert found["methods"].keys() == set(METHODS.names())
        assert all(cells[kind]["works"] for cells in found["methods"].values() for kind in ("sd", "sd2-v"))
        assert all(cell["works"] != bool(cell["why"]) for cells in found["methods"].values() for cell in cells.values())
        assert found["methods"]["closed-distraction"]["sd3"]["settings"] == ["metric=identity"]
        printed = cli("ls", "--matrix").out
        assert "closed-distraction on sd3, flux: works with metric=identity" in printed
        assert "hirm on sd3, flux: it trains CLIP's text encoders" in printed
        assert "recipe" in cli("ls", "recipies").error


class TestShow:
    @pytest.mark.parametrize("name", METHODS.names())
    def test_a_methods_parameters_with_defaults_and_reasons(self, cli, name):
        done = cli("show", name)
        assert done.code == 0, done.err
        found = json.loads(cli("show", name, "--json").out)
        assert found["method"] == name
        assert all(field["description"] for field in found["parameters"])
        assert all(f"  {field['name']}=" in done.out for field in found["parameters"])
        for field in found["parameters"]:
            own, used = METHODS.get(name)().model_dump(mode="json"), load_recipe(name).resolved()["parameters"]
            for key in field["name"].split("."):
                own, used = None if own is None else own[key], used[key]
            assert field["default"] == own, f"{field['name']} is another default than the method's own"
            assert field.get("recipe", own) == used, f"{field['name']} is another value than forget --method uses"

    def test_a_recipes_values_beside_the_defaults_and_why(self, cli):
        done = cli("show", "hirm")
        assert "  training.lr=0.0004 (the method's own default: 5e-05)" in done.out
        assert "benchmarks/results/tuning/hirm.json" in done.out
        assert "  recipe" not in cli("show", "uce").out
        found = json.loads(cli("show", "aizheimer-paper", "--json").out)
        assert (found["method"], found["recipe"].split(":")[0]) == ("aizheimer", "aizheimer-paper")

    def test_says_what_an_edit_is(self, cli, session_run):
        done = cli("show", session_run)
        assert done.code == 0
        lines = dict(
            line.split(maxsplit=1) for line in done.out.splitlines() if not line.startswith(" ") and " " in line
        )
        assert lines["concept"] == "santa claus (object)"
        assert lines["keep"] == "cat"
        assert lines["method"] == "aizheimer"
        assert "tensors" in lines["changes"]

    def test_says_that_an_edit_changes_the_text_encoder(self, cli, tmp_path):
        edit = small(HiRM).unlearn(tiny_backbone(), Concept("santa claus"))
        done = cli("show", edit.save(tmp_path))
        lines = [line.split(maxsplit=1) for line in done.out.splitlines()]
        count = len(edit.deltas)
        assert ["text_encoder", edit.provenance.text_fingerprint] in lines
        assert any(rest[0].startswith(f"{count} tensors ({count} of the text encoder), ") for _, *rest in lines if rest)
        assert json.loads(cli("show", tmp_path, "--json").out)["names"][0].startswith("text_encoder.")

    def test_says_what_its_method_wants_read(self, cli, tiny_pipeline, tmp_path, capsys):
        edit = edit_of(tiny_pipeline, NegativePromptHook("cat"), extra={"printed": {"leakage": "none at all"}})
        lines = cli("show", edit.save(tmp_path)).out.splitlines()
        assert ["leakage", "none at all"] in [line.split(maxsplit=1) for line in lines]
        _print_result(edit, tmp_path, tmp_path / "after.png", how="", as_json=False)
        assert capsys.readouterr().out.splitlines()[-1] == "leakage    none at all"

    def test_json_holds_the_whole_provenance(self, cli, session_run):
        found = json.loads(cli("show", session_run, "--json").out)
        assert found["concept"]["target"] == "santa claus"
        assert found["tensors"] == len(found["names"]) > 0
        assert found["recipe"]["training"]["steps"] == 4


class TestValidate:
    @pytest.mark.parametrize("name", ["aizheimer", "aizheimer-paper", "aizheimer-notebook"])
    def test_prints_a_recipe_that_is_valid_itself(self, cli, name):
        done = cli("validate", name)
        assert done.code == 0
        Path("again.yaml").write_text(done.out)
        again = cli("validate", "again.yaml")
        assert yaml.safe_load(again.out) == yaml.safe_load(done.out)

    def test_takes_overrides(self, cli):
        found = json.loads(cli("validate", "aizheimer", "training.steps=7", "--json").out)
        assert found["parameters"]["training"]["steps"] == 7


class TestEnv:
    def test_names_what_a_bug_report_needs(self, cli):
        done = cli("env")
        assert done.code == 0
        names = {line.split()[0] for line in done.out.splitlines() if line}
        assert {"platform", "device", "threads", "aizheimer", "python", "torch", "diffusers"} <= names

    def test_json(self, cli):
        assert json.loads(cli("env", "--json").out)["versions"]["torch"]
