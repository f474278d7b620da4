"""What the machine could do at best: the cost of a blending step, of arithmetic and of memory."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

KERNEL = Path(__file__).with_name("blend_step.cpp")


@dataclass(frozen=True)
class Limits:
    """Best of many short measurements, so that a busy machine disturbs them little."""

    step_4x4_ns: float | None
    """One Gaussian into 16 pixels, three channels, AVX-512; None without AVX-512."""
    step_4x2_ns: float | None
    """One Gaussian into 8 pixels, three channels, AVX2; None without AVX2."""
    multiply_adds_per_ns: float | None
    """float32 multiply-adds of one core; None without AVX2."""
    copied_bytes_per_ns: float
    """Bytes read and written by a large copy with the given threads."""

    def best_step_ns(self, instructions: str) -> float | None:
        """Cost of a step in the block shape that suits ``instructions``."""
        return {"avx512": self.step_4x4_ns, "avx2": self.step_4x2_ns}.get(instructions)


def measure_limits(threads: int) -> Limits:
    """Compile ``blend_step.cpp`` with the machine's C++ compiler and run it; about two seconds."""
    step_4x4 = step_4x2 = multiply_adds = None
    flags = processor_flags()
    if "avx2" in flags and "fma" in flags:
        with tempfile.TemporaryDirectory() as folder:
            library = ctypes.CDLL(str(_compile(Path(folder))))
            step_4x2 = min(_repeat(library.blend_step_avx2, 300))
            multiply_adds = max(_repeat(library.multiply_adds_per_nanosecond, 30_000))
            if "avx512bw" in flags:
                step_4x4 = min(_repeat(library.blend_step_avx512, 300))
    return Limits(step_4x4, step_4x2, multiply_adds, _copied_bytes_per_ns(threads))


def processor_flags() -> set[str]:
    """Instruction sets the kernel reports; empty where it does not."""
    lines = _cpuinfo()
    return set(next((line.split(":")[1].split() for line in lines if line.startswith("flags")), []))


def describe() -> dict[str, str | int | float]:
    """Enough to judge a figure by: processor, cores, load, versions."""
    models = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count() or 1,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": load(),
    }


def load() -> float:
    """Processes that ran or waited over the last minute, this one included."""
    return os.getloadavg()[0]


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _compile(folder: Path) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("clang++")
    if compiler is None:
        raise SystemExit("the floor is measured by a C++ kernel: install a compiler or set CXX")
    library = folder / "blend_step.so"
    command = [
        compiler,
        "-std=c++20",
        "-O3",
        "-w",
        "-shared",
        "-fPIC",
        "-o",
        str(library),
        str(KERNEL),
    ]
    subprocess.run(command, check=True)
    return library


def _repeat(function: ctypes._NamedFuncPointer, passes: int, times: int = 600) -> list[float]:
    function.restype = ctypes.c_double
    function.argtypes = [ctypes.c_int64, ctypes.POINTER(ctypes.c_float)]
    sink = ctypes.c_float()
    return [function(passes, sink) for _ in range(times)]


def _copied_bytes_per_ns(threads: int) -> float:
    source = torch.ones(16 * 2**20)  # 64 MiB, beyond the caches
    target = torch.empty_like(source)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    times = []
    for _ in range(20):
        start = time.perf_counter_ns()
        target.copy_(source)
        times.append(time.perf_counter_ns() - start)
    torch.set_num_threads(before)
    return 2 * source.nbytes / min(times)
