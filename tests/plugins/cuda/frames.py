"""Frames of the CUDA rasterizer on the host: its plan, its kernels, memory that is not a device's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from benchmarks.rasterizer.scenes import Array, Scene

from talksplat import _native
from tests.plugins.cuda.host.library import HostLibrary


@dataclass(frozen=True)
class Frame:
    """What the kernels left.

    Attributes:
        colors: [C,H,W,X], as talksplat.rasterize gives them.
        alphas: [C,H,W,1].
        status: [4] int32.
    """

    colors: Array
    alphas: Array
    status: npt.NDArray[np.int32]


def aligned(size: int) -> npt.NDArray[np.uint8]:
    """Rubbish at an address for a workspace."""
    alignment: int = _native.GAUSSIAN_CUDA_WORKSPACE_ALIGNMENT
    buffer = np.full(size + alignment, 0xA5, np.uint8)
    start = -buffer.ctypes.data % alignment
    return buffer[start : start + size]


def draw(
    library: HostLibrary,
    scene: Scene,
    dialect: str = "gsplat",
    rasterize_mode: str = "classic",
    *,
    half_colors: bool = False,
    tile_entries: int = 0,
) -> Frame:
    """One frame of ``scene``."""
    options = dict(scene.options)
    sh_degree = options.pop("sh_degree", None)
    backgrounds = options.pop("backgrounds", None)
    cameras, count = len(scene.viewmats), len(scene.means)
    if backgrounds is not None:
        image = backgrounds if backgrounds.ndim == 4 else backgrounds[:, None, None, :]
        backgrounds = np.ascontiguousarray(image.transpose(0, 3, 1, 2))
    colors = scene.colors.astype(np.float16) if half_colors else scene.colors
    plan = _native.gaussian_cuda_plan(
        gaussians=count,
        cameras=cameras,
        channels=colors.shape[-1],
        width=scene.width,
        height=scene.height,
        sh_degree=-1 if sh_degree is None else sh_degree,
        sh_bases=0 if sh_degree is None else colors.shape[1],
        half_colors=half_colors,
        one_background=backgrounds is not None and backgrounds.shape[2:] == (1, 1),
        dialect=dialect,
        rasterize_mode=rasterize_mode,
        tile_entries=tile_entries,
        **options,
    )
    shape = (cameras, plan.output_channels, scene.height, scene.width)
    out_colors = np.full(shape, -7.0, np.float32)
    out_alphas = np.full((cameras, 1, *shape[2:]), -7.0, np.float32)
    status = np.full(4, -7, np.int32)
    workspace = aligned(plan.workspace_bytes)
    inputs = [
        np.ascontiguousarray(array)
        for array in (scene.means, scene.quats, scene.scales, scene.opacities, colors)
        + (scene.viewmats, scene.Ks)
    ]
    arguments = plan.arguments(
        *(array.ctypes.data for array in inputs),
        0 if backgrounds is None else backgrounds.ctypes.data,
        out_colors.ctypes.data,
        out_alphas.ctypes.data,
        status.ctypes.data,
        workspace.ctypes.data,
    )
    for launch in plan.launches:
        library.launch(*launch, arguments)
    return Frame(out_colors.transpose(0, 2, 3, 1), out_alphas.transpose(0, 2, 3, 1), status)
