"""Run folders are never overwritten by accident and never lose what is not theirs."""

import json
import os

import pytest

from aizheimer.engine.run_folder import RunFolder
from aizheimer.errors import RunFolderError


@pytest.fixture
def finished(tmp_path):
    run = RunFolder(tmp_path / "run").create()
    run.write_yaml("recipe.yaml", {"method": "aizheimer"})
    run.append_history({"event": "step", "step": 1})
    (run.path / "grid.png").write_bytes(b"png")
    (run.path / "notes.txt").write_text("mine")
    return run


def test_a_new_folder_is_made_with_its_parents(tmp_path):
    run = RunFolder(str(tmp_path / "a" / "b")).create()
    assert run.path.is_dir()
    assert not run.resuming
    assert not run.holds_run()


def test_a_run_is_not_touched_without_being_asked(finished):
    before = {path.name: path.read_bytes() for path in finished.path.iterdir()}
    with pytest.raises(RunFolderError, match=r"already holds a run.*--resume.*--overwrite"):
        RunFolder(finished.path).create()
    assert {path.name: path.read_bytes() for path in finished.path.iterdir()} == before


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_overwriting_replaces_the_run_and_nothing_else(finished):
    run = RunFolder(finished.path).create(overwrite=True)
    assert not run.holds_run()
    assert [path.name for path in run.path.iterdir() if not path.name.startswith(".")] == ["notes.txt"]
    run.append_history({"event": "step", "step": 7})
    run.keep()
    assert sorted(contents(run.path)) == ["history.jsonl", "notes.txt"]
    assert run.history() == [{"event": "step", "step": 7}]
    run.keep()


def test_what_was_replaced_comes_back(finished, tmp_path):
    before = contents(finished.path)
    run = RunFolder(finished.path).create(overwrite=True)
    run.write_yaml("recipe.yaml", {"method": "other"})
    (run.path / "before-after.png").write_bytes(b"other")
    run.undo()
    assert contents(finished.path) == before
    assert not (finished.path / ".replaced").exists()
    new = RunFolder(tmp_path / "new").create()
    new.write_json("env.json", {})
    new.undo()
    assert not new.path.exists()
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty").create().undo()
    assert (tmp_path / "empty").is_dir()
    RunFolder(finished.path).create(resume=True).undo()
    assert contents(finished.path) == before


@pytest.mark.parametrize("begun", [False, True])
def test_a_crash_while_a_run_is_replaced_loses_none(finished, begun):
    """Killed before the new run wrote anything, the old one is there; after that, the new one."""
    before = contents(finished.path)
    run = RunFolder(finished.path).create(overwrite=True)
    if begun:
        run.append_history({"event": "step", "step": 7})
    found = RunFolder(finished.path).create(resume=True)
    assert found.history() == ([{"event": "step", "step": 7}] if begun else [{"event": "step", "step": 1}])
    assert not (finished.path / ".replaced").exists()
    assert begun or contents(finished.path) == before


def test_resuming_keeps_everything_but_leftovers(finished):
    (finished.path / ".edit.json.abc.tmp").write_text("half")
    run = RunFolder(finished.path).create(resume=True)
    assert run.resuming
    assert run.history() == [{"event": "step", "step": 1}]
    assert not list(run.path.glob("*.tmp")) + list(run.path.glob(".*.tmp"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_things_is_refused(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match="not empty and holds no run"):
        RunFolder(tmp_path).create(overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_other_misuse(tmp_path, finished):
    with pytest.raises(RunFolderError, match="choose one"):
        RunFolder(finished.path).create(overwrite=True, resume=True)
    with pytest.raises(RunFolderError, match="no run to resume"):
        RunFolder(tmp_path / "new").create(resume=True)
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder(tmp_path / "file").create()
    with pytest.raises(RunFolderError, match="cannot create"):
        RunFolder(tmp_path / "file" / "run").create()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunFolderError, match="cannot be written"):
        RunFolder(tmp_path).create()


def test_a_torn_last_line_is_left_out(finished):
    with finished.file("history.jsonl").open("a") as file:
        file.write('{"event": "step", "st')
    assert finished.history() == [{"event": "step", "step": 1}]


def test_rewinding_drops_what_will_happen_again(tmp_path):
    run = RunFolder(tmp_path).create()
    for step in range(5):
        run.append_history({"step": step})
    assert run.rewind_history(2) == run.history() == [{"step": 0}, {"step": 1}, {"step": 2}]


def test_json_is_readable(tmp_path):
    run = RunFolder(tmp_path).create()
    run.write_json("env.json", {"a": 1})
    assert json.loads(run.file("env.json").read_text()) == {"a": 1}


def test_what_was_found_about_a_run_goes_with_it(tmp_path):
    """An attack on an older edit would vouch for the new one."""
    folder = tmp_path / "run"
    RunFolder(folder).create().write_json("edit.json", {})
    for name in ("evaluation.json", "suite-families.json", "attack-relearn.json", "certificate.json", "mine.txt"):
        (folder / name).write_text("{}")
    RunFolder(folder).create(overwrite=True).keep()
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
