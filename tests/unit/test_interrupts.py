"""Ctrl-C is Ctrl-C even where a library's tidying up makes another error of it."""

import signal
import threading

import pytest

from aizheimer._interrupts import interruptible

pytestmark = pytest.mark.usefixtures("ctrl_c")


def tidy_up_badly():
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        raise RuntimeError("trying to pop from empty mode stack")


def swallow():
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException:  # a callback from C++ loses the interrupt like this
        raise ValueError("callback failed") from None


@pytest.mark.parametrize(("library", "cause"), [(tidy_up_badly, RuntimeError), (swallow, ValueError)])
def test_an_error_after_ctrl_c_is_the_interrupt_and_names_the_error(library, cause):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as caught, interruptible():
        library()
    assert isinstance(caught.value.__cause__, cause)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_interrupt_itself_passes():
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGINT)


def test_an_error_of_its_own_stays_what_it_is():
    with pytest.raises(RuntimeError, match="no interrupt"), interruptible():
        raise RuntimeError("no interrupt")


def test_where_ctrl_c_is_ignored_it_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_may_ask():
    reached = []

    def work():
        with interruptible():
            reached.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert reached == [True]
