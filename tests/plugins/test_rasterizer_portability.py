"""The code is not tied to x86: it compiles for aarch64, and its mathematics for plain floats."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "plugins" / "gaussian_rasterizer"
COMPILER = "aarch64-linux-gnu-g++"


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"{COMPILER} is not installed")
@pytest.mark.parametrize("source", ["kernels_portable.cpp", "rasterizer.cpp", "thread_pool.cpp"])
def test_compiles_for_aarch64(source: str, tmp_path: Path) -> None:
    # -O1 runs the whole code generator, which is where vectors of other targets would fail.
    options = ["-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-psabi"]
    run = subprocess.run(
        [COMPILER, *options, "-c", str(ROOT / "cpu" / source), "-o", str(tmp_path / "object.o")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_the_mathematics_of_one_gaussian_needs_no_vectors(tmp_path: Path) -> None:
    # What a GPU kernel will do: one thread, one Gaussian, one pixel.
    source = tmp_path / "one_gaussian.cpp"
    source.write_text(
        """
#include <cstdio>
#include "blending.h"
#include "projection.h"
#include "spherical_harmonics.h"
using namespace talksplat;
int main() {
  const float viewmat[16] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1};
  const float K[9] = {100, 0, 32, 0, 100, 32, 0, 0, 1};
  const Camera camera = make_camera(viewmat, K, 64, 64, Dialect::kGsplat);
  const Rules rules;
  const float mean[3] = {0, 0, 0}, quat[4] = {1, 0, 0, 0}, scale[3] = {0.1f, 0.2f, 0.1f};
  ProjectionTape<float> tape;
  const Projection<float> p = project(mean, quat, scale, camera, rules, tape);
  const Cholesky<float> f = cholesky(p);
  const float power = exponent(3.0f, 4.0f, 0.0f, 0.0f, f.l0, f.l1, f.l2, 0.0f);
  ProjectionGradient<float> grad = {};
  cholesky_backward(f, Moments<float>{1, 0, 0, 1, 0, 1}, tape.rows, grad);
  float grad_mean[3], grad_quat[4], grad_scale[3], basis[kMaxShBases];
  project_backward(p, tape, quat, scale, camera, rules, grad, grad_mean, grad_quat, grad_scale);
  sh_basis(3, 0.0f, 0.0f, 1.0f, basis);
  std::printf("%.4f %.4f %.4f %.6f %.6f\\n", p.x, p.xx, p.yy, power, basis[2]);
}
"""
    )
    program = tmp_path / "one_gaussian"
    build = subprocess.run(
        ["c++", "-std=c++20", "-Wall", "-Wextra", f"-I{ROOT}", str(source), "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    x, xx, yy, power, basis = map(float, subprocess.check_output([program], text=True).split())
    # 100 px focal length at depth 2: standard deviations of 5 and 10 pixels, and the low pass.
    assert (x, xx, yy) == (32, 25.3, 100.3)
    expected = -0.5 * (9 / 25.3 + 16 / 100.3) / math.log(2)
    assert power == pytest.approx(expected, abs=1e-5)
    assert basis == pytest.approx(math.sqrt(3 / (4 * math.pi)), abs=1e-6)
