"""An order for Gaussians in which neighbours in space are neighbours in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BITS = 10


def morton_order(points: NDArray[np.float32]) -> NDArray[np.int64]:
    """The permutation that sorts points [N,3] along a Z-order curve (Morton, 1966).

    A rasterizer reads the Gaussians of a tile one after the other: near ones then share cache
    lines. The picture is the same but for the order of Gaussians at equal depth.
    """
    if not len(points):
        return np.zeros(0, np.int64)
    low, high = points.min(axis=0), points.max(axis=0)
    cells = ((points - low) / np.maximum(high - low, 1e-9) * (2**_BITS - 1)).astype(np.int64)
    codes = np.zeros(len(cells), dtype=np.int64)
    for bit in range(_BITS):
        for axis in range(3):
            codes |= (cells[:, axis] >> bit & 1) << (3 * bit + axis)
    return np.argsort(codes, kind="stable")
