"""The kernels through NVRTC, and what each takes of a multiprocessor.

``python -m tests.plugins.cuda.nvrtc`` prints it for every architecture; no GPU is needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cuda.bindings import nvrtc
from tests.plugins.cuda.host.library import GAUSSIAN_KERNELS

from talksplat.cuda import compile as cuda_compile

# What users' kernels are compiled with.
OPTIONS = cuda_compile._OPTIONS["gaussian_rasterizer"]
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)


@dataclass(frozen=True)
class Multiprocessor:
    """Of one compute capability: CUDA C++ Programming Guide, technical specifications."""

    warps: int
    shared_bytes: int
    reserved_shared_bytes: int  # of each block
    registers: int = 65536


MULTIPROCESSORS = {
    75: Multiprocessor(32, 64 << 10, 0),
    80: Multiprocessor(64, 164 << 10, 1024),
    86: Multiprocessor(48, 100 << 10, 1024),
    89: Multiprocessor(48, 100 << 10, 1024),
    90: Multiprocessor(64, 228 << 10, 1024),
    100: Multiprocessor(64, 228 << 10, 1024),
    120: Multiprocessor(48, 100 << 10, 1024),
}


@dataclass(frozen=True)
class Resources:
    """What ptxas says of one kernel."""

    stack_bytes: int
    spill_bytes: int
    registers: int
    shared_bytes: int

    def resident_warps(self, architecture: int, threads: int) -> int:
        """Of blocks of ``threads``, on one multiprocessor."""
        has = MULTIPROCESSORS[architecture]
        warps = threads // 32
        of_a_warp = -(-self.registers * 32 // 256) * 256
        shared = self.shared_bytes + has.reserved_shared_bytes
        return warps * min(
            has.warps // warps,
            has.registers // (of_a_warp * warps),
            has.shared_bytes // max(shared, 1),
        )


def compile_for(architecture: int) -> dict[str, Resources]:
    """Machine code for ``architecture``; the kernels by name.

    Raises:
        AssertionError: NVRTC refuses the sources; its log is the message.
    """
    source = GAUSSIAN_KERNELS
    error, program = nvrtc.nvrtcCreateProgram(
        source.read_bytes(), str(source).encode(), 0, None, None
    )
    assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS
    options = [*OPTIONS, f"--gpu-architecture=sm_{architecture}", "--ptxas-options=--verbose"]
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = bytearray(size)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(program)
    text = log.decode(errors="replace")
    assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS, text
    return {
        name: Resources(int(stack), int(stores) + int(loads), int(registers), int(shared or 0))
        for name, stack, stores, loads, registers, shared in re.findall(
            r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, "
            r"(\d+) bytes spill stores, (\d+) bytes spill loads.*?"
            r"Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?",
            text,
            re.DOTALL,
        )
    }


def main() -> None:
    """A table: registers, shared memory, resident warps."""
    print("kernel | " + " | ".join(f"sm_{number}" for number in ARCHITECTURES))
    tables = {number: compile_for(number) for number in ARCHITECTURES}
    for name in sorted(tables[ARCHITECTURES[0]]):
        threads = 1024 if name.endswith("scan") else 256
        cells = []
        for number in ARCHITECTURES:
            found = tables[number][name]
            resident = found.resident_warps(number, threads)
            cells.append(
                f"{found.registers} r, {found.shared_bytes / 1024:.1f} KiB, "
                f"{resident}/{MULTIPROCESSORS[number].warps}"
                + (f", spills {found.spill_bytes} B" if found.spill_bytes else "")
            )
        print(f"{name.removeprefix('talksplat_')} | " + " | ".join(cells))


if __name__ == "__main__":
    main()
