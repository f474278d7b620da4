"""What works on this device at all: each question asked in a process of its own.

A library that does not know a device may say so, raise, or take the process with it; all three are
answers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.result import Findings, MissingError, Table
from benchmarks.gpu.settings import ROOT, Settings

SIZE = 64
"""Of the probed graph: a vector of so many numbers, through two layers."""


@dataclass(frozen=True)
class Answer:
    """One question.

    Attributes:
        question: as asked.
        works: None where something it needs is not installed.
        found: what was seen, or what was said.
        seconds: that it took.
    """

    question: str
    works: bool | None
    found: str
    seconds: float


@dataclass(frozen=True)
class Question:
    """What is asked; ``ask`` returns what was seen, or raises.

    Attributes:
        limit_s: seconds after which the answer is no.
    """

    text: str
    ask: Callable[[], str]
    limit_s: float = 60.0


def measure(settings: Settings) -> Findings:
    """Ask everything."""
    answers = [ask(name) for name in QUESTIONS]
    verdicts = {True: "yes", False: "no", None: "not installed"}
    rows = [(one.question, verdicts[one.works], one.found, f"{one.seconds:.1f}") for one in answers]
    table = Table("Asked in processes of their own", ("", "", "", "seconds"), rows, text_columns=3)
    return Findings([table], {"answers": [asdict(one) for one in answers]})


def ask(name: str) -> Answer:
    """Ask one question of :data:`QUESTIONS` in a new process."""
    question = QUESTIONS[name]
    begin = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.gpu.probes", name]
    try:
        process = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=question.limit_s,
        )
    except subprocess.TimeoutExpired:
        found = f"no answer within {question.limit_s:.0f} s"
        return Answer(question.text, False, found, time.perf_counter() - begin)
    seconds = time.perf_counter() - begin
    for line in reversed(process.stdout.splitlines()):
        if line.startswith(MARK):
            said = json.loads(line.removeprefix(MARK))
            return Answer(question.text, said["works"], said["found"], seconds)
    end = " / ".join(process.stderr.strip().splitlines()[-3:])
    found = f"its process ended with {process.returncode}: {end}"
    return Answer(question.text, False, found, seconds)


MARK = "answer: "


def answer(name: str) -> dict[str, Any]:
    """Ask here and now."""
    try:
        return {"works": True, "found": QUESTIONS[name].ask()}
    except (MissingError, ModuleNotFoundError) as error:
        return {"works": None, "found": str(error)}
    except Exception as error:  # whatever it says is the answer
        return {"works": False, "found": f"{type(error).__name__}: {error}"}


def nvrtc_compiles() -> str:
    """Our kernels, for this very device, loaded into it."""
    from talksplat.cuda import open_device
    from talksplat.cuda.compile import architecture_of, compile_kernels
    from talksplat.cuda.kernels import KernelModule

    with open_device() as device:
        architecture = architecture_of(device.compute_capability)
        sizes = []
        for kernels in ("gaussian_rasterizer", "compositing"):
            sizes.append(len(compile_kernels(kernels, architecture)))  # type: ignore[arg-type]
            KernelModule(device, kernels).close()  # type: ignore[arg-type]
        return f"for {architecture.name}, {sizes[0]:,} and {sizes[1]:,} bytes, loaded"


def nvcc_compiles() -> str:
    """The same kernels, as the libraries for TensorRT and ONNX Runtime carry them."""
    from benchmarks.gpu.machine import find_nvcc, nvcc_release
    from benchmarks.gpu.sanitizer import build
    from talksplat.cuda import open_device

    nvcc = find_nvcc()
    if nvcc is None:
        raise MissingError("nvcc was not found; install the CUDA toolkit or set CUDA_HOME")
    with open_device() as device, tempfile.TemporaryDirectory() as folder:
        architecture = "sm_{}{}".format(*device.compute_capability)
        build(nvcc, architecture, Path(folder) / "program")
    return f"nvcc {nvcc_release()} for {architecture}"


def gsplat_imports() -> str:
    """gsplat's CUDA part, imported or built by itself on import."""
    from benchmarks.gpu.gsplat_peer import GsplatDrawing, gsplat_version
    from benchmarks.rasterizer.scenes import head

    version = gsplat_version()
    colors, _ = GsplatDrawing(head(1000, 64, 64), packed=False).draw()
    return f"gsplat {version}, draws a picture of {tuple(colors.shape)}"


def tensorrt_runs(flavour_name: str, *, ahead_of_time: bool = False) -> str:
    """A small engine: built, deserialised, run, compared with NumPy.

    Args:
        flavour_name: ``"tensorrt"`` or ``"tensorrt-rtx"``.
        ahead_of_time: as on a machine without a GPU, for all devices it can name.
    """
    from talksplat.cuda import DeviceArray, Stream, open_device
    from talksplat.engines.build import Settings as BuildSettings
    from talksplat.engines.build import build_engine
    from talksplat.engines.flavours import open_flavour
    from talksplat.errors import BackendError

    try:
        flavour = open_flavour(flavour_name)
    except BackendError as error:
        raise MissingError(str(error)) from error
    trt = flavour.module
    model, weights = small_graph()
    with open_device() as device, Stream(device) as stream:
        target = flavour.targets([]) if ahead_of_time else flavour.target(device, False)
        settings = BuildSettings(use_device=device.current)
        built = build_engine(flavour, "probe", model, target, settings)
        with device.current():
            logger = trt.Logger(trt.Logger.ERROR)
            runtime = trt.Runtime(logger)  # outlives the engine
            engine = runtime.deserialize_cuda_engine(built.data)
            if engine is None:
                raise BackendError(f"{target.devices}: built, but not deserialised here")
            context = engine.create_execution_context()
            if context is None:
                raise BackendError(f"{target.devices}: deserialised, but no context can be made")
            given = np.random.default_rng(0).normal(size=(1, SIZE)).astype(np.float32)
            x = stream.to_device(given)
            y = DeviceArray.empty(device, (1, SIZE), np.float32)
            context.set_tensor_address("x", x.pointer)
            context.set_tensor_address("y", y.pointer)
            if not context.execute_async_v3(stream.handle):
                raise BackendError(f"{target.devices}: deserialised, but refuses to run")
            stream.synchronize()
            found = y.numpy()
    expected = np.maximum(given @ weights[0], 0) @ weights[1]
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error < 1e-3:
        raise BackendError(f"{target.devices}: runs, but the answer is wrong by {error:.1e}")
    return (
        f"{flavour_name} {flavour.version_text}, built for {target.devices}: deserialised and run, "
        f"relative error {error:.1e}"
    )


def small_graph() -> tuple[bytes, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Two products with a ReLU between them, as ONNX, and their matrices."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, SIZE, SIZE)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "a"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "b"], ["y"]),
        ],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, SIZE])],
        [numpy_helper.from_array(first, "a"), numpy_helper.from_array(second, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString(), (first, second)


def onnxruntime_runs() -> str:
    """ONNX Runtime's CUDA provider on the same small graph."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise MissingError(
            f"onnxruntime {onnxruntime.__version__} has no CUDA provider; install onnxruntime-gpu"
        )
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    model, weights = small_graph()
    session = onnxruntime.InferenceSession(model, providers=["CUDAExecutionProvider"])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError("it fell back to the CPU; its log says why")
    given = np.random.default_rng(0).normal(size=(1, SIZE)).astype(np.float32)
    (found,) = session.run(["y"], {"x": given})
    expected = np.maximum(given @ weights[0], 0) @ weights[1]
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error < 1e-2:  # the provider may use TF32
        raise RuntimeError(f"the answer is wrong by {error:.1e}")
    return f"onnxruntime {onnxruntime.__version__}, relative error {error:.1e}"


QUESTIONS = {
    "nvrtc": Question("Do our kernels compile through NVRTC and load?", nvrtc_compiles),
    "nvcc": Question("Do our kernels compile through nvcc?", nvcc_compiles, 180),
    "gsplat": Question("Does gsplat's CUDA part import or build?", gsplat_imports, 900),
    "tensorrt-rtx": Question(
        "Do TensorRT-RTX engines built here run here?", lambda: tensorrt_runs("tensorrt-rtx"), 120
    ),
    "tensorrt-rtx ahead": Question(
        "Do TensorRT-RTX engines built for all its devices, as without a GPU, run here?",
        lambda: tensorrt_runs("tensorrt-rtx", ahead_of_time=True),
        120,
    ),
    "tensorrt": Question("Do TensorRT engines run here?", lambda: tensorrt_runs("tensorrt"), 180),
    "onnxruntime-cuda": Question("Does ONNX Runtime's CUDA provider run here?", onnxruntime_runs),
}


def main() -> None:
    """Answer one question, as :func:`ask` wants it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.probes")
    parser.add_argument("question", choices=QUESTIONS)
    print(MARK + json.dumps(answer(parser.parse_args().question)))


if __name__ == "__main__":
    main()
