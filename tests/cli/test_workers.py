"""``evaluate --workers`` and ``--share``, and what several processes cannot do: mistakes, and one share."""

import json

import pytest

from aizheimer.cli import main


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--suite", "families", "--workers", "2"], "start suites with accelerate launch"),
        (["--workers", "2", "--share", "1/2"], "choose one"),
        (["--share", "3/2", "--samples", "6"], "got '3/2', wanted which part of how many"),
        (["--workers", "0"], "workers"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(cli, run_folder, words, wanted):
    done = cli("evaluate", run_folder, *words)
    assert done.code == 2
    assert wanted in done.error
    assert not (run_folder / "evaluation.json").exists()


def test_a_share_is_drawn_and_nothing_is_judged(cli, run_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("AIZHEIMER_CACHE", str(tmp_path / "cache"))
    done = cli("evaluate", run_folder, "--samples", 6, "--share", "1/1", "--json")
    assert done.code == 0, done.err
    drawn = json.loads(done.out)["drawn"]
    assert drawn == len(list((tmp_path / "cache").rglob("*.safetensors"))) > 0
    assert not (run_folder / "evaluation.json").exists()
    assert json.loads(cli("evaluate", run_folder, "--samples", 6, "--share", "1/1", "--json").out)["drawn"] == 0


def test_other_commands_are_not_for_several_processes(capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(["ls"]) == 2
    assert "only forget and evaluate share their work" in capsys.readouterr().err
