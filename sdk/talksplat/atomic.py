"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent
        )
        os.close(descriptor)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error}.") from error
    staging = Path(name)
    try:
        yield staging
        staging.chmod(0o644)  # mkstemp makes it private
        staging.replace(path)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error}.") from error
    finally:
        staging.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside ``path`` to fill; move it there when the block ends without error.

    Raises:
        OutputError: ``path`` exists, or cannot be written; nothing is left behind.
    """
    if path.exists():
        raise OutputError(f"{path} exists; choose another path or remove it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error}.") from error
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp makes it private
        staging.rename(path)
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error}.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically.

    Raises:
        OutputError: as :func:`atomic_file`.
    """
    with atomic_file(path) as staging:
        staging.write_bytes(data)
