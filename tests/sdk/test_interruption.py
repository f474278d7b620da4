"""An interrupt that a library swallowed still ends the loop."""

from __future__ import annotations

import os
import signal

import pytest

from talksplat.cli.console import track
from talksplat.cli.interruption import check, interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_swallowed_interrupt_is_raised_again(number: int) -> None:
    done = []
    with interruptible(), pytest.raises(KeyboardInterrupt):
        for item in track(range(5), "Counting", 5):
            done.append(item)
            if item == 1:
                with pytest.raises(KeyboardInterrupt):
                    os.kill(os.getpid(), number)
                    signal.pause()
    assert done == [0, 1]


def test_a_new_run_forgets_the_last_interrupt() -> None:
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        with pytest.raises(KeyboardInterrupt):
            check()
    with interruptible():
        check()


def test_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
