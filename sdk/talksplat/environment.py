"""Paths that environment variables name."""

from __future__ import annotations

import os
from pathlib import Path

from talksplat.errors import InputError


def named_path(variable: str) -> Path | None:
    """The path in an environment variable, where ``~`` is the home folder; None without one.

    Raises:
        InputError: it is relative, and so would be another place after every ``cd``.
    """
    text = os.environ.get(variable)
    if not text:
        return None
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # there is no home folder, and "~" is no absolute path
        path = Path(text)
    if not path.is_absolute():
        raise InputError(f"{variable}: expected an absolute path, found {text!r}.")
    return path
