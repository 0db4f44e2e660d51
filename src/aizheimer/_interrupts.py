"""Ctrl-C stays Ctrl-C, whatever a library makes of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptible() -> Iterator[None]:
    """While this is open, an error that comes after Ctrl-C is a `KeyboardInterrupt`, with the error as its cause.

    Python raises the interrupt wherever the program happens to be. In the middle of a library's own tidying up that
    leaves the tidying undone, and what the caller gets is the library's complaint about it: torch, between leaving a
    mode and noting that it was left, says ``RuntimeError: trying to pop from empty mode stack``.

    Outside the main thread, and where Ctrl-C is ignored, nothing is changed: no signal arrives there.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        before(number, frame)

    signal.signal(signal.SIGINT, press)
    try:
        yield
    except Exception as error:
        if pressed:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
