"""The door from the command line to the lab side, which needs torch."""

from __future__ import annotations

from importlib import import_module, util
from types import ModuleType

from talksplat.errors import BackendError

_EXTRA = ("torch", "onnx", "onnxscript", "talksplat_export")


def import_lab(module: str) -> ModuleType:
    """A module of ``talksplat_export``.

    Raises:
        BackendError: the export extra is not installed.
    """
    missing = [name for name in _EXTRA if not util.find_spec(name)]
    if missing:
        raise BackendError(
            f"This needs the export extra; not installed: {', '.join(missing)}. "
            "Install it with: pip install 'talksplat[export]'"
        )
    return import_module(f"talksplat_export.{module}")
