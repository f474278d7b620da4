"""Checks of an installation, each with what to do about it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata, util
from typing import Literal

from talksplat.backends import BACKENDS, Options, default_threads, open_backend
from talksplat.errors import BackendError
from talksplat.installation import REQUIREMENTS


@dataclass(frozen=True)
class Check:
    """One line of ``talksplat doctor``; ``fix`` is empty unless something is to be done."""

    name: str
    status: Literal["ok", "absent", "broken"]
    found: str
    fix: str = ""


def examine() -> Iterator[Check]:
    """Check everything a bundle needs to run here; ``broken`` checks prevent it."""
    yield _python()
    for name in REQUIREMENTS:
        version = partial(metadata.version, name)
        yield _attempt(name, version, f"pip install --upgrade {name}")
    yield _attempt("rasterizer", _rasterizer, "pip install --force-reinstall talksplat")
    yield _attempt("ONNX Runtime", _onnxruntime, "pip install --force-reinstall onnxruntime")
    yield _attempt("video encoders", _encoders, "pip install --force-reinstall av")
    yield Check("processor", "ok", f"{platform.machine()}, {default_threads()} cores to use")
    for backend in BACKENDS:
        yield _backend(backend)
    yield _export_extra()


def _backend(name: str) -> Check:
    try:
        open_backend(name, Options(threads=1)).close()
    except BackendError as error:
        return Check(f"backend {name}", "absent", str(error))
    return Check(f"backend {name}", "ok", "usable")


def _attempt(name: str, examine_part: Callable[[], str], fix: str) -> Check:
    try:
        return Check(name, "ok", examine_part())
    except Exception as error:  # whatever a broken installation raises is the finding
        return Check(name, "broken", f"{type(error).__name__}: {error}", fix)


def _python() -> Check:
    status: Literal["ok", "broken"] = "ok" if sys.version_info >= (3, 11) else "broken"
    fix = "" if status == "ok" else "install Python 3.11 or newer"
    return Check("Python", status, platform.python_version(), fix)


def _rasterizer() -> str:
    import numpy as np

    from talksplat.rasterization import instruction_set, rasterize

    one = np.ones(1, np.float32)
    colors, _ = rasterize(
        [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0, 0.0]], [[0.1, 0.1, 0.1]], one, [[1.0, 1.0, 1.0]],
        np.eye(4)[None], [[[16.0, 0.0, 8.0], [0.0, 16.0, 8.0], [0.0, 0.0, 1.0]]], 16, 16,
    )  # fmt: skip
    if not 0.9 < float(colors[0, 8, 8, 0]) <= 1.0:
        raise RuntimeError(f"a white Gaussian was drawn with brightness {colors[0, 8, 8, 0]:.3f}")
    return f"draws, {instruction_set()} instructions"


def _onnxruntime() -> str:
    onnxruntime = import_module("onnxruntime")
    return ", ".join(onnxruntime.get_available_providers())


def _encoders() -> str:
    av = import_module("av")
    missing = {"libx264", "aac", "png"} - av.codecs_available
    if missing:
        raise RuntimeError(f"FFmpeg inside PyAV lacks {', '.join(sorted(missing))}")
    return "H.264, AAC, PNG"


def _export_extra() -> Check:
    missing = [name for name in ("torch", "onnx", "onnxscript") if not util.find_spec(name)]
    if missing:
        return Check(
            "export extra",
            "absent",
            f"no {', '.join(missing)}; needed for export and verify only",
            "pip install 'talksplat[export]'",
        )
    return Check("export extra", "ok", f"torch {metadata.version('torch')}")
