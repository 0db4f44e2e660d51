"""compare and check, typed as a user would."""

import json
import shutil

import pytest
from PIL import Image

from aizheimer.evaluation.results import EvaluationResult
from tests.unit.proof.builders import good, write_run


class TestCheck:
    def test_exit_3_names_the_failing_lines(self, cli, tmp_path):
        run = write_run(tmp_path / "run", evaluation=good())
        done = cli("check", run)
        assert done.code == 3
        asked = "min_ua_by_family, max_group_gap, max_asr, min_attacks, min_relearn_steps"
        assert done.error == f"{run}: 5 of 11 lines of the gate fail: {asked}."
        assert "FAILS  max_asr: wanted an ASR of at most 30%" in done.out
        assert "holds  min_ua: found 100% (97 to 100%, n=100), wanted at least 90%" in done.out

    def test_exit_0_when_all_holds(self, cli, tmp_path):
        done = cli("check", write_run(tmp_path / "run", evaluation=good()), "--gate", "quick")
        assert (done.code, done.err) == (0, "")

    def test_json(self, cli, tmp_path):
        gate = tmp_path / "mine.yaml"
        gate.write_text("min_ua: 0.99\nuse: interval\n")
        done = cli("check", write_run(tmp_path / "run", evaluation=good()), "--gate", gate, "--json")
        assert done.code == 3
        found = json.loads(done.out)
        assert not found["passed"]
        assert [line["rule"] for line in found["lines"] if not line["passed"]] == ["min_ua"]

    def test_a_gate_with_an_unknown_key(self, cli, tmp_path):
        gate = tmp_path / "mine.yaml"
        gate.write_text("max_ars: 0.1\n")
        done = cli("check", write_run(tmp_path / "run", evaluation=good()), "--gate", gate)
        assert done.code == 2
        assert done.error == f"gate {gate}: unknown key 'max_ars'. Did you mean 'max_asr'?"


class TestCompare:
    @pytest.fixture
    def two(self, cli, run_folder, tmp_path):
        assert cli("evaluate", run_folder, "--samples", 6).code == 0
        return run_folder, shutil.copytree(run_folder, tmp_path / "again")

    def test_writes_the_page_and_the_picture(self, cli, two, tmp_path):
        done = cli("compare", *two, "--out", tmp_path / "side")
        assert done.code == 0, done.err
        assert "unedited model" in done.out
        with Image.open(tmp_path / "side" / "comparison.png") as picture:
            assert picture.size[0] > 300
        assert json.loads((tmp_path / "side" / "comparison.json").read_text())["target"] == "santa claus"
        assert "| again |" in (tmp_path / "side" / "comparison.md").read_text()

    def test_other_steps_are_refused(self, cli, two):
        file = two[1] / "evaluation.json"
        result = EvaluationResult.load(file)
        settings = result.settings.model_copy(update={"steps": 3})
        result.model_copy(update={"settings": settings}).save(file)
        done = cli("compare", *two, "--no-pictures")
        assert done.code == 2
        assert "steps (20 and 3)" in done.error

    def test_an_unknown_name_to_leave_out(self, cli, two):
        assert "no run has 'p4d'" in cli("compare", *two, "--without", "p4d").error
