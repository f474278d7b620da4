"""Backends run graphs and make frames. They are imported only when asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module

from talksplat.backends.base import (
    Array,
    Backend,
    Engine,
    FrameArray,
    FrameEngine,
    FrameMemory,
    FrameRunner,
    Picture,
    Runner,
)
from talksplat.backends.options import Options, Precision, Progress
from talksplat.errors import BackendError

__all__ = [
    "BACKENDS",
    "Array",
    "Backend",
    "Choice",
    "Engine",
    "FrameArray",
    "FrameEngine",
    "FrameMemory",
    "FrameRunner",
    "Options",
    "Picture",
    "Precision",
    "Progress",
    "Runner",
    "choose",
    "default_threads",
    "open_backend",
]

BACKENDS = {
    "tensorrt": "talksplat.backends.tensorrt",
    "tensorrt-rtx": "talksplat.backends.tensorrt_rtx",
    "onnxruntime-cuda": "talksplat.backends.onnxruntime_cuda",
    "onnxruntime-cpu": "talksplat.backends.onnxruntime_cpu",
}
"""What runs graphs, best first, and the module whose ``open_backend(options)`` opens it."""


@dataclass(frozen=True)
class Choice:
    """A backend and the reason why it was chosen."""

    backend: Backend
    reason: str


def choose(
    name: str,
    threads: int,
    precision: Precision = "fp32",
    progress: Progress | None = None,
    stage_times: bool = False,
) -> Choice:
    """The backend called ``name``, or the best one that this machine has.

    Args:
        name: one of :data:`BACKENDS`, or ``"auto"``, which tries them in their order.
        threads: see :class:`Options`, also for the rest.
        precision: of engines.
        progress: told of engines being built.
        stage_times: have stages timed on the device.

    Raises:
        BackendError: unknown or not usable here; says what to do.
    """
    options = Options(threads, precision, progress, stage_times)
    if name == "auto":
        return _best(options)
    return Choice(open_backend(name, options), "asked for")


def open_backend(name: str, options: Options) -> Backend:
    """The backend called ``name``.

    Raises:
        BackendError: unknown or not usable here; says what to do.
    """
    if name not in BACKENDS:
        raise BackendError(
            f"Unknown backend {name!r}; expected 'auto' or one of {', '.join(BACKENDS)}."
        )
    backend: Backend = import_module(BACKENDS[name]).open_backend(options)
    return backend


def _best(options: Options) -> Choice:
    unusable: dict[str, list[str]] = {}  # reason -> backends, which often share one
    for name in BACKENDS:
        try:
            backend = open_backend(name, options)
        except BackendError as error:
            unusable.setdefault(str(error), []).append(name)
        else:
            better = _reasons(unusable)
            return Choice(backend, "best usable here" + (f"; {better}" if better else ""))
    raise BackendError(f"No backend can be used here: {_reasons(unusable)}")


def _reasons(unusable: dict[str, list[str]]) -> str:
    return "; ".join(f"not {', '.join(names)}: {reason}" for reason, names in unusable.items())


def default_threads() -> int:
    """CPU cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
