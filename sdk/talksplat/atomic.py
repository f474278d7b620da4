"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from talksplat.errors import OutputError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; move it there when the block ends without error.

    Raises:
        OutputError: the file cannot be written (disk full included); nothing is left behind.
    """
    staging = staging_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield staging
        staging.replace(path)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error}.") from error
    finally:
        if staging.exists():
            staging.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside ``path`` to fill; move it there when the block ends without error.

    Raises:
        OutputError: ``path`` exists, or cannot be written; nothing is left behind.
    """
    if path.exists():
        raise OutputError(f"{path} exists; choose another path or remove it.")
    staging = staging_path(path)
    try:
        staging.mkdir(parents=True)
        yield staging
        staging.rename(path)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error}.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def replace_folder(staging: Path, path: Path) -> None:
    """Move a finished folder to ``path``, in place of the folder that may be there.

    Raises:
        OutputError: it cannot be moved; what was there still is.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            staging.rename(path)
            return
        # A folder cannot be renamed over a full one: the old one steps aside first.
        old = staging_path(path)
        path.rename(old)
        try:
            staging.rename(path)
        except OSError:
            old.rename(path)
            raise
        shutil.rmtree(old)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error}.") from error


def staging_path(path: Path) -> Path:
    """A hidden name beside ``path`` that nothing else uses; known before anything is created,
    so that an interrupt at any moment finds what to remove."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically.

    Raises:
        OutputError: as :func:`atomic_file`.
    """
    with atomic_file(path) as staging:
        staging.write_bytes(data)
