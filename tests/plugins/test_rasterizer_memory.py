"""A frame after the first takes no memory from the system."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "plugins" / "gaussian_rasterizer"
PROGRAM = Path(__file__).with_name("allocations.cpp")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="counts the calls of glibc")
def test_no_memory_is_asked_for_after_the_first_frame(tmp_path: Path) -> None:
    program = tmp_path / "allocations"
    parts = ("rasterizer.cpp", "thread_pool.cpp", "kernels_portable.cpp")
    build = subprocess.run(
        [
            *("c++", "-std=c++20", "-Wno-psabi", "-pthread", f"-I{SOURCES}"),
            *(str(path) for path in (PROGRAM, *(SOURCES / "cpu" / part for part in parts))),
            *("-o", str(program)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    lines = subprocess.check_output([program], text=True).splitlines()
    assert len(lines) == 2  # 3 and 32 channels
    for first, *later in (list(map(int, line.split())) for line in lines):
        assert first > 0  # the counter counts
        assert later == [0] * 7
