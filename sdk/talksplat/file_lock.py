"""Locks among processes, held through files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from talksplat.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: two processes may do the same work, as without a lock
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock among processes and threads while a ``with`` block lasts.

    The system lets go of it when its process ends, however that happens. Where files cannot be
    locked, as on some network drives, that is logged and nothing is held.

    Args:
        path: of a file to lock, in an existing folder; it is there only while the lock is held.
        waiting: told when somebody else holds it.

    Raises:
        OutputError: the file cannot be made.
    """
    if fcntl is None:
        yield
        return
    descriptor = _acquire(path, waiting)
    try:
        yield
    finally:
        # Before it is let go: who waits finds out that the file is gone, and makes another.
        with suppress(FileNotFoundError):
            path.unlink()
        os.close(descriptor)


def _acquire(path: Path, waiting: Callable[[], None]) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise OutputError(f"Cannot write {path}: {error}.") from error
        try:
            _lock(descriptor, path, waiting)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, path: Path, waiting: Callable[[], None]) -> None:
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        _log.warning("%s cannot be locked (%s): others may do the same work now.", path, error)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether that file is still there under its name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
