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
from talksplat.errors import BackendError, DeviceLostError, NoDriverError

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
    "PassedOver",
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
class PassedOver:
    """Backends that cannot be used, for one and the same reason.

    Attributes:
        names: of the backends.
        reason: what is missing or broken, and what to do.
        expected: whether that is how it is on a machine without a GPU.
    """

    names: tuple[str, ...]
    reason: str
    expected: bool


@dataclass(frozen=True)
class Choice:
    """A backend and the reason why it was chosen.

    Attributes:
        backend: ready to load.
        reason: why it was chosen, and why better ones were not.
        passed_over: the better ones, by the reason why they cannot be used.
    """

    backend: Backend
    reason: str
    passed_over: tuple[PassedOver, ...] = ()


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
        DeviceLostError: the GPU was lost, and what used it is not closed yet.
        InputError: an environment variable is wrong.
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
    """The first that can be used; what the user got wrong, and a device that is lost, is no reason
    to go on to another."""
    unusable: dict[str, PassedOver] = {}  # by reason, which backends often share
    for name in BACKENDS:
        try:
            backend = open_backend(name, options)
        except DeviceLostError:
            raise
        except BackendError as error:
            reason, expected = str(error), isinstance(error, NoDriverError)
            others = unusable[reason].names if reason in unusable else ()
            unusable[reason] = PassedOver((*others, name), reason, expected)
        else:
            better = tuple(unusable.values())
            return Choice(backend, "; ".join(["best usable here", *map(_told, better)]), better)
    raise BackendError(f"No backend can be used here: {'; '.join(map(_told, unusable.values()))}")


def _told(passed: PassedOver) -> str:
    return f"not {', '.join(passed.names)}: {passed.reason}"


def default_threads() -> int:
    """CPU cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
