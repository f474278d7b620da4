"""What a frame program does between graphs, as kernels; bit for bit what NumPy does on the host.

The steps are those of :mod:`talksplat.frame_program`. Images are float32 [1,D,H,W], alphas
[1,1,H,W], pictures uint8 [H,W,3].
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from talksplat.closing import Closing
from talksplat.cuda.device import Device
from talksplat.cuda.kernels import KernelModule
from talksplat.cuda.memory import DeviceArray
from talksplat.cuda.stream import Stream
from talksplat.errors import InputError

MAX_LAYERS = 4
"""Alphas that :meth:`Compositing.coverage` multiplies at once."""

_KERNELS = ("unpack_picture", "pack_picture", "dilate_rows", "dilate_columns", "lay_over", "cover")
_BLOCK = 256  # threads
_MOST = 2**31 - 1  # numbers of an array, which kernels count with 32 bits


# The structures of plugins/compositing/compositing.h, member by member; Unpacking and Packing are
# laid out alike.
class _Repacking(ctypes.Structure):
    _fields_ = (
        ("source", ctypes.c_uint64),
        ("target", ctypes.c_uint64),
        ("pixels", ctypes.c_int32),
    )


class _Dilation(ctypes.Structure):
    _fields_ = (
        ("source", ctypes.c_uint64),
        ("target", ctypes.c_uint64),
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("reach", ctypes.c_int32),
    )


class _Layering(ctypes.Structure):
    _fields_ = (
        ("image", ctypes.c_uint64),
        ("alpha", ctypes.c_uint64),
        ("behind", ctypes.c_uint64),
        ("result", ctypes.c_uint64),
        ("pixels", ctypes.c_int32),
        ("channels", ctypes.c_int32),
    )


class _Covering(ctypes.Structure):
    _fields_ = (
        ("alphas", ctypes.c_uint64 * MAX_LAYERS),
        ("coverage", ctypes.c_uint64),
        ("pixels", ctypes.c_int32),
        ("layers", ctypes.c_int32),
    )


class Compositing(Closing):
    """The kernels of Unpack, Dilate, Over, Coverage and Pack on one device.

    Every method puts one or two launches on a stream and returns: nothing is allocated or waited
    for, so all of them can be captured. Thread-safe; shared by sessions.
    """

    def __init__(self, device: Device) -> None:
        """Compile the kernels, or take them from the cache, and load them.

        Raises:
            BackendError: NVRTC is missing, or the driver refuses what it made.
        """
        self.device = device
        self._module = KernelModule(device, "compositing")
        # All at once: a kernel that is first looked up in a capture could not be loaded any more.
        self._kernels = {name: self._module.kernel(name) for name in _KERNELS}

    def unpack(self, stream: Stream, picture: DeviceArray, image: DeviceArray) -> None:
        """``image`` [1,3,H,W] = ``picture`` uint8 [H,W,3] / 255.

        Raises:
            InputError: shapes or dtypes do not fit.
        """
        _check("picture", picture, (*picture.shape[:2], 3), np.uint8)
        height, width, _ = picture.shape
        _check("image", image, (1, 3, height, width), np.float32)
        pixels = height * width
        arguments = _Repacking(picture.pointer, image.pointer, pixels)
        self._launch("unpack_picture", stream, pixels, arguments)

    def dilate(
        self,
        stream: Stream,
        alpha: DeviceArray,
        size: int,
        dilated: DeviceArray,
        scratch: DeviceArray,
    ) -> None:
        """``dilated`` = the largest ``alpha`` in a square of ``size`` × ``size`` pixels, ``size``
        odd; pixels beyond the image count as 0. ``scratch`` has the shape of ``alpha``; all three
        are different arrays.

        Raises:
            InputError: shapes or dtypes do not fit, or ``size`` is even.
        """
        if size < 1 or size % 2 == 0:
            raise InputError(f"size: expected an odd number of pixels, found {size}")
        shape = alpha.shape
        for name, array in (("alpha", alpha), ("dilated", dilated), ("scratch", scratch)):
            _check(name, array, (1, 1, *shape[2:]), np.float32)
        if len({alpha.pointer, dilated.pointer, scratch.pointer}) < 3:
            raise InputError("dilate: expected three different arrays")
        height, width = shape[2:]
        for name, source, target in (
            ("dilate_rows", alpha, scratch),
            ("dilate_columns", scratch, dilated),
        ):
            arguments = _Dilation(source.pointer, target.pointer, width, height, size // 2)
            self._launch(name, stream, height * width, arguments)

    def over(
        self,
        stream: Stream,
        image: DeviceArray,
        alpha: DeviceArray,
        behind: DeviceArray,
        result: DeviceArray,
    ) -> None:
        """``result`` = ``image`` + ``behind`` · (1 − ``alpha``); may be ``image`` or ``behind``.

        Raises:
            InputError: shapes or dtypes do not fit.
        """
        shape = image.shape
        for name, array in (("image", image), ("behind", behind), ("result", result)):
            _check(name, array, shape, np.float32)
        _check("alpha", alpha, (1, 1, *shape[2:]), np.float32)
        arguments = _Layering(
            image.pointer, alpha.pointer, behind.pointer, result.pointer, alpha.size, shape[1]
        )
        self._launch("lay_over", stream, alpha.size, arguments)

    def coverage(
        self, stream: Stream, alphas: Sequence[DeviceArray], coverage: DeviceArray
    ) -> None:
        """``coverage`` = 1 − Π (1 − alpha), multiplied in the order of ``alphas``.

        Raises:
            InputError: shapes or dtypes do not fit, or there are none or more than ``MAX_LAYERS``.
        """
        if not 1 <= len(alphas) <= MAX_LAYERS:
            raise InputError(f"alphas: expected 1 to {MAX_LAYERS}, found {len(alphas)}")
        for array in (*alphas, coverage):
            _check("alphas and coverage", array, (1, 1, *coverage.shape[2:]), np.float32)
        layers = (ctypes.c_uint64 * MAX_LAYERS)(*(alpha.pointer for alpha in alphas))
        arguments = _Covering(layers, coverage.pointer, coverage.size, len(alphas))
        self._launch("cover", stream, coverage.size, arguments)

    def pack(self, stream: Stream, image: DeviceArray, picture: DeviceArray) -> None:
        """``picture`` uint8 [H,W,3] = uint8(clip(``image``, 0, 1) · 255), truncated; what is not a
        number becomes 0.

        Raises:
            InputError: shapes or dtypes do not fit.
        """
        _check("image", image, (1, 3, *image.shape[2:]), np.float32)
        height, width = image.shape[2:]
        _check("picture", picture, (height, width, 3), np.uint8)
        pixels = height * width
        arguments = _Repacking(image.pointer, picture.pointer, pixels)
        self._launch("pack_picture", stream, pixels, arguments)

    def _launch(
        self, kernel: str, stream: Stream, pixels: int, arguments: ctypes.Structure
    ) -> None:
        if pixels:
            blocks = math.ceil(pixels / _BLOCK)
            self._kernels[kernel].launch(stream, (blocks, 1, 1), (_BLOCK, 1, 1), bytes(arguments))

    def close(self) -> None:
        """Unload the kernels."""
        self._module.close()


def _check(name: str, array: DeviceArray, shape: tuple[Any, ...], dtype: DTypeLike) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise InputError(
            f"{name}: expected {np.dtype(dtype)} {list(shape)}, found {array.dtype} "
            f"{list(array.shape)}"
        )
    if array.size > _MOST:
        raise InputError(f"{name}: expected at most {_MOST} numbers, found {array.size}")
