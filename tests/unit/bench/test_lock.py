"""Two benches on one folder: one of them, and a dead one's lock is no lock."""

import json
import os
import platform
import subprocess
import sys

import pytest

from aizheimer.bench.lock import FILE_NAME, _started, locked
from aizheimer.errors import RunFolderError


def hold(folder, **changes):
    mine = {"pid": os.getpid(), "host": platform.node(), "since": "today", "started": _started(os.getpid())}
    (folder / FILE_NAME).write_text(json.dumps({**mine, **changes}))


def test_the_second_is_refused_with_a_clear_line(tmp_path):
    with locked(tmp_path):
        with (
            pytest.raises(
                RunFolderError, match=r"in use by another bench \(process \d+ on .*, since .*delete"
            ) as caught,
            locked(tmp_path),
        ):
            pass
        assert "\n" not in str(caught.value)
        assert str(os.getpid()) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_another_process_holds_it(tmp_path):
    code = (
        "import sys; from pathlib import Path; from aizheimer.bench.lock import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError, match=f"process {other.pid} "), locked(tmp_path):
            pass
        other.communicate("")
    with locked(tmp_path):
        pass


def test_the_lock_of_a_dead_process_is_taken_over_and_said(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    hold(tmp_path, pid=dead.pid)
    said = []
    with locked(tmp_path, say=said.append):
        assert json.loads((tmp_path / FILE_NAME).read_text())["pid"] == os.getpid()
    assert said == [f"took over the lock of process {dead.pid}, which is no longer running"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(_started(os.getpid()) is None, reason="this system does not tell when a process started")
def test_a_number_that_was_given_to_another_process_is_not_the_holder(tmp_path):
    hold(tmp_path, started="1")
    said = []
    with locked(tmp_path, say=said.append):
        assert len(said) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}'])
def test_a_lock_that_cannot_be_read_is_never_taken_over(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(RunFolderError, match=f"delete .*{FILE_NAME}"), locked(tmp_path):
        pass
    assert (tmp_path / FILE_NAME).read_text() == text


def test_a_holder_on_another_machine_may_be_alive(tmp_path):
    hold(tmp_path, host="elsewhere", pid=2**22 + 1)
    with pytest.raises(RunFolderError, match="on elsewhere"), locked(tmp_path):
        pass


def test_it_is_let_go_when_the_bench_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []
