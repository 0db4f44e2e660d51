"""What every fuzzed case is held to: our own errors in one line, an end in time, and no file outside its folder."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from aizheimer.errors import AizheimerError

DEFAULT = 500
CASES = int(os.environ.get("AIZHEIMER_FUZZ_CASES", DEFAULT))
"""Cases in all; ``make fuzz`` asks for 10,000."""

SHARES = {"recipes": 0.24, "plans": 0.1, "edits": 0.2, "hooks": 0.08, "loras": 0.2, "pictures": 0.08, "names": 0.04}
"""Shares of the cases by what is fuzzed; the rest is for overrides."""

CPU_SECONDS = 10.0
"""What one case may compute before it counts as a hang; of the processor, so that a busy machine fails nothing."""


def cases(kind: str) -> int:
    """Return how many cases a kind of input gets; all kinds together get `CASES`."""
    if kind == "overrides":
        return CASES - sum(cases(other) for other in SHARES)
    return round(CASES * SHARES[kind])


class Hang(Exception):
    """A case computed longer than it may."""


_written: list[Path] | None = None


def _hear(event: str, arguments: tuple) -> None:
    """Note every file that is opened to be written, made, renamed or removed while somebody listens."""
    if _written is None:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (
            isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if writes and not isinstance(path, int):
            _written.append(Path(os.fsdecode(path)))
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.truncate"):
        _written.extend(Path(os.fsdecode(part)) for part in arguments[:2] if isinstance(part, str | bytes))


sys.addaudithook(_hear)


@contextlib.contextmanager
def held_to(folder: Path) -> Iterator[None]:
    """Run a case: only an `AizheimerError` of one line may come out, soon, and nothing is written but in a folder."""
    global _written
    _written, written = [], []
    before = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a skipped picture is told in a warning, which pytest would raise
            yield
    except AizheimerError as error:
        text = str(error)
        assert text.strip(), "an error without a word"
        assert "\n" not in text, text
        assert len(text) < 20_000, f"{len(text)} letters in one error"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        written, _written = _written, None
    allowed = (folder.resolve(), Path("/dev"), Path("/proc"))
    outside = [path for path in written if path.suffix != ".pyc" and not _is_inside(path, allowed)]
    assert not outside, f"written outside {folder}: {outside}"


def _is_inside(path: Path, allowed: tuple[Path, ...]) -> bool:
    whole = Path(os.path.abspath(path))  # not resolve(): what was named is what counts  # noqa: PTH100
    return any(whole.is_relative_to(folder) for folder in allowed) or "__pycache__" in whole.parts


def _stop(*_: object) -> None:
    raise Hang(f"one case computed for more than {CPU_SECONDS:g} s")
