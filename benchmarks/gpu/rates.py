"""What this device reaches: copies, multiply-adds, products of matrices, empty launches."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.device_timing import StreamStopwatch
from benchmarks.gpu.floors import Rates
from benchmarks.gpu.result import Table
from benchmarks.gpu.timing import Case, Stopwatch, interleaved
from talksplat.cuda import Device, DeviceArray, Stream
from talksplat.cuda.bindings import load_nvrtc
from talksplat.cuda.compile import architecture_of
from talksplat.cuda.kernels import Kernel
from talksplat.errors import BackendError

SOURCE = Path(__file__).with_name("rates.cu")

CHAINS, UNROLL, PASSES = 8, 64, 256  # of rates.cu
THREADS, BLOCKS = 256, 132 * 64
COPIED = 2**30
LAUNCHES = 100
MATRIX = 8192


def measure_rates(device: Device) -> Rates:
    """The best of several, a few seconds in all.

    Raises:
        BackendError: the kernels cannot be compiled, or there is not enough memory.
    """
    with ExitStack() as stack:
        stream = stack.enter_context(Stream(device))
        kernels = _load(device, ("multiply_adds", "copy", "nothing"))
        stopwatch = stack.enter_context(StreamStopwatch(device, stream))
        size = min(COPIED, device.free_memory() // 4 // 16 * 16)
        source = DeviceArray.empty(device, (size,), np.uint8)
        target = DeviceArray.empty(device, (size,), np.uint8)
        # Not zeros: some memories and matrix units are faster with them.
        stream.upload(_noise(size), source)
        values = stream.to_device(np.array([0.999, 0.001, 0.0], np.float32))

        def copy() -> None:
            arguments = struct.pack("PPq", source.pointer, target.pointer, size // 16)
            kernels["copy"].launch(stream, (BLOCKS, 1, 1), (THREADS, 1, 1), arguments)

        def multiply_adds() -> None:
            arguments = struct.pack("Pq", values.pointer, PASSES)
            kernels["multiply_adds"].launch(stream, (BLOCKS, 1, 1), (THREADS, 1, 1), arguments)

        with stream.capture() as graph:
            for _ in range(LAUNCHES):
                kernels["nothing"].launch(stream, (1, 1, 1), (32, 1, 1), struct.pack("q", 0))
        stack.callback(graph.close)
        copied = 2 * size / _best(copy, stopwatch)
        by_driver = 2 * size / _best(lambda: stream.copy(source, target), stopwatch)
        flops = 2 * CHAINS * UNROLL * PASSES * THREADS * BLOCKS
        return Rates(
            copy=max(copied, by_driver),
            multiply_add=flops / _best(multiply_adds, stopwatch),
            matrix=_matrix_rate(),
            launch=_best(lambda: graph.launch(stream), stopwatch) / LAUNCHES,
        )


def table(rates: Rates) -> Table:
    """The rates as they are shown."""
    matrix = "no torch with CUDA" if rates.matrix is None else f"{rates.matrix / 1e12:.0f} TFLOP/s"
    return Table(
        "What this device reached in this run",
        ("rate", "measured"),
        [
            ("large copy, bytes read and written", f"{rates.copy / 1e9:,.0f} GB/s"),
            ("float32 multiply-adds", f"{rates.multiply_add / 1e12:.1f} TFLOP/s"),
            (f"float16 product of matrices, {MATRIX} × {MATRIX}, by torch", matrix),
            ("empty kernel in a replayed graph", f"{rates.launch * 1e6:.2f} µs"),
        ],
    )


def _noise(size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Bytes that do not compress; a short pattern repeated, which is quick to make."""
    pattern = np.frombuffer(np.random.default_rng(0).bytes(2**20 - 1), np.uint8)
    return np.resize(pattern, size)


def _best(call: Callable[[], None], stopwatch: Stopwatch) -> float:
    """Seconds of the quickest of some calls."""
    times = interleaved({"call": Case(call, stopwatch)}, rounds=3, calls=5)
    return min(times["call"].device) / 1e3


def _matrix_rate() -> float | None:
    """Operations per second of torch's float16 product of matrices; None without torch on CUDA."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    from benchmarks.gpu.device_timing import TorchStopwatch

    a, b = (torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.float16) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * MATRIX**3 / _best(lambda: torch.mm(a, b, out=out), TorchStopwatch())


def _load(device: Device, names: tuple[str, ...]) -> dict[str, Kernel]:
    image = compile_source(device, SOURCE)
    module = device.call("cuModuleLoadData", image)
    return {
        name: Kernel(device, device.call("cuModuleGetFunction", module, name.encode()))
        for name in names
    }


def compile_source(device: Device, source: Path) -> bytes:
    """A cubin or PTX of a source that includes nothing.

    Raises:
        BackendError: NVRTC is missing or refuses it.
    """
    return compile_for(architecture_of(device.compute_capability).name, source)


def compile_for(architecture: str, source: Path) -> bytes:
    """As :func:`compile_source`, for an architecture such as ``sm_89``."""
    nvrtc = load_nvrtc()
    result, program = nvrtc.nvrtcCreateProgram(
        source.read_bytes(), source.name.encode(), 0, None, None
    )
    option = f"--gpu-architecture={architecture}".encode()
    (result,) = nvrtc.nvrtcCompileProgram(program, 1, [option])
    if result.value != 0:
        _, size = nvrtc.nvrtcGetProgramLogSize(program)
        log = bytearray(size)
        nvrtc.nvrtcGetProgramLog(program, log)
        raise BackendError(f"NVRTC refuses {source.name}: {log.decode(errors='replace')}")
    ptx = architecture.startswith("compute_")
    _, size = nvrtc.nvrtcGetPTXSize(program) if ptx else nvrtc.nvrtcGetCUBINSize(program)
    image = bytearray(size)
    (nvrtc.nvrtcGetPTX if ptx else nvrtc.nvrtcGetCUBIN)(program, image)
    nvrtc.nvrtcDestroyProgram(program)
    return bytes(image)
