"""Frames of the CUDA rasterizer, on the host: its plan and its kernels in ordinary memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from benchmarks.rasterizer.scenes import Array, Scene
from tests.plugins.cuda.host.library import HostLibrary

import talksplat
from talksplat import _native


@dataclass(frozen=True)
class Frame:
    """What the kernels left.

    Attributes:
        colors: [C,H,W,X], as talksplat.rasterize gives them.
        alphas: [C,H,W,1].
        status: [4] int32: bits of what was not finite, pairs needed, pairs there was room for, 0.
    """

    colors: Array
    alphas: Array
    status: npt.NDArray[np.int32]

    @property
    def pictures(self) -> tuple[Array, Array]:
        """What talksplat.rasterize returns."""
        return self.colors, self.alphas

    def bits(self) -> bytes:
        """Everything, for comparisons that allow no difference."""
        return self.colors.tobytes() + self.alphas.tobytes() + self.status.tobytes()


def on_the_cpu(scene: Scene, dialect: str, rasterize_mode: str) -> tuple[Array, Array]:
    """(colors, alphas) of the CPU's rasterizer."""
    return talksplat.rasterize(
        *scene.arrays,
        scene.width,
        scene.height,
        **scene.options,
        dialect=dialect,
        rasterize_mode=rasterize_mode,
        threads=1,
    )


def aligned(size: int) -> npt.NDArray[np.uint8]:
    """Rubbish at an address that a workspace may have."""
    alignment: int = _native.GAUSSIAN_CUDA_WORKSPACE_ALIGNMENT
    buffer = np.full(size + alignment, 0xA5, np.uint8)
    start = -buffer.ctypes.data % alignment
    return buffer[start : start + size]


def plan_of(scene: Scene, dialect: str, rasterize_mode: str, **more: Any) -> Any:
    """The plan of a frame of ``scene``."""
    options = dict(scene.options)
    sh_degree = options.pop("sh_degree", None)
    backgrounds = options.pop("backgrounds", None)
    return _native.gaussian_cuda_plan(
        gaussians=len(scene.means),
        cameras=len(scene.viewmats),
        channels=scene.colors.shape[-1],
        width=scene.width,
        height=scene.height,
        sh_degree=-1 if sh_degree is None else sh_degree,
        sh_bases=0 if sh_degree is None else scene.colors.shape[1],
        half_colors=scene.colors.dtype == np.float16,
        one_background=backgrounds is not None and backgrounds.ndim == 2,
        dialect=dialect,
        rasterize_mode=rasterize_mode,
        **options,
        **more,
    )


def draw(
    library: HostLibrary,
    scene: Scene,
    dialect: str = "gsplat",
    rasterize_mode: str = "classic",
    **more: Any,
) -> Frame:
    """One frame of ``scene``, whose colours may be float16; ``more`` are arguments of the plan."""
    plan = plan_of(scene, dialect, rasterize_mode, **more)
    cameras = len(scene.viewmats)
    out_colors = np.full((cameras, plan.output_channels, scene.height, scene.width), -7, np.float32)
    out_alphas = np.full((cameras, 1, scene.height, scene.width), -7, np.float32)
    status = np.full(4, -7, np.int32)
    workspace = aligned(plan.workspace_bytes)
    backgrounds = scene.options.get("backgrounds")
    if backgrounds is not None and backgrounds.ndim == 4:
        backgrounds = np.ascontiguousarray(backgrounds.transpose(0, 3, 1, 2))
    inputs = [*map(np.ascontiguousarray, scene.arrays)]
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


def pairs_needed(library: HostLibrary, scene: Scene) -> int:
    """How many Gaussian-tile pairs gsplat's rules list, counted without drawing."""
    plan = plan_of(scene, "gsplat", "classic")
    status = np.zeros(4, np.int32)
    workspace = aligned(plan.workspace_bytes)
    inputs = [*map(np.ascontiguousarray, scene.arrays)]
    arguments = plan.arguments(
        *(array.ctypes.data for array in inputs), 0, 0, 0, status.ctypes.data, workspace.ctypes.data
    )
    for launch in plan.launches[:3]:  # prepare, project, scan
        library.launch(*launch, arguments)
    return int(status[1])
