"""What ``talksplat.rasterize`` refuses, naming the argument, what it expected and what it found."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from benchmarks.rasterizer.scenes import head

from talksplat.errors import InputError
from talksplat.rasterization import (
    Workspace,
    allocate_images,
    choose_instruction_set,
    instruction_set,
    rasterize,
)

ARGUMENTS = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks")
WIDTH, HEIGHT = 40, 24
COUNT = 50


def call(**changes: Any) -> tuple[np.ndarray, np.ndarray]:
    """A small valid call, with some arguments replaced."""
    scene = head(COUNT, WIDTH, HEIGHT)
    arguments: dict[str, Any] = dict(zip(ARGUMENTS, scene.arrays, strict=True))
    return rasterize(**{**arguments, "width": WIDTH, "height": HEIGHT, **changes})


@pytest.mark.parametrize(
    ("argument", "value", "expected", "found"),
    [
        ("means", np.zeros((COUNT, 2), np.float32), "[N, 3]", f"[{COUNT}, 2]"),
        ("quats", np.zeros((COUNT - 1, 4), np.float32), f"[{COUNT}, 4]", f"[{COUNT - 1}, 4]"),
        ("scales", np.zeros(COUNT, np.float32), f"[{COUNT}, 3]", f"[{COUNT}]"),
        ("opacities", np.zeros((COUNT, 1), np.float32), f"[{COUNT}]", f"[{COUNT}, 1]"),
        ("colors", np.zeros((3, COUNT), np.float32), f"[{COUNT}, D]", f"[3, {COUNT}]"),
        ("colors", np.zeros((COUNT, 0), np.float32), "at least one channel", f"[{COUNT}, 0]"),
        ("viewmats", np.eye(4, dtype=np.float32), "[C, 4, 4]", "[4, 4]"),
        ("Ks", np.zeros((2, 3, 3), np.float32), "[1, 3, 3]", "[2, 3, 3]"),
        ("backgrounds", np.zeros((1, 4), np.float32), "[1, 3]", "[1, 4]"),
        (
            "backgrounds",
            np.zeros((1, HEIGHT, WIDTH + 1, 3), np.float32),
            f"[1, {HEIGHT}, {WIDTH}, 3]",
            f"[1, {HEIGHT}, {WIDTH + 1}, 3]",
        ),
        ("means", np.zeros((COUNT, 3), np.complex64), "float32", "complex64"),
        ("opacities", np.array(["a"] * COUNT), "float32", "<U1"),
        ("Ks", np.zeros((1, 3, 3), np.float32), "positive focal lengths", ""),
        ("viewmats", np.full((1, 4, 4), np.nan, np.float32), "finite", "NaN"),
        ("width", 0, "1 to 32768", "0"),
        ("height", 100_000, "1 to 32768", "100000"),
        ("threads", -1, "0", "-1"),
        ("threads", 100_000, "0 (one per processor) to 256", "100000"),
        ("sh_degree", 4, "0 to 3", "4"),
        ("near_plane", 0.0, "from", "0.0"),
        ("eps2d", -0.1, "from", "-0.1"),
        ("radius_clip", float("nan"), "from", "nan"),
        ("dialect", "gsplat-2", "'inria'", "'gsplat-2'"),
        ("render_mode", "RGBD", "'RGB+ED'", "'RGBD'"),
        ("rasterize_mode", "smooth", "'antialiased'", "'smooth'"),
    ],
)
def test_a_wrong_argument_is_named(argument: str, value: Any, expected: str, found: str) -> None:
    with pytest.raises(InputError) as error:
        call(**{argument: value})
    message = str(error.value)
    assert message.startswith(f"{argument}: ")
    assert expected in message
    assert found in message


def test_too_few_spherical_harmonics_are_refused() -> None:
    with pytest.raises(InputError, match=r"colors: sh_degree 2 needs K >= 9"):
        call(colors=np.zeros((COUNT, 4, 3), np.float32), sh_degree=2)


def test_a_singular_viewmat_has_no_place_to_see_spherical_harmonics_from() -> None:
    flat = np.diag(np.array([1, 1, 0, 1], np.float32))[None]
    with pytest.raises(InputError, match="viewmats: expected invertible"):
        call(viewmats=flat, colors=np.zeros((COUNT, 4, 3), np.float32), sh_degree=1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("argument", ARGUMENTS[:5])
def test_what_is_not_finite_is_counted(argument: str, bad: float) -> None:
    array = dict(zip(ARGUMENTS, head(COUNT, WIDTH, HEIGHT).arrays, strict=True))[argument].copy()
    array.flat[[3, array.size - 1]] = bad
    with pytest.raises(InputError, match=rf"{argument} \(2 of {array.size} values\)"):
        call(**{argument: array})


def test_what_is_not_finite_is_found_behind_the_camera() -> None:
    scene = head(COUNT, WIDTH, HEIGHT)
    means = scene.means.copy()
    means[7] = (0, 0, 100)
    colors = np.repeat(scene.colors, 12, axis=1)  # too many to be kept next to the splats
    colors[7, 30] = np.nan
    with pytest.raises(InputError, match=r"colors \(1 of 1800 values\)"):
        call(means=means, colors=colors)


@pytest.mark.parametrize(
    ("count", "keep_views"),
    [
        (17_000, False),  # just above 4 GiB of entries
        (70_000, False),  # more than 2^32 entries
        (1_000, True),  # the gradients of the entries are what takes the memory
    ],
)
def test_more_tile_entries_than_memory_is_allowed_for_are_refused(
    count: int, keep_views: bool
) -> None:
    """In a process of its own: where the entries are miscounted, memory is overwritten."""
    script = f"""
import os, resource, sys
sys.path.insert(0, os.getcwd())
from benchmarks.rasterizer.scenes import head
from talksplat.errors import InputError
from talksplat.rasterization import Workspace, allocate_images, prepare
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
side = 4096  # 65,536 tiles, and every Gaussian covers them all
scene = head({count}, side, side)
scene.scales[:] = 50
call = prepare(*scene.arrays, side, side, render_mode="D", threads=1)
images = [allocate_images(1, side, side, 1) for _ in range(2)]
try:
    call.forward(Workspace(), *images, keep_views={keep_views})
except InputError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    assert f"{count} Gaussians on 4096 x 4096 pixels" in run.stdout
    assert f"need {count * 65_536} entries" in run.stdout
    assert "4 GiB" in run.stdout


def test_doubles_lists_and_strided_arrays_are_converted() -> None:
    expected = call()
    scene = head(COUNT, WIDTH, HEIGHT)
    padded = np.zeros((COUNT, 6), np.float32)
    padded[:, ::2] = scene.means
    measured = call(
        means=padded[:, ::2],
        quats=scene.quats.astype(np.float64),
        opacities=scene.opacities.tolist(),
        colors=np.asfortranarray(scene.colors),
    )
    for a, b in zip(measured, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def images(channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    return allocate_images(1, HEIGHT, WIDTH, channels), allocate_images(1, HEIGHT, WIDTH, 1)


def test_out_is_what_is_returned() -> None:
    out = images()
    colors, alphas = call(out=out, workspace=Workspace())
    assert colors is out[0]
    assert alphas is out[1]


@pytest.mark.parametrize("place", [0, 1])
def test_a_wrong_out_is_refused_and_left_alone(place: int) -> None:
    wrong_shape = list(images())
    wrong_shape[place] = wrong_shape[place][:, :-1]
    wrong_dtype = list(images())
    wrong_dtype[place] = wrong_dtype[place].astype(np.float64)
    read_only = list(images())
    read_only[place].flags.writeable = False
    for out in (wrong_shape, wrong_dtype, read_only):
        before = out[place].copy()
        with pytest.raises(InputError, match="out: " + ("colors", "alphas")[place]):
            call(out=tuple(out))
        np.testing.assert_array_equal(out[place], before)


def test_a_workspace_in_use_is_refused() -> None:
    workspace = Workspace()
    with workspace.borrowed(), pytest.raises(InputError, match="workspace: in use"):
        call(workspace=workspace)
    call(workspace=workspace)


def test_stages_are_timed() -> None:
    workspace = Workspace()
    call(workspace=workspace)
    times = workspace.times
    assert min(times.project, times.sort, times.bin, times.blend) > 0
    assert times.blend_backward == times.project_backward == 0


def test_an_unknown_instruction_set_is_refused() -> None:
    before = instruction_set()
    with pytest.raises(InputError, match=r"'sse9'.*avx512, avx2, portable"):
        choose_instruction_set("sse9")  # type: ignore[arg-type]
    assert instruction_set() == before


@pytest.mark.parametrize("asked", ["portable", "sse9"])
def test_the_environment_chooses_the_instruction_set(asked: str) -> None:
    script = "from talksplat.rasterization import instruction_set; print(instruction_set())"
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TALKSPLAT_INSTRUCTION_SET": asked},
        capture_output=True,
        text=True,
        check=False,
    )
    if asked == "portable":
        assert run.stdout.strip() == "portable"
    else:
        assert run.returncode != 0
        assert "'sse9'" in run.stderr


def test_a_forked_process_draws_with_threads_of_its_own() -> None:
    # Threads do not live on in a child; waiting for them would never end.
    script = """
import os, sys
sys.path.insert(0, os.getcwd())
from benchmarks.rasterizer.scenes import head
import talksplat
scene = head(20_000, 64, 64)
talksplat.rasterize(*scene.arrays, 64, 64, threads=2)
child = os.fork()
if child == 0:
    talksplat.rasterize(*scene.arrays, 64, 64, threads=2)
    os._exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    run = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert run.returncode == 7
