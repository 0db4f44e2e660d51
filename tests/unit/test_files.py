"""Writers leave the old file or the new one, never half of either."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from aizheimer import _files


def test_json_yaml_and_tensors_round_trip(tmp_path):
    value = {"ü": [1, 2.5, None, True]}
    _files.write_json(tmp_path / "deep" / "a.json", value)
    _files.write_yaml(tmp_path / "a.yaml", value)
    _files.write_tensors(tmp_path / "a.safetensors", {"x": torch.arange(6).reshape(2, 3).T})
    assert json.loads((tmp_path / "deep" / "a.json").read_text(encoding="utf-8")) == value
    assert yaml.safe_load((tmp_path / "a.yaml").read_text(encoding="utf-8")) == value
    assert torch.equal(load_file(tmp_path / "a.safetensors")["x"], torch.arange(6).reshape(2, 3).T)


def test_an_interrupted_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted():
        with _files.atomic(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_appending_keeps_one_line_an_event(tmp_path):
    _files.append_line(tmp_path / "log", "one\n")
    _files.append_line(tmp_path / "log", "two")
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(IsADirectoryError), _files.storage_errors(tmp_path):
        tmp_path.open()


FULL_DISK = """
    import resource, sys, torch
    from pathlib import Path
    from aizheimer import _files
    from aizheimer.errors import StorageError
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    folder = Path(sys.argv[1])
    writers = {
        "a.txt": lambda path: _files.write_text(path, "x" * 5000),
        "a.safetensors": lambda path: _files.write_tensors(path, {"x": torch.zeros(5000)}),
        "log": lambda path: [_files.append_line(path, "x" * 600) for _ in range(3)],
    }
    for name, write in writers.items():
        try:
            write(folder / name)
        except StorageError as error:
            print(name, "|", error)
"""


def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path):
    """The system itself refuses the bytes: the process may write files of 1000 bytes at most."""
    for name in ("a.txt", "a.safetensors"):
        (tmp_path / name).write_text("old")
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path)]
    # Found by path, so that the test also runs where the package is not installed.
    environment = os.environ | {"PYTHONPATH": str(Path(_files.__file__).parents[1])}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert [line.split(" | ")[0] for line in result.stdout.splitlines()] == ["a.txt", "a.safetensors", "log"]
    assert all("no room to write" in line and "--resume" in line for line in result.stdout.splitlines())
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "a.safetensors").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "a.txt", "log"]
