"""Layers over what lies behind them, in NumPy. Images are [1,D,H,W], alphas [1,1,H,W], float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def over(image: FloatArray, alpha: FloatArray, behind: FloatArray, out: FloatArray) -> FloatArray:
    """``image`` + (1 − ``alpha``) · ``behind``, into ``out``."""
    np.multiply(behind, 1 - alpha, out=out)
    return np.add(image, out, out=out)


def coverage(*alphas: FloatArray) -> FloatArray:
    """What layers with these alphas cover of what is behind all of them."""
    seen_through = 1 - alphas[0]
    for alpha in alphas[1:]:
        seen_through *= 1 - alpha
    return np.subtract(1, seen_through, out=seen_through)


def dilate(alpha: FloatArray, size: int) -> FloatArray:
    """The largest alpha in a square of ``size`` × ``size`` pixels around each pixel.

    Args:
        alpha: not negative.
        size: odd; pixels beyond the image count as 0.
    """
    wide = _running_maximum(alpha[0, 0], size)
    return np.ascontiguousarray(_running_maximum(wide.T, size).T)[None, None]


def _running_maximum(rows: FloatArray, size: int) -> FloatArray:
    """Along the last axis, in log2(size) steps: windows of 1, 2, 4, … pixels, doubled."""
    length, reach = rows.shape[1], 1
    widest = np.pad(rows, ((0, 0), (size // 2, size // 2)))
    while reach < size:
        step = min(reach, size - reach)
        widest = np.maximum(widest[:, :-step], widest[:, step:])
        reach += step
    return widest[:, :length]
