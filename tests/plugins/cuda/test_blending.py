"""What blending must not let in: colours of splats that a pixel does not reach, and lists that hold
no Gaussians."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.rasterizer.scenes import Scene
from scenes import cloud
from tests.plugins.cuda.frames import aligned, draw, plan_of
from tests.plugins.cuda.host.library import HostLibrary


def one_tile_with_a_splat_in_its_corner() -> Scene:
    """31 small splats near the lower right of the only tile, and behind them one at the upper left,
    the last of a batch's group of 32, in spherical harmonics."""
    count = 32
    pixels = np.tile([[12.5, 14.0]], (count, 1))
    pixels[-1] = [2.5, 2.0]
    depth = np.linspace(4, 5, count)
    focal = 64.0
    means = np.column_stack([*((pixels.T - 8) * depth / focal), depth])
    K = np.array([[[focal, 0, 8], [0, focal, 8], [0, 0, 1]]])
    colors = np.zeros((count, 16, 3))
    colors[:, 0] = 1
    base = cloud(count, width=16, height=16, seed=90)
    return replace(
        base,
        means=means.astype(np.float32),
        scales=np.full((count, 3), 0.02, np.float32),
        opacities=np.full(count, 0.3, np.float32),
        colors=colors.astype(np.float32),
        viewmats=np.eye(4, dtype=np.float32)[None],
        Ks=K.astype(np.float32),
        options={"sh_degree": 3},
    )


def test_a_colour_beyond_all_numbers_stays_where_its_splat_is(host_library: HostLibrary) -> None:
    """Coefficients are finite, their sum is not."""
    scene = one_tile_with_a_splat_in_its_corner()
    colors = scene.colors.copy()
    colors[-1] = 3e38
    expected = draw(host_library, scene)
    found = draw(host_library, replace(scene, colors=colors))
    assert found.status[0] == 0
    assert not np.isfinite(found.colors[0, :4, :8]).all()
    np.testing.assert_array_equal(found.colors[0, 8:, 8:], expected.colors[0, 8:, 8:])


@pytest.mark.parametrize("channels", [3, 7])
def test_lists_that_nobody_wrote_are_not_followed(host_library: HostLibrary, channels: int) -> None:
    """Counted and never written, as no frame should be: entries name no Gaussian, and none is
    read."""
    scene = cloud(300, width=40, height=30, channels=channels, seed=91)
    plan = plan_of(scene, "gsplat", "classic")
    inputs = [*map(np.ascontiguousarray, scene.arrays)]
    colors = np.full((channels, 30, 40), -7, np.float32)
    alphas, status = np.full((30, 40), -7, np.float32), np.zeros(4, np.int32)
    workspace = aligned(plan.workspace_bytes)  # rubbish
    outputs = (array.ctypes.data for array in (colors, alphas, status, workspace))
    arguments = plan.arguments(*(array.ctypes.data for array in inputs), 0, *outputs)
    for launch in plan.launches:
        if launch[0] != "talksplat_scatter":
            host_library.launch(*launch, arguments)
    assert status[1] > 300
    assert not colors.any()
    assert not alphas.any()
