"""The kernels compile for every GPU that is supported, and leave nothing in local memory."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.plugins.cuda.host.library import PLUGINS

from talksplat import _native

nvrtc = pytest.importorskip(
    "tests.plugins.cuda.nvrtc", reason="cuda-python or nvidia-cuda-nvrtc is not installed"
)
compile_for = cache(nvrtc.compile_for)


def kernels_of_all_plans() -> set[str]:
    plans = [
        _native.gaussian_cuda_plan(gaussians=1, channels=channels, width=1, height=1)
        for channels in (1, 2, 3, 4, 5, 9, 17, 40)
    ]
    return {launch[0] for plan in plans for launch in plan.launches}


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_nvrtc_compiles_every_kernel_of_a_plan_without_spilling(architecture: int) -> None:
    found = compile_for(architecture)
    assert set(found) == kernels_of_all_plans()
    for name, resources in found.items():
        assert resources.spill_bytes == 0, (name, resources)
        assert resources.stack_bytes == 0, (name, resources)
        assert resources.shared_bytes <= 48 << 10, (name, resources)


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_blending_leaves_a_multiprocessor_warps_to_hide_its_waiting(architecture: int) -> None:
    """Half of what it holds with three channels, a quarter with 32, whose sums fill registers."""
    found = compile_for(architecture)
    has: Any = nvrtc.MULTIPROCESSORS[architecture].warps
    assert found["talksplat_blend_3"].resident_warps(architecture, 256) >= has / 2
    assert found["talksplat_blend_32"].resident_warps(architecture, 256) >= has / 4


def test_nvcc_and_nvrtc_are_told_the_same_arithmetic() -> None:
    """Flushing, division, roots and merging: a picture does not depend on who made the kernels."""
    built = (PLUGINS / "gaussian_rasterizer" / "cuda" / "CMakeLists.txt").read_text()
    told = re.findall(r"--[a-z-]+=(?:true|false)", built)
    assert set(told) == {option for option in nvrtc.OPTIONS if option.endswith(("true", "false"))}
    assert {option.split("=")[0] for option in told} == {
        *("--ftz", "--prec-div", "--prec-sqrt", "--fmad")
    }


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the plugin libraries link."""
    for tool in ("nvcc", "cmake"):
        if shutil.which(tool) is None:
            pytest.skip(
                f"no {tool} on the PATH: the plugin libraries' fat binary is not built here"
            )
    build = tmp_path_factory.mktemp("build")
    python = f"-DPython_EXECUTABLE={sys.executable}"
    run("cmake", "-S", PLUGINS.parent, "-B", build, "-DTALKSPLAT_CUDA=ON", python)
    run("cmake", "--build", build, "--target", "gaussian_rasterizer_cuda")
    return next(build.rglob("libgaussian_rasterizer_cuda.a"))


def test_nvcc_makes_machine_code_for_all_of_them_and_ptx_for_those_between_and_to_come(
    library: Path,
) -> None:
    images = list(images_in(library.read_bytes()))
    assert {architecture for kind, architecture in images if kind == "code"} == set(
        nvrtc.ARCHITECTURES
    )
    assert {architecture for kind, architecture in images if kind == "ptx"} == {90, 120}


def test_a_frame_without_a_gpu_is_an_error_and_not_a_crash(library: Path, tmp_path: Path) -> None:
    program = tmp_path / "linked"
    plan = library.with_name("libgaussian_rasterizer_plan.a")
    headers = f"-I{PLUGINS / 'gaussian_rasterizer'}"
    source = Path(__file__).with_name("linked.cpp")
    run("nvcc", "-std=c++17", headers, source, library, plan, "-o", program)
    said = run(program).strip()
    if said == "has a GPU":
        pytest.skip("here is a GPU; what is said without one shows elsewhere")
    assert said in ("cudaErrorNoDevice", "cudaErrorInsufficientDriver", "cudaErrorStubLibrary")


def images_in(archive: bytes) -> Iterator[tuple[str, int]]:
    """(code or ptx, architecture) of the images that fatbinary packs behind its magic number."""
    at = archive.find(b"\x50\xed\x55\xba")
    while at >= 0:
        header, size = struct.unpack_from("<HQ", archive, at + 6)
        image, end = at + header, at + header + size
        while image < end:
            kind, _, image_header, payload = struct.unpack_from("<HHIQ", archive, image)
            (architecture,) = struct.unpack_from("<I", archive, image + 28)
            yield ("ptx" if kind == 1 else "code"), architecture
            image += image_header + payload
        at = archive.find(b"\x50\xed\x55\xba", end)


def run(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
