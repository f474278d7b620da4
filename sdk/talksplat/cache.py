"""Where what is made once for this machine is kept: engines, compiled kernels, timings."""

from __future__ import annotations

import os
from pathlib import Path

from talksplat.environment import named_path
from talksplat.errors import InputError


def cache_folder() -> Path:
    """``$TALKSPLAT_CACHE``, or else ``$XDG_CACHE_HOME/talksplat``, or else ``~/.cache/talksplat``.

    Everything in it can be made again, so it may be deleted at any time. It need not exist yet:
    whoever writes there creates it.

    Raises:
        InputError: ``TALKSPLAT_CACHE`` is no absolute path, or there is no home folder.
    """
    if own := named_path("TALKSPLAT_CACHE"):
        return own
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if shared.is_absolute():  # the XDG specification has relative paths ignored
        return shared / "talksplat"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise InputError(
            "Nowhere to keep engines and compiled kernels: this user has no home folder. Set "
            "TALKSPLAT_CACHE to a folder that can be written."
        ) from error
    return home / ".cache" / "talksplat"
