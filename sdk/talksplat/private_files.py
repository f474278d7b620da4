"""Files that nobody but this user can have written, for what is kept between two starts.

Engines and compiled kernels are code, and a checksum beside them says only that they are whole: who
may write them decides what runs. So they are written for this user alone, and used only if that is
still so. Where the system has no such owners (Windows), nothing is asked of them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from talksplat.atomic import atomic_file
from talksplat.errors import OutputError

_FOLDER_MODE, _FILE_MODE = 0o700, 0o600


class UntrustedFolderError(OutputError):
    """Others may write to a folder in which only this user's files are to be."""


def read_private(path: Path, sizes: range) -> bytes:
    """A whole file, as :func:`read_file`, if nobody else can have written it.

    Raises:
        PermissionError: others may write to it or to its folder.
        OSError: as :func:`read_file`.
    """
    if reason := _distrust(path.parent.stat()):
        raise PermissionError(f"its folder {path.parent} {reason}")
    return _read(path, sizes, private=True)


def read_file(path: Path, sizes: range) -> bytes:
    """A whole file; its size is known before memory is taken.

    Args:
        path: to a regular file.
        sizes: that it may have, in bytes.

    Raises:
        OSError: there is none, it is no regular file, has another size, or cannot be read.
    """
    return _read(path, sizes, private=False)


def write_private(path: Path, data: bytes) -> None:
    """Write a whole file atomically, for this user only; the folders above it too, if need be.

    Raises:
        UntrustedFolderError: others may write to its folder.
        OutputError: it cannot be written.
    """
    make_private_folder(path.parent)
    with atomic_file(path) as staging:
        staging.touch(_FILE_MODE, exist_ok=False)
        staging.write_bytes(data)


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for this user only.

    Raises:
        UntrustedFolderError: it is there, and others may write to it.
        OutputError: it cannot be made.
    """
    try:
        for each in reversed([folder, *folder.parents]):
            if not each.exists():
                each.mkdir(_FOLDER_MODE, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot make {folder}: {error}.") from error
    check_private_folder(folder)


def check_private_folder(folder: Path) -> None:
    """Whether only this user may write to a folder; one that does not exist yet will be so.

    Raises:
        UntrustedFolderError: others may.
    """
    try:
        reason = _distrust(folder.stat())
    except OSError:
        return  # that it cannot be used is found out by whoever uses it
    if reason:
        raise UntrustedFolderError(
            f"Nothing is kept in {folder}, whose content others could exchange: it {reason}. "
            "Remove it or correct that, or set TALKSPLAT_CACHE to a folder of your own."
        )


def _read(path: Path, sizes: range, *, private: bool) -> bytes:
    with open(path, "rb", opener=_open_at_once) as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError("expected a regular file")
        if private and (reason := _distrust(status)):
            raise PermissionError(f"it {reason}")
        if status.st_size not in sizes:
            expected = f"at most {sizes[-1]}" if len(sizes) > 1 else f"{sizes[0]}"
            raise OSError(f"expected {expected} bytes, found {status.st_size}")
        return stream.read(status.st_size)


def _open_at_once(path: str, flags: int) -> int:
    """A pipe would be waited for, until somebody writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _distrust(status: os.stat_result) -> str | None:
    """Why others may write there; None if they may not."""
    if not hasattr(os, "getuid"):
        return None
    if status.st_uid not in (os.getuid(), 0):
        return f"belongs to another user ({status.st_uid})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"can be written by others (mode {stat.S_IMODE(status.st_mode):o})"
    return None
