"""TensorRT-RTX: being written."""

from __future__ import annotations

from talksplat.backends.base import Backend
from talksplat.backends.options import Options
from talksplat.errors import BackendError


def open_backend(options: Options) -> Backend:
    """Not there yet."""
    raise BackendError("not run by this version; use backend='onnxruntime-cpu'.")
