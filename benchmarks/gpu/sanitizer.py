"""compute-sanitizer over a small program that draws with every branch of the rasterizer."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.machine import find_cuda_tool, find_nvcc
from benchmarks.gpu.result import Findings, MissingError, Table
from benchmarks.gpu.settings import ROOT, Settings
from talksplat.cuda import open_device

SOURCE = Path(__file__).with_name("sanitize.cu")
PLUGIN = ROOT / "plugins/gaussian_rasterizer"
TOOLS = ("memcheck", "racecheck", "synccheck")
FOUND = 99
"""Exit status of compute-sanitizer when its tool found something."""

GAUSSIANS = 3000
LIMIT_S = 120.0


def build(nvcc: Path, architecture: str, output: Path) -> Path:
    """Compile the program with the rasterizer's own sources.

    Args:
        nvcc: the compiler.
        architecture: such as ``sm_90``.
        output: the program.

    Raises:
        MissingError: nvcc refuses, for instance because it does not know the architecture.
    """
    sources = [PLUGIN / "cuda/launch.cu", PLUGIN / "cuda/plan.cpp"]  # launch.cu includes kernels.cu
    command = [str(nvcc), "-std=c++20", "-O2", "-lineinfo", f"-arch={architecture}"]
    command += ["-I", str(PLUGIN), "-o", str(output), str(SOURCE), *map(str, sources)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise MissingError(f"{nvcc} cannot build {SOURCE.name}: {last_lines(process.stderr)}")
    return output


def measure(settings: Settings) -> Findings:
    """Build the program, run it alone, then under every tool."""
    nvcc = find_nvcc()
    if nvcc is None:
        raise MissingError(
            "the program is built with nvcc, which was not found; install the CUDA toolkit or set "
            "CUDA_HOME."
        )
    with open_device() as device:
        architecture = "sm_{}{}".format(*device.compute_capability)
    checker = find_cuda_tool("compute-sanitizer")
    with tempfile.TemporaryDirectory() as folder:
        program = build(nvcc, architecture, Path(folder) / "sanitize")
        rows, outputs, failures = [], {}, []
        commands = {"alone": [str(program), str(GAUSSIANS)]}
        if checker is not None:
            commands |= {tool: sanitized(checker, tool, program) for tool in TOOLS}
        for name, command in commands.items():
            code, output = run(command)
            outputs[name] = output
            verdict = judge(code)
            rows.append((name, verdict, summary(output)))
            if code:
                failures.append(f"{name}: {verdict}: {last_lines(output)}")
    notes = [
        f"{SOURCE.name}, built for {architecture}, draws {len(expected_cases(outputs['alone']))} "
        f"small scenes of {GAUSSIANS:,} Gaussians twice each."
    ]
    if checker is None:
        notes.append(
            "Not checked: compute-sanitizer was not found; it comes with the CUDA toolkit."
        )
    table = Table("What was found", ("tool", "verdict", "its own summary"), rows, text_columns=3)
    return Findings([table], {"outputs": outputs}, notes, failures)


def sanitized(checker: Path, tool: str, program: Path) -> list[str]:
    """The command that runs the program under a tool."""
    options = ["--tool", tool, "--error-exitcode", str(FOUND)]
    return [str(checker), *options, str(program), str(GAUSSIANS)]


def run(command: Sequence[str]) -> tuple[int, str]:
    """Exit status and output; -1 where it took too long."""
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired as expired:
        said = expired.stdout or b""
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        return -1, f"{text}\nended after {LIMIT_S:.0f} s"
    return process.returncode, process.stdout + process.stderr


def judge(code: int) -> str:
    """What an exit status means."""
    verdicts = {0: "clean", 1: "a picture is wrong", FOUND: "errors found", -1: "took too long"}
    return verdicts.get(code, f"ended with {code}")


def summary(output: str) -> str:
    """The line in which compute-sanitizer counts its findings; empty without one."""
    lines = [line.strip("= ") for line in output.splitlines() if "SUMMARY" in line]
    return lines[-1] if lines else ""


def expected_cases(output: str) -> list[str]:
    """Names of the scenes that came out as expected."""
    return [line.split(":")[0] for line in output.splitlines() if ": as expected" in line]


def last_lines(output: str, count: int = 5) -> str:
    """The end of an output on one line."""
    return " / ".join(line.strip() for line in output.strip().splitlines()[-count:])
