"""Backends run graphs. They are imported only when asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass

from talksplat.backends.base import Array, Backend, Engine, Runner
from talksplat.errors import BackendError

__all__ = [
    "BACKENDS",
    "Array",
    "Backend",
    "Choice",
    "Engine",
    "Runner",
    "choose",
    "default_threads",
]

# What runs graphs, best first; a value says what to do when it cannot be used.
BACKENDS = {
    "tensorrt": "TensorRT engines are not built by this version; use backend='onnxruntime-cpu'.",
    "tensorrt-rtx": (
        "TensorRT-RTX engines are not run by this version; use backend='onnxruntime-cpu'."
    ),
    "onnxruntime-cuda": (
        "Running graphs on CUDA is not part of this version; use backend='onnxruntime-cpu'."
    ),
    "onnxruntime-cpu": "",
}


@dataclass(frozen=True)
class Choice:
    """A backend and the reason why it was chosen."""

    backend: Backend
    reason: str


def choose(name: str, threads: int) -> Choice:
    """The backend called ``name``, or the best one that this machine has.

    Args:
        name: one of :data:`BACKENDS`, or ``"auto"``.
        threads: CPU threads one graph may use.

    Raises:
        BackendError: unknown or not usable here; says what to do.
    """
    if name != "auto" and name not in BACKENDS:
        raise BackendError(
            f"Unknown backend {name!r}; expected 'auto' or one of {', '.join(BACKENDS)}."
        )
    if name not in ("auto", "onnxruntime-cpu"):
        raise BackendError(f"Backend {name!r} cannot be used: {BACKENDS[name]}")
    from talksplat.backends.onnxruntime_cpu import OnnxRuntimeCpu

    reason = "asked for" if name != "auto" else "the only backend of this version"
    return Choice(OnnxRuntimeCpu(threads), reason)


def default_threads() -> int:
    """CPU cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
