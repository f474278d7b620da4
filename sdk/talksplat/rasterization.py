"""Gaussian rasterization on the CPU, with the arguments of gsplat's ``rasterization``."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from threading import Lock
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from talksplat import _native
from talksplat.errors import InputError

Dialect = Literal["gsplat", "gsplat-1.5", "inria"]
RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
RasterizeMode = Literal["classic", "antialiased"]
InstructionSet = Literal["avx512", "avx2", "portable"]
Array = npt.NDArray[np.float32]

MAX_SH_DEGREE = 3
MAX_SIDE = 32768
MAX_GAUSSIANS = 2**31 - 1
MAX_THREADS = 256
_CACHE_LINE = 64  # bytes


@dataclass(frozen=True)
class StageTimes:
    """Milliseconds of the stages of one call, over all cameras."""

    project: float
    """Gaussians to splats, and how many each tile of 16×16 pixels will hold."""
    sort: float
    """Splats by depth."""
    bin: float
    """The list of every tile."""
    blend: float
    """Splats to pixels."""
    blend_backward: float
    """Gradients of pixels to gradients of splats; 0 before a backward pass."""
    project_backward: float
    """Gradients of splats to gradients of Gaussians; 0 before a backward pass."""


class Workspace:
    """Memory that ``rasterize`` keeps between calls: after the first frame nothing is allocated.

    One workspace serves one call at a time; give each thread its own.
    """

    def __init__(self) -> None:
        self._native = _native.RasterizeWorkspace()
        self._lock = Lock()

    @contextmanager
    def borrowed(self) -> Iterator[Any]:
        """The native workspace, for one call.

        Raises:
            InputError: another call is using it.
        """
        if not self._lock.acquire(blocking=False):
            raise InputError(
                "workspace: in use by another call; give every thread a workspace of its own"
            )
        try:
            yield self._native
        finally:
            self._lock.release()

    @property
    def times(self) -> StageTimes:
        """How long the stages of the last call took."""
        native = self._native.times
        return StageTimes(
            **{field.name: getattr(native, field.name) for field in fields(StageTimes)}
        )


def instruction_set() -> InstructionSet:
    """The instructions the kernels use: the best this processor has, unless
    ``choose_instruction_set`` or the environment variable ``TALKSPLAT_INSTRUCTION_SET`` chose."""
    name: InstructionSet = _native.instruction_set()
    return name


def choose_instruction_set(name: InstructionSet) -> None:
    """Use other instructions than the best, to compare or to debug.

    Raises:
        InputError: this processor does not have them.
    """
    if not _native.choose_instruction_set(name):
        known = ", ".join(get_args(InstructionSet))
        raise InputError(
            f"instruction set {name!r} is unknown or not available on this processor; "
            f"known are {known}"
        )


if _asked := os.environ.get("TALKSPLAT_INSTRUCTION_SET"):
    choose_instruction_set(cast(InstructionSet, _asked))


def _array(name: str, value: npt.ArrayLike, shape: tuple[int | str, ...]) -> Array:
    """``value`` as C-contiguous float32 of ``shape``; letters in ``shape`` stand for any size."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name}: expected float32, found dtype {array.dtype}")
    expected = "[" + ", ".join(str(size) for size in shape) + "]"
    fits = len(shape) == array.ndim and all(
        isinstance(size, str) or size == found
        for size, found in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise InputError(f"{name}: expected shape {expected}, found {list(array.shape)}")
    return np.ascontiguousarray(array, dtype=np.float32)


def _number(name: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise InputError(f"{name}: expected a number from {low:g} to {high:g}, found {value}")
    return float(value)


def _choice(name: str, value: str, choices: Any) -> int:
    known: tuple[str, ...] = get_args(choices)
    if value not in known:
        listed = ", ".join(repr(choice) for choice in known)
        raise InputError(f"{name}: expected one of {listed}, found {value!r}")
    return known.index(value)


@dataclass(frozen=True)
class Call:
    """One checked call: arrays ready for the kernels, shared by forward and backward."""

    settings: Any
    means: Array
    quats: Array
    scales: Array
    opacities: Array
    colors: Array
    viewmats: Array
    Ks: Array
    backgrounds: Array | None
    channels: int

    @property
    def cameras(self) -> int:
        """C."""
        return len(self.viewmats)

    def forward(self, workspace: Workspace, colors: Array, alphas: Array, keep_views: bool) -> None:
        """Render into ``colors`` [C,H,W,channels] and ``alphas`` [C,H,W,1]; ``keep_views`` holds
        every camera's lists in ``workspace`` for ``backward``."""
        with workspace.borrowed() as native:
            try:
                bad = _native.rasterize(
                    native,
                    self.settings,
                    self.means,
                    self.quats,
                    self.scales,
                    self.opacities,
                    self.colors,
                    self.viewmats,
                    self.Ks,
                    self.backgrounds,
                    colors,
                    alphas,
                    keep_views,
                )
            except _native.TooManyTileEntries as error:
                width, height = self.settings.width, self.settings.height
                raise InputError(
                    f"{len(self.means)} Gaussians on {width} x {height} pixels: their tile lists "
                    f"{error}; make the image smaller, or scales or the number of Gaussians"
                ) from error
        if bad:
            self._report_not_finite()

    def backward(self, workspace: Workspace, grad_colors: Array, grad_alphas: Array) -> list[Array]:
        """Gradients of (means, quats, scales, opacities, colors) after ``forward`` with
        ``keep_views`` on the same workspace."""
        inputs = (self.means, self.quats, self.scales, self.opacities, self.colors)
        gradients = [np.zeros_like(array) for array in inputs]
        with workspace.borrowed() as native:
            _native.rasterize_backward(
                native,
                self.settings,
                *inputs,
                self.backgrounds,
                grad_colors,
                grad_alphas,
                *gradients,
            )
        return gradients

    def _report_not_finite(self) -> None:
        arrays = {
            "means": self.means,
            "quats": self.quats,
            "scales": self.scales,
            "opacities": self.opacities,
            "colors": self.colors,
        }
        counts = {
            name: int(np.count_nonzero(~np.isfinite(array))) for name, array in arrays.items()
        }
        found = ", ".join(
            f"{name} ({count} of {arrays[name].size} values)"
            for name, count in counts.items()
            if count
        )
        raise InputError(f"Gaussians must be finite; found NaN or infinity in {found}")


def prepare(
    means: npt.ArrayLike,
    quats: npt.ArrayLike,
    scales: npt.ArrayLike,
    opacities: npt.ArrayLike,
    colors: npt.ArrayLike,
    viewmats: npt.ArrayLike,
    Ks: npt.ArrayLike,
    width: int,
    height: int,
    *,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    backgrounds: npt.ArrayLike | None = None,
    render_mode: RenderMode = "RGB",
    rasterize_mode: RasterizeMode = "classic",
    dialect: Dialect = "gsplat",
    threads: int = 0,
) -> Call:
    """Check the arguments of ``rasterize`` and bring them into the form the kernels read.

    Raises:
        InputError: as ``rasterize``.
    """
    means = _array("means", means, ("N", 3))
    count = len(means)
    if count > MAX_GAUSSIANS:
        raise InputError(f"means: expected at most {MAX_GAUSSIANS} Gaussians, found {count}")
    quats = _array("quats", quats, (count, 4))
    scales = _array("scales", scales, (count, 3))
    opacities = _array("opacities", opacities, (count,))
    viewmats = _array("viewmats", viewmats, ("C", 4, 4))
    cameras = len(viewmats)
    Ks = _array("Ks", Ks, (cameras, 3, 3))
    for name, array in (("viewmats", viewmats), ("Ks", Ks)):
        if not np.isfinite(array).all():
            raise InputError(f"{name}: expected finite values, found NaN or infinity")
    if not (Ks[:, [0, 1], [0, 1]] > 0).all():
        raise InputError("Ks: expected positive focal lengths at [0, 0] and [1, 1]")
    for name, side in (("width", width), ("height", height)):
        if not 1 <= side <= MAX_SIDE:
            raise InputError(f"{name}: expected 1 to {MAX_SIDE} pixels, found {side}")

    _choice("render_mode", render_mode, RenderMode)
    with_colors = render_mode.startswith("RGB")
    with_depth = render_mode.endswith("D")
    shape = np.shape(colors)
    if sh_degree is None:
        own: tuple[int | str, ...] = (count, "D")
    else:
        if not 0 <= sh_degree <= MAX_SH_DEGREE:
            raise InputError(f"sh_degree: expected 0 to {MAX_SH_DEGREE}, found {sh_degree}")
        own = (count, "K", 3)
    colors = _array("colors", colors, (cameras, *own) if len(shape) > len(own) else own)
    if sh_degree is not None and colors.shape[-2] < (sh_degree + 1) ** 2:
        raise InputError(
            f"colors: sh_degree {sh_degree} needs K >= {(sh_degree + 1) ** 2}, "
            f"found shape {list(colors.shape)}"
        )
    if sh_degree is not None:
        axes = viewmats[:, :3, :3].astype(np.float64)
        lengths = np.linalg.norm(axes, axis=2).prod(axis=1)
        if not (np.abs(np.linalg.det(axes)) > 1e-9 * lengths).all():
            raise InputError(
                "viewmats: expected invertible matrices, which give spherical harmonics the "
                "cameras' positions; found a singular one"
            )
    color_channels = colors.shape[-1] if with_colors else 0
    if with_colors and color_channels == 0:
        raise InputError(f"colors: expected at least one channel, found {list(colors.shape)}")
    if with_colors and backgrounds is not None:
        if np.ndim(backgrounds) == 4:
            expected: tuple[int, ...] = (cameras, height, width, color_channels)
        else:
            expected = (cameras, color_channels)
        found = np.asarray(backgrounds)
        # Strided images are read as they lie.
        if found.dtype != np.float32 or found.shape != expected:
            found = _array("backgrounds", found, expected)
        behind: Array | None = found
    else:
        behind = None
    if not 0 <= threads <= MAX_THREADS:
        raise InputError(
            f"threads: expected 0 (one per processor) to {MAX_THREADS}, found {threads}"
        )

    settings = _native.RasterizeSettings()
    settings.width = width
    settings.height = height
    settings.near_plane = _number("near_plane", near_plane, 1e-9, math.inf)
    settings.far_plane = min(_number("far_plane", far_plane, 0.0, math.inf), 3e38)
    settings.radius_clip = _number("radius_clip", radius_clip, 0.0, math.inf)
    settings.eps2d = _number("eps2d", eps2d, 0.0, math.inf)
    settings.sh_degree = -1 if sh_degree is None else sh_degree
    settings.dialect = _choice("dialect", dialect, Dialect)
    settings.antialiased = _choice("rasterize_mode", rasterize_mode, RasterizeMode) == 1
    settings.with_colors = with_colors
    settings.with_depth = with_depth
    settings.expected_depth = render_mode.endswith("ED")
    settings.threads = threads or min(_native.available_processors(), MAX_THREADS)
    return Call(
        settings,
        means,
        quats,
        scales,
        opacities,
        colors,
        viewmats,
        Ks,
        behind,
        color_channels + (1 if with_depth else 0),
    )


def allocate_images(cameras: int, height: int, width: int, channels: int) -> Array:
    """A channel-first buffer seen as [C,H,W,channels]: what ``rasterize`` writes fastest."""
    size = cameras * channels * height * width
    # Rows that begin a cache line can be written past the caches.
    buffer = np.empty(size + _CACHE_LINE // 4, np.float32)
    start = -buffer.ctypes.data % _CACHE_LINE // 4
    image = buffer[start : start + size].reshape(cameras, channels, height, width)
    return image.transpose(0, 2, 3, 1)


def _check_out(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.shape != shape:
        found = f"{getattr(array, 'dtype', type(array))} {list(getattr(array, 'shape', ()))}"
        raise InputError(f"out: {name} must be float32 {list(shape)}, found {found}")
    if not array.flags.writeable:
        raise InputError(f"out: {name} is read-only; pass an array that can be written")
    if any(stride % array.itemsize for stride in array.strides):
        raise InputError(f"out: the strides of {name} must be whole numbers of float32")


def rasterize(
    means: npt.ArrayLike,
    quats: npt.ArrayLike,
    scales: npt.ArrayLike,
    opacities: npt.ArrayLike,
    colors: npt.ArrayLike,
    viewmats: npt.ArrayLike,
    Ks: npt.ArrayLike,
    width: int,
    height: int,
    *,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    backgrounds: npt.ArrayLike | None = None,
    render_mode: RenderMode = "RGB",
    rasterize_mode: RasterizeMode = "classic",
    dialect: Dialect = "gsplat",
    out: tuple[Array, Array] | None = None,
    workspace: Workspace | None = None,
    threads: int = 0,
) -> tuple[Array, Array]:
    """Render 3D Gaussians from C pinhole cameras (Kerbl et al. 2023, section 4).

    Args:
        means: [N,3] centres in the world.
        quats: [N,4] wxyz; normalised here, except by the ``inria`` dialect.
        scales: [N,3] standard deviations, after activation.
        opacities: [N] after activation; values outside 0..1 follow the dialect.
        colors: [N,D] or [C,N,D] features, or [N,K,3] or [C,N,K,3] spherical harmonics when
            ``sh_degree`` is given (colour = max(SH + 0.5, 0)).
        viewmats: [C,4,4] world to camera, OpenCV axes.
        Ks: [C,3,3] in pixels; pixel centres lie at +0.5.
        width: pixels, 1 to 32768.
        height: pixels, 1 to 32768.
        near_plane: camera-space z below this is dropped; ``inria`` drops all up to 0.2.
        far_plane: camera-space z above this is dropped.
        radius_clip: Gaussians of at most this radius on the image, in pixels, are dropped.
        eps2d: low-pass filter added to both diagonal entries of the 2D covariance, square pixels.
        sh_degree: 0 to 3, or None for features.
        backgrounds: [C,D], or an image [C,H,W,D]; the result is colour + transmittance *
            background. A depth channel has none.
        render_mode: "D" is accumulated, "ED" expected camera-space z, as the last channel.
        rasterize_mode: "antialiased" scales opacities by the low pass (Mip-Splatting, Yu et al.
            2024, eq. 6).
        dialect: whose rules: "gsplat" is 1.6, "gsplat-1.5" is 1.5.3, "inria" is
            diff-gaussian-rasterization.
        out: (colors, alphas) to write into, float32 of the shapes returned, with any strides; a
            channel-first buffer seen as [C,H,W,D] is fastest.
        workspace: memory to keep between calls.
        threads: 0 for one per available processor. The pixels do not depend on it.

    Returns:
        colors [C,H,W,X], X = D, 1 or D + 1 by ``render_mode``, and alphas [C,H,W,1]; both float32.

    Raises:
        InputError: an argument has a wrong shape, dtype or range, or Gaussians are not finite,
            or cover so many tiles of 16×16 pixels that the lists of one camera need over 4 GiB.
    """
    call = prepare(
        means,
        quats,
        scales,
        opacities,
        colors,
        viewmats,
        Ks,
        width,
        height,
        near_plane=near_plane,
        far_plane=far_plane,
        radius_clip=radius_clip,
        eps2d=eps2d,
        sh_degree=sh_degree,
        backgrounds=backgrounds,
        render_mode=render_mode,
        rasterize_mode=rasterize_mode,
        dialect=dialect,
        threads=threads,
    )
    if out is None:
        out = (
            allocate_images(call.cameras, height, width, call.channels),
            allocate_images(call.cameras, height, width, 1),
        )
    else:
        _check_out("colors", out[0], (call.cameras, height, width, call.channels))
        _check_out("alphas", out[1], (call.cameras, height, width, 1))
    call.forward(workspace or Workspace(), out[0], out[1], keep_views=False)
    return out
