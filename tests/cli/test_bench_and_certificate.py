"""bench, certificate, verify and the model card, typed as a user would."""

import json
import os
import subprocess

import pytest

from aizheimer._registry import ATTACKS


class TestCertificate:
    def test_writes_both_files_and_says_what_was_not_tried(self, cli, run_folder):
        assert cli("evaluate", run_folder, "--samples", 6).code == 0
        done = cli("certificate", run_folder)
        assert done.code == 0, done.err
        assert "gate         release is not met" in done.out
        stated = json.loads((run_folder / "certificate.json").read_text())
        assert {item["name"] for item in stated["not_tried"]} >= set(ATTACKS.names())
        page = (run_folder / "certificate.html").read_text()
        assert "http://" not in page
        assert stated["edit_sha256"] in page

    def test_a_gate_that_is_not_there(self, cli, run_folder):
        assert "unknown gate 'releas'" in cli("certificate", run_folder, "--gate", "releas").error


class TestVerify:
    def test_exit_0_if_all_agrees_and_3_if_not(self, cli, run_folder):
        assert cli("evaluate", run_folder, "--samples", 6).code == 0
        assert cli("certificate", run_folder).code == 0
        done = cli("verify", run_folder, "--samples", 3)
        assert done.code == 0, done.err
        assert "agrees   edit.safetensors, SHA-256" in done.out
        assert "certificate's edit" in done.out
        other = json.loads((run_folder / "certificate.json").read_text()) | {"base_fingerprint": "0" * 16}
        (run_folder / "certificate.json").write_text(json.dumps(other))
        done = cli("verify", run_folder, "--json")
        assert done.code == 3
        assert not json.loads(done.out)["passed"]
        assert "certificate's base: stated 0000000000000000" in done.err

    def test_nothing_to_verify(self, cli, run_folder):
        assert "needs an edit and an evaluation" in cli("verify", run_folder).error


class TestCard:
    @pytest.mark.long
    def test_is_written_beside_the_report(self, cli, run_folder):
        assert cli("evaluate", run_folder, "--samples", 6).code == 0
        assert cli("certificate", run_folder, "--gate", "quick").code == 0
        done = cli("report", run_folder, "--card")
        assert done.code == 0, done.err
        card = (run_folder / "README.md").read_text()
        assert card.startswith("---\nlibrary_name: aizheimer\n")
        assert "## Gate “quick”:" in card
        page = (run_folder / "report.html").read_text()
        assert "<h2>Gate “quick”</h2>" in page
        assert '<a href="certificate.html">' in page
        assert "The run has changed since" not in page


class TestBench:
    def words(self, model):
        return ("bench", "--model", model, "--method", "negative-prompt", "--concept", "cat", "--samples", 3)

    def test_runs_writes_and_goes_on(self, cli, saved_tiny_pipeline):
        done = cli(*self.words(saved_tiny_pipeline))
        assert done.code == 0, done.err
        assert "1/1  negative-prompt, cat, seed 0: no figure could be measured" in done.err
        assert "bench/results.jsonl" in done.out
        again = cli(*self.words(saved_tiny_pipeline), "--json")
        assert "1 of 1 jobs are done already" in again.err
        assert json.loads(again.out)["rows"][0]["status"] == "done"

    def test_a_stale_lock_is_taken_over_and_a_live_one_refused(self, cli, saved_tiny_pipeline, tmp_path):
        import platform

        dead = subprocess.Popen(["true"])
        dead.wait()
        folder = tmp_path / "home" / "bench"
        folder.mkdir()
        lock = {"pid": dead.pid, "host": platform.node(), "since": "then", "started": None}
        (folder / "bench.lock").write_text(json.dumps(lock))
        done = cli(*self.words(saved_tiny_pipeline))
        assert f"took over the lock of process {dead.pid}" in done.err
        (folder / "bench.lock").write_text(json.dumps(lock | {"pid": os.getpid()}))
        done = cli(*self.words(saved_tiny_pipeline))
        assert done.code == 2
        assert "is in use by another bench" in done.error

    def test_mistakes_are_told_before_anything_is_written(self, cli, tmp_path):
        done = cli("bench", "--method", "esdd", "--concept", "cat")
        assert done.code == 2
        assert "unknown recipe or method 'esdd'. Did you mean 'esd'?" in done.error
        assert "--workers" in cli("bench", "--method", "esd", "--concept", "cat", "--workers", 2).error
        assert not (tmp_path / "home" / "bench").exists()

    def test_a_file_in_the_way(self, cli, tmp_path):
        (tmp_path / "home" / "bench").write_text("")
        assert "is a file" in cli("bench", "--method", "uce", "--concept", "cat").error
