"""TensorRT's plugin library as CMake builds it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tensorrt_library import NO_ROOTS, PLUGINS, ROOTS, cuda_headers, headers_of

import talksplat
from talksplat.plugin_library import tensorrt_plugin

REPOSITORY = Path(__file__).parents[2]
TARGET = "talksplat_tensorrt_plugin"
JETSON = "aarch64-linux-gnu-g++"

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")


def configure(folder: Path, *definitions: str) -> str:
    """What CMake says."""
    command = ["cmake", "-S", REPOSITORY, "-B", folder, f"-DPython_EXECUTABLE={sys.executable}"]
    done = subprocess.run([*command, *definitions], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_without_headers_it_is_said_that_the_plugin_is_not_built(tmp_path: Path) -> None:
    said = configure(tmp_path, "-DTALKSPLAT_CUDA=OFF", "-DTENSORRT_INCLUDE_DIR=")
    assert "TensorRT headers not found: the plugin is not built (set TENSORRT_ROOT)" in said


@pytest.mark.skipif(not ROOTS, reason=NO_ROOTS)
@pytest.mark.skipif(shutil.which(JETSON) is None, reason=f"{JETSON} is not installed")
@pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.name)
def test_it_compiles_for_the_processor_of_a_jetson(root: Path) -> None:
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    macros = ['-DTALKSPLAT_VERSION="0"', '-DTALKSPLAT_CUDA_ARCHITECTURES="87"']
    includes = ["-isystem", str(headers_of(root)), "-isystem", str(cuda_headers())]
    for source in (*(PLUGINS / "tensorrt").glob("*.cpp"), PLUGINS / "operator.cpp"):
        subprocess.run([JETSON, *flags, *macros, *includes, str(source)], check=True)


@pytest.mark.skipif(not ROOTS, reason=NO_ROOTS)
@pytest.mark.skipif(
    shutil.which("nvcc") is None, reason="no nvcc: the plugin library with its kernels is not built"
)
@pytest.mark.parametrize("root", ROOTS, ids=lambda root: root.name)
def test_it_needs_nothing_loaded_and_lets_out_its_interface_alone(
    root: Path, tmp_path: Path
) -> None:
    said = configure(
        tmp_path,
        f"-DTENSORRT_ROOT={root}",
        "-DTALKSPLAT_TENSORRT_PLUGIN=ON",
        "-DTALKSPLAT_CUDA_ARCHITECTURES=80",
    )
    assert "TensorRT's plugin is built for TensorRT" in said
    build = subprocess.run(
        ["cmake", "--build", tmp_path, "--target", TARGET],
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stdout + build.stderr
    (path,) = tmp_path.rglob("libtalksplat_tensorrt_plugin.so")
    plugin = tensorrt_plugin(path)
    assert plugin.architectures == ("80",)
    assert plugin.talksplat == talksplat.__version__
    symbols = subprocess.check_output(["nm", "-D", "--defined-only", path], text=True)
    assert {line.split()[-1] for line in symbols.splitlines()} == {
        "getCreators",
        "setLoggerFinder",
        "talksplat_tensorrt_plugin_check",
        "talksplat_tensorrt_plugin_info",
        "talksplat_tensorrt_plugin_last_error",
        "talksplat_tensorrt_plugin_register",
    }
    needed = subprocess.check_output(["readelf", "-d", path], text=True)
    assert "nvinfer" not in needed
    assert "cuda" not in needed
