"""Images between the float world inside and the bytes outside."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from talksplat import _native
from talksplat.errors import InputError


def to_uint8(
    image: npt.NDArray[np.float32], out: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint8]:
    """``uint8(clip(image, 0, 1) * 255)``, truncated, of float32 [3,H,W] or [H,W,3], any strides.

    Returns:
        uint8 [H,W,3]: ``out`` if given.

    Raises:
        InputError: ``image`` or ``out`` has another shape or dtype.
    """
    shape = image.shape
    if image.dtype != np.float32 or image.ndim != 3 or 3 not in (shape[0], shape[2]):
        raise InputError(
            f"image: expected float32 [3, H, W] or [H, W, 3], found {image.dtype} {list(shape)}"
        )
    channel_first = shape[2] != 3
    size = shape[1:] if channel_first else shape[:2]
    if out is None:
        out = np.empty((*size, 3), np.uint8)
    elif out.dtype != np.uint8 or out.shape != (*size, 3) or not out.flags.c_contiguous:
        raise InputError(
            f"out: expected C-contiguous uint8 {[*size, 3]}, found {out.dtype} {list(out.shape)}"
        )
    _native.to_uint8(image, out, channel_first)
    return out
