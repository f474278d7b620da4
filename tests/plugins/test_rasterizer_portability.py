"""The vector code is not tied to x86: it compiles for aarch64 as it stands."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CPU = Path(__file__).parents[2] / "plugins" / "gaussian_rasterizer" / "cpu"
COMPILER = "aarch64-linux-gnu-g++"


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"{COMPILER} is not installed")
@pytest.mark.parametrize("source", ["kernels_portable.cpp", "rasterizer.cpp", "thread_pool.cpp"])
def test_compiles_for_aarch64(source: str, tmp_path: Path) -> None:
    # -O1 runs the whole code generator, which is where vectors of other targets would fail.
    options = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-psabi"]
    run = subprocess.run(
        [COMPILER, *options, "-c", str(CPU / source), "-o", str(tmp_path / "object.o")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
