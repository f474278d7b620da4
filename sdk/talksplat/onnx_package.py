"""The package ``onnx``, which only changing a graph needs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from talksplat.errors import BackendError

_PARTS = ("checker", "helper", "numpy_helper", "shape_inference")


def import_onnx(purpose: str) -> Any:
    """The package, with the parts that are used.

    Args:
        purpose: what it is needed for, at the beginning of a sentence.

    Raises:
        BackendError: it is not installed.
    """
    try:
        for part in _PARTS:
            import_module(f"onnx.{part}")
        return import_module("onnx")
    except ImportError as error:
        raise BackendError(
            f"{purpose} needs the package onnx, which cannot be imported: {error}. Install it "
            "with: pip install onnx (it is part of talksplat's extras gpu, rtx and export)."
        ) from error
