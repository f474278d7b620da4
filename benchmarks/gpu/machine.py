"""What a figure was measured on: device, driver, versions, commit."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from talksplat.cuda import open_device
from talksplat.cuda_version import cuda_version_text

ROOT = Path(__file__).parents[2]

PACKAGES = (
    "talksplat",
    "numpy",
    "torch",
    "gsplat",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-bindings",
    "nvidia-cuda-nvrtc",
)


@dataclass(frozen=True)
class Machine:
    """Enough to judge a figure by.

    Attributes:
        device: its name.
        compute_capability: ``"9.0"``.
        memory_bytes: of the device.
        driver: version of the driver and of the CUDA it speaks.
        processor: name and cores that this process may use.
        system: kernel and Python.
        commit: of this repository; ``-dirty`` when files differ from it.
        packages: versions, of those that are installed.
        nvcc: release, or empty without one.
    """

    device: str
    compute_capability: str
    memory_bytes: int
    driver: str
    processor: str
    system: str
    commit: str
    packages: dict[str, str]
    nvcc: str

    def as_dict(self) -> dict[str, object]:
        """As JSON takes it."""
        return asdict(self)


def describe(commit: str = "") -> Machine:
    """This machine and its first GPU.

    Args:
        commit: what these sources are, where git does not know.

    Raises:
        BackendError: no GPU, or no driver that speaks the CUDA of the bindings.
    """
    with open_device() as device:
        return Machine(
            device=device.name,
            compute_capability="{}.{}".format(*device.compute_capability),
            memory_bytes=device.total_memory,
            driver=f"{kernel_driver()}, CUDA {cuda_version_text(device.driver_version)}",
            processor=f"{processor()}, {len(os.sched_getaffinity(0))} cores",
            system=f"{platform.platform(terse=True)}, Python {platform.python_version()}",
            commit=commit or git_commit(),
            packages=versions(),
            nvcc=nvcc_release(),
        )


def versions() -> dict[str, str]:
    """Versions of what takes part, as far as installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str:
    """Commit of the working tree, ``unknown`` where git cannot tell."""
    described = _answer("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12")
    return described or "unknown"


def nvcc_release() -> str:
    """``13.0`` of the nvcc that is found, empty without one."""
    compiler = find_nvcc()
    answer = _answer(str(compiler), "--version") if compiler else ""
    for line in answer.splitlines():
        if "release" in line:
            return line.split("release", 1)[1].split(",")[0].strip()
    return ""


def find_nvcc() -> Path | None:
    """On the path, in ``$CUDA_HOME`` or where CUDA installs itself."""
    found = shutil.which("nvcc")
    homes = (os.environ.get("CUDA_HOME"), "/usr/local/cuda")
    places = [Path(home) / "bin" / "nvcc" for home in homes if home]
    if found:
        places.insert(0, Path(found))
    return next((place for place in places if place.is_file()), None)


def find_cuda_tool(name: str) -> Path | None:
    """A program of the CUDA toolkit: on the path, or beside nvcc."""
    if found := shutil.which(name):
        return Path(found)
    compiler = find_nvcc()
    if compiler is None:
        return None
    home = compiler.resolve().parents[1]
    places = (home / "bin" / name, home / "compute-sanitizer" / name)
    return next((place for place in places if place.is_file()), None)


def kernel_driver() -> str:
    """Version of NVIDIA's driver as the kernel module says it, ``unknown`` where it does not."""
    answer = _answer("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return answer.splitlines()[0].strip() if answer else "unknown"


def processor() -> str:
    """Its name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _answer(*command: str) -> str:
    """What a program prints; empty when it is not there or fails."""
    if shutil.which(command[0]) is None:
        return ""
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    return process.stdout.strip() if process.returncode == 0 else ""
