"""Every failure is one line on stderr and an exit code."""

import errno
import json
import logging
import signal
import sys
import warnings
from typing import Annotated

import pytest
import typer

from aizheimer.cli import guard
from aizheimer.cli.options import Debug, Json
from aizheimer.errors import ConceptError, GateError, StorageError, TrainingError


def command(raised):
    app = typer.Typer(cls=guard.InterruptibleGroup)

    @app.command("go")
    def go(number: Annotated[int, typer.Option()] = 0, *, as_json: Json = False, debug: Debug = False):
        if raised is not None:
            raise raised

    app.command("other")(lambda: None)
    return typer.main.get_command(app)


def test_an_optional_librarys_chatter_stays_off_stderr():
    chatter = logging.getLogger("bitsandbytes.backends.cpu.ops")
    assert chatter.isEnabledFor(logging.WARNING)
    with guard._quiet_libraries():
        assert not chatter.isEnabledFor(logging.WARNING)
        assert chatter.isEnabledFor(logging.ERROR)
    assert chatter.isEnabledFor(logging.WARNING)


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (None, 0, ""),
        (TrainingError("The loss is not a number."), 1, "error: The loss is not a number."),
        (ConceptError("Nothing\n  to forget."), 2, "error: Nothing to forget."),
        (GateError("UA is low."), 3, "error: UA is low."),
        (KeyboardInterrupt(), 130, "error: Interrupted."),
        (OSError(errno.EACCES, "Permission denied", "/x"), 1, "error: Cannot use '/x': Permission denied."),
        (ZeroDivisionError("oh\nno."), 1, "error: Unexpected ZeroDivisionError: oh no. Use --debug for the traceback."),
    ],
)
def test_errors_are_one_line_with_their_exit_code(capsys, raised, code, line):
    assert guard.run(command(raised), ["go"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (f"{line}\n" if line else "")


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("complaint", [None, RuntimeError("what a library makes of Ctrl-C")])
def test_ctrl_c_says_what_to_do_next(complaint):
    def work():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            if complaint is not None:
                raise complaint

    with pytest.raises(guard.Interrupted) as caught, guard.on_interrupt("The same command goes on."):
        work()
    assert str(caught.value) == "Interrupted. The same command goes on."
    assert guard.as_aizheimer_error(caught.value).exit_code == 130


def test_other_errors_are_not_taken_for_ctrl_c():
    with pytest.raises(ConceptError, match="Nothing"), guard.on_interrupt("The same command goes on."):
        raise ConceptError("Nothing.")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_storage_error_that_names_the_file(number):
    error = guard.as_aizheimer_error(OSError(number, "No space left on device", "runs/x/edit.json"))
    assert isinstance(error, StorageError)
    assert "runs/x/edit.json" in str(error)
    assert "--resume" in str(error)


def test_json_errors_are_json(capsys):
    assert guard.run(command(ConceptError("Nothing.")), ["go", "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err) == {"error": {"type": "ConceptError", "message": "Nothing.", "exit_code": 2}}


def test_json_holds_while_the_command_line_is_parsed(capsys):
    assert guard.run(command(None), ["go", "--json", "--number", "many"]) == 2
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["type"] == "UsageError"
    assert "--number" in error["message"]


def test_a_word_after_two_dashes_is_not_a_flag(capsys):
    guard.run(command(None), ["go", "--", "--json"])
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("args", [["gone"], ["go", "--unknown"], ["go", "--number", "x"], ["go", "extra"]])
def test_usage_errors_are_one_line_and_exit_2(capsys, args):
    assert guard.run(command(None), args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("See --help.")


@pytest.mark.parametrize(("args", "shown"), [(["go", "--debug"], True), (["go"], False)])
def test_debug_adds_the_traceback(capsys, args, shown):
    assert guard.run(command(ZeroDivisionError("zero")), args) == 1
    assert ("Traceback" in capsys.readouterr().err) is shown


def test_our_warnings_are_one_line_and_others_are_silent(capsys):
    def warn():
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn_explicit("skipped x.jpg:\nnot an image", UserWarning, guard.__file__, 1)
            warnings.warn_explicit("chatter", UserWarning, "/elsewhere/torch/nn.py", 1)

    app = typer.Typer()
    app.command("go")(warn)
    app.command("other")(lambda: None)
    assert guard.run(typer.main.get_command(app), ["go"]) == 0
    assert capsys.readouterr().err == "warning: skipped x.jpg: not an image\n"


def test_warnings_are_shown_as_before_afterwards():
    before = warnings.showwarning
    guard.run(command(None), ["go"])
    assert warnings.showwarning is before


def test_a_closed_pipe_is_no_error_of_ours(monkeypatch):
    with pytest.raises(SystemExit) as exit_:
        guard.run(command(OSError(errno.EPIPE, "Broken pipe")), ["go"])
    assert exit_.value.code == 1
    monkeypatch.undo()
    assert sys.stdout is not None
