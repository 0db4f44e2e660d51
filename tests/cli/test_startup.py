"""Help is instant because nothing heavy is imported for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
HEAVY = ("torch", "diffusers", "transformers", "matplotlib", "numpy", "PIL", "yaml")


def python(code: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "COLUMNS": "120"}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=150)


@pytest.mark.parametrize("args", [["--help"], [], ["--version"], ["forget", "--help"], ["evaluate", "--help"]])
def test_help_imports_nothing_heavy(args):
    done = python(
        "import sys\n"
        "from aizheimer.cli import main\n"
        f"code = main({args!r})\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
        "sys.exit(code)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.endswith("HEAVY []\n")


def test_importing_the_package_imports_nothing_heavy():
    done = python(f"import sys, aizheimer\nprint([name for name in {HEAVY!r} if name in sys.modules])")
    assert done.stdout == "[]\n"


def test_public_names_arrive_when_asked_for():
    import aizheimer

    assert [name for name in aizheimer.__all__ if getattr(aizheimer, name, None) is None] == []
    assert set(aizheimer.__all__) <= set(dir(aizheimer))


def test_an_unknown_public_name_is_an_attribute_error():
    import aizheimer

    with pytest.raises(AttributeError, match="no attribute 'forgett'"):
        _ = aizheimer.forgett


def test_python_m_aizheimer_runs_the_command_line():
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "COLUMNS": "120"}
    command = [sys.executable, "-m", "aizheimer"]
    done = subprocess.run([*command, "--help"], env=env, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0
    for name in ("forget", "generate", "evaluate", "report", "ls", "show", "plan", "validate", "env"):
        assert f" {name} " in done.stdout
