"""Gaussians of a region over what lies behind them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from talksplat.errors import BundleError
from talksplat.manifest import Manifest
from talksplat.rasterization import Workspace, allocate_images, rasterize
from talksplat.tensor_reader import TensorReader

ByteImage = NDArray[np.uint8]
FloatArray = NDArray[np.float32]


class Appearance:
    """What of a region's Gaussians does not move: opacities [N], SH coefficients [N,K,3]."""

    def __init__(self, tensors: TensorReader, region: str, sh_degree: int) -> None:
        file = f"{region}.safetensors"
        self.opacities: FloatArray = np.ascontiguousarray(
            tensors.get(file, "opacities", (-1, 1))[:, 0]
        )
        count = len(self.opacities)
        self.shs: FloatArray = tensors.get(file, "shs", (count, -1, 3))
        if self.shs.shape[1] < (sh_degree + 1) ** 2:
            raise BundleError(
                f"{file} holds {self.shs.shape[1]} SH coefficients per Gaussian; degree "
                f"{sh_degree} needs {(sh_degree + 1) ** 2}."
            )


class Plate:
    """The picture behind the avatar as floats in 0..1, worked out only when it is another one."""

    def __init__(self, height: int, width: int) -> None:
        self._floats = allocate_images(1, height, width, 3)
        self._shown: ByteImage | None = None

    def show(self, picture: ByteImage) -> FloatArray:
        """[1,H,W,3] of a picture [H,W,3]; valid until the next call."""
        if picture is not self._shown:
            np.divide(picture, np.float32(255), out=self._floats[0])
            self._shown = picture
        return self._floats


class Layer:
    """One region of one stream, drawn over what lies behind it.

    Attributes:
        image: [1,H,W,3] of the last :meth:`draw`.
        alpha: [1,H,W,1] of the last :meth:`draw`, what the region covers.
    """

    def __init__(
        self, manifest: Manifest, appearance: Appearance, workspace: Workspace, threads: int
    ) -> None:
        self._rules = manifest.rasterizer
        self._K = np.array(manifest.camera.K, np.float32)[None]
        self._appearance = appearance
        self._workspace = workspace
        self._threads = threads
        self._size = (manifest.video.width, manifest.video.height)
        width, height = self._size
        self.image = allocate_images(1, height, width, 3)
        self.alpha = allocate_images(1, height, width, 1)

    def draw(
        self,
        means: FloatArray,
        quats: FloatArray,
        scales: FloatArray,
        viewmat: FloatArray,
        behind: FloatArray | None,
    ) -> FloatArray:
        """The region over ``behind`` [1,H,W,3], or premultiplied over black without it."""
        rules = self._rules
        rasterize(
            means,
            quats,
            scales,
            self._appearance.opacities,
            self._appearance.shs,
            viewmat[None],
            self._K,
            *self._size,
            near_plane=rules.near_plane,
            eps2d=rules.eps2d,
            sh_degree=rules.sh_degree,
            backgrounds=behind,
            rasterize_mode=rules.rasterize_mode,
            dialect=rules.dialect,
            out=(self.image, self.alpha),
            workspace=self._workspace,
            threads=self._threads,
        )
        return self.image


def coverage(*alphas: FloatArray) -> FloatArray:
    """[H,W]: what of the plate is covered by layers with these alphas [1,H,W,1]."""
    seen_through = np.ones_like(alphas[0])
    for alpha in alphas:
        seen_through *= 1 - alpha
    covered: FloatArray = 1 - seen_through[0, :, :, 0]
    return covered


def dilate(alpha: FloatArray, size: int) -> FloatArray:
    """The largest alpha in a square of ``size`` × ``size`` pixels around each pixel.

    Args:
        alpha: [1,H,W,1], not negative.
        size: odd; pixels beyond the image count as 0.
    """
    wide = _running_maximum(alpha[0, :, :, 0], size)
    return np.ascontiguousarray(_running_maximum(wide.T, size).T)[None, :, :, None]


def _running_maximum(rows: FloatArray, size: int) -> FloatArray:
    """Along the last axis, in log2(size) steps: windows of 1, 2, 4, … pixels, doubled."""
    length, reach = rows.shape[1], 1
    widest = np.pad(rows, ((0, 0), (size // 2, size // 2)))
    while reach < size:
        step = min(reach, size - reach)
        widest = np.maximum(widest[:, :-step], widest[:, step:])
        reach += step
    return widest[:, :length]
