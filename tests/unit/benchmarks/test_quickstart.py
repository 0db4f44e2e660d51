"""The quickstart is timed by its own commands, and what its page says of the time is what was measured."""

import importlib.util
import json
import re

import pytest

from tests.docs.snippets import REPOSITORY

PAGE = REPOSITORY / "docs" / "quickstart.md"
RAW = REPOSITORY / "benchmarks" / "results" / "quickstart.json"


@pytest.fixture(scope="module")
def quickstart():
    spec = importlib.util.spec_from_file_location("quickstart", REPOSITORY / "benchmarks" / "quickstart.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_commands_are_those_of_the_page_in_its_order(quickstart):
    installing, using = quickstart.commands(PAGE.read_text(encoding="utf-8"))
    assert installing[0] == "python3 -m venv .venv"
    assert installing[-1] == "source .venv/bin/activate"
    assert [line.split()[1] for line in using] == ["forget", "evaluate", "attack", "report", "export"]
    assert not [line for line in using if "path/to" in line]


def test_one_shell_runs_them_and_stops_at_the_first_that_fails(quickstart, tmp_path):
    lines = ["WORD=kept", 'test "$WORD" = kept', "false", "touch never"]
    folder = tmp_path / "clone"
    folder.mkdir()
    rows, printed = quickstart.run(lines, folder=folder, venv=None)
    assert [(row["command"], row["exit"]) for row in rows] == [(lines[0], 0), (lines[1], 0), (lines[2], 1)]
    assert "$ false" in printed
    assert not (folder / "never").exists()


def test_each_command_has_its_own_seconds(quickstart):
    assert quickstart.rows_of(["a", "b", "c"], ["10.0 12.5 0", "12.5 80.0 1"]) == [
        {"command": "a", "seconds": 2.5, "exit": 0},
        {"command": "b", "seconds": 67.5, "exit": 1},
    ]


def test_nothing_of_this_machine_is_found(quickstart, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    folder = tmp_path / "clone"
    folder.mkdir()
    _, printed = quickstart.run(
        ['echo "<$PYTHONPATH> $AIZHEIMER_CACHE $PIP_CONSTRAINT $PATH"'], folder=folder, venv=tmp_path / "mine"
    )
    assert f"<> {tmp_path}/cache {folder}/constraints.txt {tmp_path}/mine/bin:" in printed


def test_what_pip_downloads_is_added_up(quickstart):
    printed = (
        "  Downloading a-1.whl (1.5 MB)\n  Downloading b.whl (500 kB)\nProcessing /a/c.whl (from d)\nProcessing /e"
    )
    assert quickstart.downloaded(printed) == 2.0
    assert quickstart.from_disk(printed) == 1


def test_the_page_says_what_was_measured(quickstart):
    page, content = PAGE.read_text(encoding="utf-8"), json.loads(RAW.read_text(encoding="utf-8"))
    assert content["all_done"]
    assert quickstart.with_sentence(page, content) == page
    assert re.search(r"\*\*\d+\.\d minutes\*\*", page)
    installing, using = quickstart.commands(page)
    assert [row["command"] for row in content["commands"]] == installing + using, "the page changed: measure it again"


def test_a_newcomer_has_an_exported_lora_in_less_than_ten_minutes_on_two_cores():
    content = json.loads(RAW.read_text(encoding="utf-8"))
    assert content["installed"], "the installation is part of it"
    assert content["cores"] <= 2
    assert content["total_seconds"] < 600
    assert [size for name, size in content["exported_bytes"].items() if name.endswith(".safetensors")] != []
