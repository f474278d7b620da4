"""Which tiles list a Gaussian, whatever code the compiler makes of the question: on a GPU one
kernel counts the lists and another writes them, and what they answer must agree to the last bit."""

from __future__ import annotations

import ctypes
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
PLUGINS = HERE.parents[1] / "plugins" / "gaussian_rasterizer"
TILES = 16
# Ways to write a product and a sum: always apart; merged wherever the compiler likes, with the
# processor's instruction for it.
FLAGS = {
    "apart": ("-ffp-contract=off",),
    "merged": ("-ffp-contract=fast", *(("-mfma",) if platform.machine() == "x86_64" else ())),
}


def needles(count: int) -> np.ndarray:
    """[count,6]: x, y, Cholesky factor, reach. Thin splats in all directions, where least squares
    are small differences of large products."""
    rng = np.random.default_rng(7)
    angle = rng.uniform(0, np.pi, count)
    long, wide = rng.uniform(20, 300, count) ** 2, rng.uniform(0.55, 1, count) ** 2
    cos, sin = np.cos(angle), np.sin(angle)
    yy = long * sin**2 + wide * cos**2
    xy = (long - wide) * cos * sin
    half_log2e = 0.5 / np.log(2)
    l0 = np.sqrt(half_log2e * yy / (long * wide))
    centre = rng.uniform(0, 16 * TILES, (2, count))
    rows = [*centre, l0, -l0 * xy / yy, np.sqrt(half_log2e / yy), rng.uniform(0.5, 2.8, count)]
    return np.stack(rows, axis=1).astype(np.float32)


def answers(folder: Path, name: str, splats: np.ndarray) -> dict[str, np.ndarray]:
    library = folder / f"{name}.so"
    options = ["-std=c++20", "-O2", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"]
    source = HERE / "tile_lists.cpp"
    command: list[Any] = ["c++", *options, *FLAGS[name], f"-I{PLUGINS}", source, "-o", library]
    subprocess.run(command, check=True)
    size = len(splats) * TILES * TILES
    found = {
        "reached": np.zeros(size, np.uint8),
        "met": np.zeros(size, np.uint8),
        "squares": np.zeros(size, np.float32),
    }
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in found.values()]
    call = ctypes.CDLL(str(library)).tile_lists
    call(ctypes.c_void_p(splats.ctypes.data), len(splats), TILES, *pointers)
    return found


def merges() -> bool:
    """Whether the processor has an instruction for a product and a sum."""
    cpu = Path("/proc/cpuinfo")
    return platform.machine() != "x86_64" or (cpu.exists() and " fma " in cpu.read_text())


@pytest.mark.skipif(not merges(), reason="the processor cannot merge products with sums")
def test_needles_are_listed_alike_however_products_and_sums_are_compiled(tmp_path: Path) -> None:
    splats = needles(4000)
    apart, merged = (answers(tmp_path, name, splats) for name in FLAGS)
    assert 0.05 < apart["reached"].mean() < 0.95  # there is something to decide
    for name in apart:
        np.testing.assert_array_equal(apart[name], merged[name], err_msg=name)
