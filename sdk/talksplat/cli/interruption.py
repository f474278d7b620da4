"""Ctrl-C and SIGTERM that cannot get lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_requested = False


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into ``KeyboardInterrupt``, so that half-written files are removed.

    A library may drop the exception: PyAV ends its own loops on any exception, ours included.
    So long loops also call :func:`check`, which raises it again. Only for the main thread.
    """
    global _requested
    _requested = False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as under nohup, or in the background of a script
            signal.signal(number, _request)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check() -> None:
    """Go on, unless somebody has asked to stop.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM has come in.
    """
    if _requested:
        raise KeyboardInterrupt


def _request(number: int, frame: FrameType | None) -> None:
    global _requested
    _requested = True
    raise KeyboardInterrupt
