"""What a field installation consists of, and how large it is."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import talksplat

# The distributions that talksplat needs at run time.
REQUIREMENTS = ("numpy", "onnxruntime", "safetensors", "soundfile", "av", "rich")


def installed_size() -> int:
    """Bytes on disk of talksplat and of everything a field installation needs besides Python."""
    package = Path(talksplat.__file__).parent
    own = sum(
        file.stat().st_size
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    )
    return own + sum(
        path.stat().st_size
        for name in sorted(_closure(REQUIREMENTS))
        for file in metadata.distribution(name).files or ()
        if (path := Path(str(file.locate()))).is_file() and path.suffix != ".pyc"
    )


def _closure(names: tuple[str, ...]) -> set[str]:
    """Distributions required by ``names`` and by what they require, extras left out."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        for requirement in metadata.requires(name) or ():
            needed = re.match(r"[A-Za-z0-9._-]+", requirement)
            if needed and "extra ==" not in requirement and _is_installed(needed[0]):
                pending.append(re.sub(r"[-_.]+", "-", needed[0]).lower())
    return found


def _is_installed(name: str) -> bool:
    """A requirement for another platform or Python is not."""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
