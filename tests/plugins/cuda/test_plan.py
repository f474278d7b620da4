"""The plan of a frame: where things lie in the workspace, what is launched, what is refused."""

from __future__ import annotations

import itertools
import math
import struct
from typing import Any

import pytest
from benchmarks.rasterizer.scenes import head
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.cuda.frames import pairs_needed, plan_of
from tests.plugins.cuda.host.library import HostLibrary

from talksplat import _native

ALIGNMENT: int = _native.GAUSSIAN_CUDA_WORKSPACE_ALIGNMENT
WORKSPACE = 1 << 40  # an address nobody reads

problems = st.fixed_dictionaries(
    {
        "gaussians": st.integers(0, 300_000),
        "cameras": st.integers(1, 9),
        "channels": st.integers(1, 200),
        "width": st.integers(1, 5000),
        "height": st.integers(1, 5000),
        "tile_entries": st.just(0) | st.integers(1, 2**31 - 2),
        "render_mode": st.sampled_from(["RGB", "D", "ED", "RGB+D", "RGB+ED"]),
    }
)


def arguments(plan: Any, workspace: int = WORKSPACE) -> bytes:
    names = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds")
    outputs = ("out_colors", "out_alphas", "status")
    pointers = {name: 4096 * (1 + place) for place, name in enumerate(names + outputs)}
    packed: bytes = plan.arguments(**pointers, workspace=workspace)
    return packed


@settings(max_examples=200, derandomize=True)
@given(problems)
def test_arrays_of_the_workspace_lie_apart_and_within(problem: dict[str, Any]) -> None:
    plan = _native.gaussian_cuda_plan(**problem)
    starts = struct.unpack_from("<6Q", arguments(plan), 11 * 8)
    views = problem["cameras"]
    tiles = math.ceil(problem["width"] / 16) * math.ceil(problem["height"] / 16)
    # cameras (a Camera and its bits), splats, ranges, cursors, starts, pairs
    sizes = (
        views * 26 * 4,
        views * problem["gaussians"] * 64,
        views * problem["gaussians"] * 8,
        views * tiles * 4,
        views * (tiles + 1) * 4,
        views * plan.tile_entries * 8,
    )
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    assert starts[0] == WORKSPACE
    assert all(start % ALIGNMENT == 0 for start in starts)
    assert all(end <= following for end, following in zip(ends, starts[1:], strict=False))
    assert ends[-1] <= WORKSPACE + plan.workspace_bytes


@settings(max_examples=100, derandomize=True)
@given(problems)
def test_launches_are_those_a_device_takes_and_cover_everything(problem: dict[str, Any]) -> None:
    plan = _native.gaussian_cuda_plan(**problem)
    tiles = math.ceil(problem["width"] / 16) * math.ceil(problem["height"] / 16)
    kernels = [launch[0] for launch in plan.launches]
    assert [name.split("_")[1] for name in kernels] == [
        *("prepare", "project", "scan", "scatter", "sort", "blend")
    ]
    for name, grid, block, shared in plan.launches:
        assert 1 <= math.prod(block) <= 1024, name
        assert 1 <= grid[0] < 2**31 and 1 <= grid[1] <= 65535 and 1 <= grid[2] <= 65535
        assert shared == 0
    by_name = {name.split("_")[1]: (grid, block) for name, grid, block, _ in plan.launches}
    for stage in ("project", "scatter"):
        grid, block = by_name[stage]
        assert grid[0] * block[0] >= problem["gaussians"]
        assert grid[1] == problem["cameras"]
    for stage in ("sort", "blend"):
        assert by_name[stage][0][:2] == (tiles, problem["cameras"])
    channels = int(kernels[-1].rsplit("_", 1)[1])
    assert channels * by_name["blend"][0][2] >= plan.output_channels


@settings(max_examples=100, derandomize=True)
@given(problems)
def test_the_room_is_what_was_asked_for_or_at_most_every_gaussian_in_every_tile(
    problem: dict[str, Any],
) -> None:
    plan = _native.gaussian_cuda_plan(**problem)
    tiles = math.ceil(problem["width"] / 16) * math.ceil(problem["height"] / 16)
    if problem["tile_entries"]:
        assert plan.tile_entries == problem["tile_entries"]
    else:
        assert 1 <= plan.tile_entries <= max(1, problem["gaussians"] * tiles)


def test_the_same_sizes_give_the_same_bytes_and_only_pointers_tell_frames_apart() -> None:
    sizes = {"gaussians": 1000, "width": 100, "height": 50}
    first, second = (_native.gaussian_cuda_plan(**sizes) for _ in range(2))
    assert first.launches == second.launches
    assert arguments(first) == arguments(second)
    moved = arguments(first, WORKSPACE + ALIGNMENT)
    differing = {
        place // 8
        for place, (a, b) in enumerate(zip(arguments(first), moved, strict=True))
        if a != b
    }
    assert differing == set(range(11, 17))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 0}, "width: expected 1 to 32768, found 0"),
        ({"height": 40000}, "height: expected 1 to 32768, found 40000"),
        ({"gaussians": -1}, "gaussians: expected 0 to 2147483647, found -1"),
        ({"cameras": 0}, "cameras: expected 1 to 65535"),
        ({"channels": 0}, "channels: expected 1 to"),
        ({"sh_degree": 4}, "sh_degree: expected -1 to 3"),
        ({"sh_degree": 2, "sh_bases": 8}, "sh_bases: expected 9 to"),
        ({"sh_degree": 0, "sh_bases": 1, "channels": 4}, "channels of spherical harmonics"),
        # As many as can be counted would leave no number for too many.
        ({"tile_entries": 2**31 - 1}, "tile_entries: expected 0 to 2147483646"),
        ({"near_plane": 0.0}, "near_plane: expected at least 1e-09, found 0"),
        ({"near_plane": math.nan}, "near_plane: expected at least 1e-09, found -?nan"),
        ({"far_plane": math.nan}, "far_plane: expected at least 0, found -?nan"),
        ({"far_plane": -1.0}, "far_plane: expected at least 0, found -1"),
        ({"radius_clip": math.nan}, "radius_clip: expected at least 0, found -?nan"),
        ({"eps2d": -1.0}, "eps2d: expected at least 0, found -1"),
        ({"eps2d": math.nan}, "eps2d: expected at least 0, found -?nan"),
        ({"dialect": "gsplat-2"}, "'gsplat', 'gsplat-1.5', 'inria'; found 'gsplat-2'"),
        ({"render_mode": "rgb"}, "render_mode: expected one of 'RGB'"),
        ({"rasterize_mode": "soft"}, "rasterize_mode: expected one of 'classic'"),
    ],
)
def test_sizes_that_no_kernel_can_take_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _native.gaussian_cuda_plan(**{"gaussians": 10, "width": 64, "height": 64, **wrong})


def test_the_default_room_is_less_than_can_be_counted() -> None:
    plan = _native.gaussian_cuda_plan(gaussians=2**31 - 1, width=32768, height=32768)
    assert plan.tile_entries == 2**31 - 2


@pytest.mark.parametrize("workspace", [0, WORKSPACE + 8])
def test_a_workspace_at_the_wrong_address_is_refused(workspace: int) -> None:
    plan = _native.gaussian_cuda_plan(gaussians=10, width=64, height=64)
    with pytest.raises(ValueError, match=f"multiple of {ALIGNMENT}"):
        arguments(plan, workspace)


@pytest.mark.parametrize("count", [5_000, 20_000, 50_000, 176_000])
def test_a_head_needs_less_than_a_third_of_the_default_room(
    host_library: HostLibrary, count: int
) -> None:
    """As the benchmark has it, and filling the whole frame, which is when it meets most tiles."""
    for side, zoom in itertools.product((512, 1024), (1.0, 1.33, 2.0)):
        scene = head(count, width=side, height=side)
        scene.Ks[:, [0, 1], [0, 1]] *= zoom
        room = plan_of(scene, "gsplat", "classic").tile_entries
        assert 3 * pairs_needed(host_library, scene) < room, (side, zoom)
