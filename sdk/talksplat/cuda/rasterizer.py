"""Gaussian rasterization on a GPU: launches only, so that it can be captured and replayed."""

from __future__ import annotations

import math
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from talksplat import _native
from talksplat.closing import Closing
from talksplat.cuda.device import Device
from talksplat.cuda.kernels import KernelModule
from talksplat.cuda.memory import DeviceArray, DeviceBuffer, PinnedBuffer
from talksplat.cuda.stream import Stream
from talksplat.errors import BackendError, InputError
from talksplat.rasterization import Dialect, RasterizeMode, RenderMode

Array = NDArray[Any]

# Most that room can be asked for; more were needed where the count stopped at 2^31 - 1.
_MOST_PAIRS = 2**31 - 2

# Bits of a status: BadInput of plugins/gaussian_rasterizer/rules.h.
_BAD_INPUTS = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks")
_FLOAT = np.dtype(np.float32)
_STATUS = 4  # numbers: bits of bad inputs, pairs needed, pairs there is room for, unused


class CudaRasterizer(Closing):
    """Renders N Gaussians from C cameras; the arguments of :func:`talksplat.rasterize`.

    Sizes and rules are chosen once; what is launched does not depend on data. It owns its workspace
    and its outputs, so it serves one stream of one session.

    Attributes:
        colors: [C,X,H,W] float32 of the last frame, X = D, 1 or D + 1 by ``render_mode``. NaN when
            :meth:`check` would raise.
        alphas: [C,1,H,W] float32, likewise.
        tile_entries: pairs of a Gaussian and a tile there is room for, per camera.
        workspace_bytes: memory it takes besides inputs and outputs.
    """

    def __init__(
        self,
        kernels: KernelModule,
        stream: Stream,
        *,
        gaussians: int,
        width: int,
        height: int,
        channels: int = 3,
        cameras: int = 1,
        near_plane: float = 0.01,
        far_plane: float = 1e10,
        radius_clip: float = 0.0,
        eps2d: float = 0.3,
        sh_degree: int | None = None,
        sh_bases: int | None = None,
        half_colors: bool = False,
        one_background: bool = False,
        render_mode: RenderMode = "RGB",
        rasterize_mode: RasterizeMode = "classic",
        dialect: Dialect = "gsplat",
        tile_entries: int = 0,
    ) -> None:
        """Plan the launches and allocate.

        Args:
            kernels: ``KernelModule(device, "gaussian_rasterizer")``; may serve many rasterizers
                and outlives them.
            stream: on which frames are made.
            gaussians: N.
            channels: D; 3 with spherical harmonics.
            cameras: C.
            sh_degree: 0 to 3, or None for features.
            sh_bases: K; None for (sh_degree + 1)².
            half_colors: ``colors`` is float16.
            one_background: ``backgrounds`` is [C,D,1,1] rather than [C,D,H,W].
            tile_entries: room for pairs of a Gaussian and a tile of 16×16 pixels, per camera; 0 for
                the plan's own choice. A frame that needs more is an error, told by :meth:`check`.

        Raises:
            InputError: sizes or rules no kernel can take.
            BackendError: there is not enough memory.
            DeviceLostError: the device is lost.
        """
        own: tuple[int, ...] = (channels,)
        bases = 0
        if sh_degree is not None:
            bases = (sh_degree + 1) ** 2 if sh_bases is None else sh_bases
            own = (bases, 3)
        try:
            plan = _native.gaussian_cuda_plan(
                gaussians=gaussians,
                cameras=cameras,
                channels=channels,
                width=width,
                height=height,
                sh_degree=-1 if sh_degree is None else sh_degree,
                sh_bases=bases,
                half_colors=half_colors,
                one_background=one_background,
                render_mode=render_mode,
                rasterize_mode=rasterize_mode,
                dialect=dialect,
                near_plane=near_plane,
                far_plane=far_plane,
                radius_clip=radius_clip,
                eps2d=eps2d,
                tile_entries=tile_entries,
            )
        except ValueError as error:
            raise InputError(str(error)) from error
        except TypeError as error:
            raise InputError(
                f"CudaRasterizer: expected numbers and names, found {error}"
            ) from error
        pixels = (1, 1) if one_background else (height, width)
        half = np.dtype(np.float16 if half_colors else np.float32)
        self._expected: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            "means": ((gaussians, 3), _FLOAT),
            "quats": ((gaussians, 4), _FLOAT),
            "scales": ((gaussians, 3), _FLOAT),
            "opacities": ((gaussians,), _FLOAT),
            "colors": ((gaussians, *own), half),
            "viewmats": ((cameras, 4, 4), _FLOAT),
            "Ks": ((cameras, 3, 3), _FLOAT),
            "backgrounds": ((cameras, channels, *pixels), _FLOAT),
        }
        self._plan = plan
        self._stream = stream
        self.tile_entries: int = plan.tile_entries
        self.workspace_bytes: int = plan.workspace_bytes
        self._launches = [(kernels.kernel(name), *sizes) for name, *sizes in plan.launches]
        device = kernels.device
        images = (cameras, plan.output_channels, height, width)
        with ExitStack() as made:  # nothing stays behind when memory ends half-way
            allocate = partial(_allocate, made, device, stream)
            self._workspace = allocate((plan.workspace_bytes,), np.uint8)
            self.colors = allocate(images, np.float32)
            self.alphas = allocate((cameras, 1, height, width), np.float32)
            self._status = allocate((_STATUS,), np.int32)
            status = made.enter_context(PinnedBuffer(device, 4 * _STATUS))
            self._status_on_host = status.array((_STATUS,), np.int32)
            self._status_on_host[:] = 0
            self._memory = made.pop_all()

    def enqueue(
        self,
        *,
        means: DeviceArray,
        quats: DeviceArray,
        scales: DeviceArray,
        opacities: DeviceArray,
        colors: DeviceArray,
        viewmats: DeviceArray,
        Ks: DeviceArray,
        backgrounds: DeviceArray | None = None,
    ) -> None:
        """Put one frame on the stream: launches, and a copy of its status to the host. Nothing is
        allocated or waited for, so it can be captured.

        Args:
            means: [N,3] float32.
            quats: [N,4] wxyz.
            scales: [N,3].
            opacities: [N] or [N,1].
            colors: [N,D], or [N,K,3] spherical harmonics; float16 if so planned.
            viewmats: [C,4,4].
            Ks: [C,3,3].
            backgrounds: [C,D,H,W] or [C,D,1,1], as planned; None for black.

        Raises:
            InputError: a shape or dtype is not what was planned.
            DeviceLostError: the device is lost.
        """
        inputs = {
            "means": means,
            "quats": quats,
            "scales": scales,
            "opacities": opacities,
            "colors": colors,
            "viewmats": viewmats,
            "Ks": Ks,
        }
        if backgrounds is not None:
            inputs["backgrounds"] = backgrounds
        for name, array in inputs.items():
            self._check_input(name, array)
        pointers = {name: array.pointer for name, array in inputs.items()}
        arguments = self._plan.arguments(
            **{"backgrounds": 0, **pointers},
            out_colors=self.colors.pointer,
            out_alphas=self.alphas.pointer,
            status=self._status.pointer,
            workspace=self._workspace.pointer,
        )
        for kernel, grid, block, shared_bytes in self._launches:
            kernel.launch(self._stream, grid, block, arguments, shared_bytes)
        self._stream.download(self._status, self._status_on_host)

    def check(self) -> None:
        """Say whether the last frame is right; to be called after ``stream.synchronize()``.

        Raises:
            InputError: Gaussians or cameras were not finite; says which.
            BackendError: there was no room for all pairs; says how much is needed.
        """
        check_status(self._status_on_host)

    def close(self) -> None:
        """Free workspace and outputs, once the stream is done with them."""
        self._memory.close()

    def _check_input(self, name: str, array: DeviceArray) -> None:
        shape, dtype = self._expected[name]
        found = array.shape
        if name == "opacities" and found == (*shape, 1):
            found = shape
        if found != shape or array.dtype != dtype:
            raise InputError(
                f"{name}: expected {dtype} {list(shape)}, found {array.dtype} {list(array.shape)}"
            )


def check_status(status: Array) -> None:
    """Say whether a frame is right, by what the rasterizer reported.

    Args:
        status: int32 [4]: bits of inputs that are not finite, pairs of a Gaussian and a tile that
            were needed, pairs there was room for, unused.

    Raises:
        InputError: Gaussians or cameras were not finite; says which.
        BackendError: there was no room for all pairs; says how much is needed.
    """
    bits, needed, room, _ = (int(number) for number in status)
    if bits:
        found = ", ".join(name for bit, name in enumerate(_BAD_INPUTS) if bits >> bit & 1)
        raise InputError(
            f"Gaussians and cameras must be finite, cameras invertible and their focal lengths "
            f"positive; found otherwise in {found}"
        )
    if needed > room:
        more = f"give tile_entries={needed} or more where it can be chosen, "
        raise BackendError(
            f"{needed:,} pairs of a Gaussian and a tile of 16 x 16 pixels are seen by one "
            f"camera, there is room for {room:,}; {more if needed <= _MOST_PAIRS else ''}"
            "move the camera away, or use the onnxruntime-cpu backend."
        )


def _allocate(
    made: ExitStack, device: Device, stream: Stream, shape: tuple[int, ...], dtype: DTypeLike
) -> DeviceArray:
    bytes = math.prod(shape) * np.dtype(dtype).itemsize
    return made.enter_context(DeviceBuffer(device, bytes)).array(shape, dtype, stream=stream)
