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
from talksplat.cuda_version import cuda_version_text
from talksplat.errors import BackendError, TalksplatError
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
    told: set[str] = set()
    for name, examine_part in _GPU_PARTS.items():
        yield _optional(name, examine_part, told)
    for backend in BACKENDS:
        yield _optional(f"backend {backend}", partial(_backend, backend), told)
    yield _export_extra()


def _optional(name: str, examine_part: Callable[[], str], told: set[str]) -> Check:
    """Something that may be missing; the fix is what its error says, unless it was told before.

    What the user got wrong is broken: avatars are not loaded before it is put right.
    """
    status: Literal["absent", "broken"]
    try:
        return Check(name, "ok", examine_part())
    except BackendError as error:
        status, reason = "absent", str(error)
    except TalksplatError as error:
        status, reason = "broken", str(error)
    if reason in told:
        return Check(name, status, "cannot be used, as said above")
    told.add(reason)
    return Check(name, status, "cannot be used", reason)


def _driver() -> str:
    from talksplat.cuda.device import driver_version

    return f"knows CUDA {cuda_version_text(driver_version())}"


def _gpu() -> str:
    from talksplat.cuda import open_device

    with open_device() as device:
        major, minor = device.compute_capability
        memory = device.total_memory / 2**30
        return f"{device.name}, compute capability {major}.{minor}, {memory:.0f} GiB"


def _compiler() -> str:
    from talksplat.cuda.bindings import load_driver, load_nvrtc

    bindings = cuda_version_text(load_driver().CUDA_VERSION)
    _, major, minor = load_nvrtc().nvrtcVersion()
    return f"bindings for CUDA {bindings}, NVRTC {major}.{minor}"


def _flavour(name: str) -> str:
    from talksplat.engines.flavours import open_flavour

    return open_flavour(name).version_text


def _plugin() -> str:
    from talksplat.engines.flavours import open_flavour
    from talksplat.plugin_library import tensorrt_plugin

    plugin = tensorrt_plugin()
    plugin.check(open_flavour("tensorrt").version_text)
    return f"{plugin.path.name} for TensorRT {plugin.tensorrt[0]}, {' '.join(plugin.architectures)}"


def _onnxruntime_cuda() -> str:
    from talksplat.backends.onnxruntime_cuda import check_installed

    return check_installed()


def _operator() -> str:
    from talksplat.custom_op import custom_op_library

    return custom_op_library().name


def _backend(name: str) -> str:
    open_backend(name, Options(threads=1)).close()
    return "usable"


_GPU_PARTS: dict[str, Callable[[], str]] = {
    "NVIDIA driver": _driver,
    "GPU": _gpu,
    "CUDA for Python": _compiler,
    "TensorRT": partial(_flavour, "tensorrt"),
    "TensorRT plugin": _plugin,
    "TensorRT for RTX": partial(_flavour, "tensorrt-rtx"),
    "ONNX Runtime on CUDA": _onnxruntime_cuda,
    "ONNX Runtime operator": _operator,
}
"""What is needed on a GPU only, and may be missing elsewhere."""


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
