"""How close generated frames are to a capture's own: PSNR, SSIM and how the lips move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

Frames = NDArray[np.uint8]
FloatArray = NDArray[np.floating]


def psnr(images: Frames, targets: Frames) -> FloatArray:
    """Peak signal-to-noise ratio per frame in dB, [T], of uint8 [T,H,W,3]."""
    difference = images.astype(np.float32) - targets.astype(np.float32)
    error = np.square(difference).mean(axis=(1, 2, 3))
    return 20 * np.log10(255) - 10 * np.log10(np.maximum(error, 1e-12))


def ssim(images: Frames, targets: Frames) -> FloatArray:
    """Structural similarity per frame, [T]: scikit-image's, Gaussian window as in the paper."""
    return np.array(
        [
            structural_similarity(
                image,
                target,
                channel_axis=2,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=255,
            )
            for image, target in zip(images, targets, strict=True)
        ]
    )


def correlation(a: FloatArray, b: FloatArray) -> float:
    """Pearson's correlation of two tracks."""
    return float(np.corrcoef(a, b)[0, 1])


@dataclass(frozen=True)
class LipReader:
    """Reads the opening of the inner lips off pictures.

    No public landmark detector is bound to this project, and none was trained on stylised heads, so
    the reader is one ridge regression from the pixels around the mouth to the opening, fitted on
    frames of the capture whose opening is known, and checked on frames it has not seen.

    Attributes:
        weights: [P], one per pixel value, plus the intercept as the last.
        mean: [P-1], subtracted from the pixel values.
        size: rows and columns of the crop.
        span: width of the crop in pixels of the picture.
    """

    weights: FloatArray
    mean: FloatArray
    size: tuple[int, int]
    span: float

    @classmethod
    def fit(
        cls,
        frames: Frames,
        centres: FloatArray,
        openings: FloatArray,
        span: float,
        size: tuple[int, int] = (20, 28),
        ridge: float = 30.0,
    ) -> Self:
        """Fit to frames [T,H,W,3] whose mouths lie at ``centres`` [T,2] (x, y pixels)."""
        crops = _mouth_crops(frames, centres, size, span)
        mean = crops.mean(axis=0)
        design = np.concatenate([crops - mean, np.ones((len(crops), 1))], axis=1)
        # In the dual: there are fewer frames than pixels.
        penalty = ridge * np.eye(len(crops))
        weights = design.T @ np.linalg.solve(design @ design.T + penalty, openings)
        return cls(weights, mean, size, span)

    def read(self, frames: Frames, centres: FloatArray) -> FloatArray:
        """Openings [T], in the unit of the fit."""
        crops = _mouth_crops(frames, centres, self.size, self.span) - self.mean
        opening: FloatArray = crops @ self.weights[:-1] + self.weights[-1]
        return opening


def _mouth_crops(
    frames: Frames, centres: FloatArray, size: tuple[int, int], span: float
) -> FloatArray:
    """Crops [T, rows·columns·3] in 0..1, each cell the mean of the pixels it covers."""
    rows, columns = size
    cell = span / columns
    y = (np.arange(rows) - (rows - 1) / 2) * cell
    x = (np.arange(columns) - (columns - 1) / 2) * cell
    crops = []
    for frame, (centre_x, centre_y) in zip(frames, centres, strict=True):
        crops.append(_box_means(frame, centre_x + x, centre_y + y, cell))
    return np.stack(crops).reshape(len(frames), -1)


def _box_means(frame: Frames, xs: FloatArray, ys: FloatArray, side: float) -> FloatArray:
    """Means over boxes of ``side`` pixels around grid points, by a summed-area table."""
    height, width = frame.shape[:2]
    table = np.zeros((height + 1, width + 1, 3))
    table[1:, 1:] = frame.astype(np.float64).cumsum(axis=0).cumsum(axis=1) / 255

    def at(y: FloatArray, x: FloatArray) -> FloatArray:
        y, x = y.clip(0, height - 1e-6)[:, None], x.clip(0, width - 1e-6)[None, :]
        y0, x0 = y.astype(int), x.astype(int)
        fy, fx = (y - y0)[..., None], (x - x0)[..., None]
        upper = table[y0, x0] * (1 - fx) + table[y0, x0 + 1] * fx
        lower = table[y0 + 1, x0] * (1 - fx) + table[y0 + 1, x0 + 1] * fx
        mixed: FloatArray = upper * (1 - fy) + lower * fy
        return mixed

    half = side / 2
    total = (
        at(ys + half, xs + half)
        - at(ys - half, xs + half)
        - at(ys + half, xs - half)
        + at(ys - half, xs - half)
    )
    return total / side**2
