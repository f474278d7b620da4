"""CUDA kernels compiled for the host: the very .cu files, every thread a fiber."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
PLUGINS = Path(__file__).parents[4] / "plugins"
GAUSSIAN_KERNELS = PLUGINS / "gaussian_rasterizer" / "cuda" / "kernels.cu"

# Exact comparisons with the host's arithmetic need contraction to be the source's choice.
FLAGS = (
    "-std=c++17",
    "-O2",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
)


def compile_kernels(
    output: Path, kernels: Iterable[Path] = (GAUSSIAN_KERNELS,), flags: Sequence[str] = ()
) -> Path:
    """A shared library of ``kernels`` and of what runs them, written to ``output``.

    Every kernel is ``extern "C" __global__`` and takes one struct, by value, of 17 to 4096 bytes;
    its shared memory is static. Nothing outside this header is at hand to it.
    """
    objects = []
    for place, source in enumerate((HERE / "cuda_on_host.cpp", *kernels)):
        built = output.with_name(f"{output.stem}_{place}.o")
        language = () if source.suffix == ".cpp" else ("-x", "c++")
        header = () if source.suffix == ".cpp" else ("-include", str(HERE / "cuda_on_host.h"))
        _run(
            "c++", *FLAGS, *flags, "-fPIC", *header, *language, "-c", str(source), "-o", str(built)
        )
        objects.append(str(built))
    _run("c++", *flags, "-shared", *objects, "-ldl", "-o", str(output))
    return output


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, " ".join(command) + "\n" + done.stderr


class HostLibrary:
    """Launches kernels of a library that :func:`compile_kernels` made."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.talksplat_host_error.restype = ctypes.c_char_p
        self._library.talksplat_host_seed.argtypes = [ctypes.c_uint64]

    def launch(
        self,
        kernel: str,
        grid: Sequence[int],
        block: Sequence[int],
        shared_bytes: int,
        arguments: bytes,
    ) -> None:
        """Run ``kernel`` to its end.

        Raises:
            RuntimeError: no such kernel, sizes a device would refuse, or threads that wait for
                each other forever.
        """
        failed = self._library.talksplat_host_launch(
            kernel.encode(),
            (ctypes.c_uint * 3)(*grid),
            (ctypes.c_uint * 3)(*block),
            ctypes.c_uint(shared_bytes),
            arguments,
            ctypes.c_size_t(len(arguments)),
        )
        if failed:
            raise RuntimeError(f"{kernel}: {self._library.talksplat_host_error().decode()}")

    def seed(self, seed: int) -> None:
        """Draw the order of blocks and threads from ``seed`` from here on."""
        self._library.talksplat_host_seed(seed)
