"""The error boundary: every failure becomes one line on stderr and an exit code."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import typer
from typer.core import TyperGroup

from aizheimer._interrupts import interruptible
from aizheimer._processes import is_main, process_count, process_rank
from aizheimer.errors import AizheimerError, InputError, ProcessError, StorageError, ToldError


class Interrupted(AizheimerError):
    """The user pressed Ctrl-C."""

    exit_code = 130


@contextlib.contextmanager
def on_interrupt(advice: str) -> Iterator[None]:
    """While this is open, Ctrl-C is an error that says what to do next.

    Args:
        advice: A sentence that follows "Interrupted."

    Raises:
        Interrupted: If Ctrl-C was pressed, whatever a library made of it.
    """
    try:
        with interruptible():
            yield
    except KeyboardInterrupt as interrupt:
        raise Interrupted(f"Interrupted. {advice}") from interrupt


class UsageError(InputError):
    """The command line itself could not be parsed."""


class InterruptibleGroup(TyperGroup):
    """A command group in which Ctrl-C is an error with a line of its own."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command; see the base class."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise Interrupted("Interrupted.") from interrupt


class Command(Protocol):
    """What `run` needs of a parsed command tree."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **options: Any) -> Any:
        """Parse the arguments and run."""


def run(command: Command, args: Sequence[str]) -> int:
    """Run a command tree; print any error as one line (JSON with ``--json``) and return the exit code.

    ``--json`` and ``--debug`` are looked up in the words themselves because they must also hold for errors that
    happen while those words are being parsed.
    """
    words = list(args)
    flags = words[: words.index("--")] if "--" in words else words
    debug = "--debug" in flags
    with contextlib.ExitStack() as stack:
        stack.enter_context(_last_words())
        if not debug:
            stack.enter_context(_quiet_libraries())
        try:
            result = command.main(args=words, prog_name="aizheimer", standalone_mode=False)
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                traceback.print_exc()
            return _report(as_aizheimer_error(error), as_json="--json" in flags)
    return result if isinstance(result, int) else 0


def as_aizheimer_error(error: BaseException) -> AizheimerError:
    """Return the error as one of ours: one line that says what happened and what to do."""
    if isinstance(error, AizheimerError):
        return error
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return Interrupted("Interrupted.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" while writing '{error.filename}'" if error.filename else ""
        return StorageError(f"The disk is full{place}. Make room, then run the same command with --resume.")
    # Typer carries its own copy of click since 0.20; both kinds of usage error offer format_message().
    if (format_message := getattr(error, "format_message", None)) is not None:
        return UsageError(f"{_one_line(format_message()).rstrip('.')}. See --help.")
    if isinstance(error, OSError) and error.filename:
        return AizheimerError(f"Cannot use '{error.filename}': {error.strerror}.")
    return AizheimerError(
        f"Unexpected {type(error).__name__}: {_one_line(str(error)).rstrip('.')}. Use --debug for the traceback."
    )


def _report(error: AizheimerError, *, as_json: bool) -> int:
    if isinstance(error, ToldError):
        return error.exit_code  # the main process has said it
    message = _one_line(str(error)) if is_main() else f"process {process_rank()}: {_one_line(str(error))}"
    if as_json:
        content = {"type": type(error).__name__, "message": message, "exit_code": error.exit_code}
        line = json.dumps({"error": content}, ensure_ascii=False)
    else:
        line = f"error: {message}"
    print(line, file=sys.stderr)
    return error.exit_code


def _one_line(text: str) -> str:
    return " ".join(text.split())


@contextlib.contextmanager
def _last_words() -> Iterator[None]:
    """Let a process that its launcher stops, because another one has ended, say so."""
    if process_count() == 1:
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise ProcessError(
            "stopped by the launcher, which does that when another process of the command has ended; what was written "
            "so far is kept: start the command again, a run with --resume"
        )

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep other libraries' chatter off stderr, and show our own warnings as one line each."""
    for name, value in (
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("DIFFUSERS_VERBOSITY", "error"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
        # PyTorch's C++ side, which reads them when it is loaded: its profiler, which `plan` measures memory with, would
        # say of every start that it starts, and of memory that was there before that it was.
        ("KINETO_LOG_LEVEL", "99"),
        ("TORCH_CPP_LOG_LEVEL", "ERROR"),
    ):
        os.environ.setdefault(name, value)
    chatter = logging.getLogger("bitsandbytes")  # peft imports it where it is installed, wanted or not
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_our_warning
            yield
    finally:
        chatter.setLevel(level)


def _show_our_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del category, lineno, line
    if Path(__file__).parents[1] in Path(filename).parents:
        print(f"warning: {_one_line(str(message))}", file=file or sys.stderr)
