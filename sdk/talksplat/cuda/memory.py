"""Memory of a device and page-locked memory of the host, and arrays in both.

Device memory comes from ``cuMemAlloc`` and lies where it is until it is freed: its addresses are
part of captured graphs. (The pools of ``cuMemAllocAsync`` give memory whose life is ordered on a
stream, which a graph that is replayed would have to own.) Freeing may wait for all work of the
device, so nothing is allocated or freed per frame: what a session works in is there from its
beginning, and frames that are left on the device come from a pool, see :mod:`talksplat.cuda.pool`.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from talksplat import _native
from talksplat.closing import Closing
from talksplat.cuda.device import Device
from talksplat.errors import BackendError, InputError

if TYPE_CHECKING:
    from talksplat.cuda.stream import Stream

Array = NDArray[Any]

_DLPACK_CUDA = 2  # kDLCUDA
_DTYPES = ("float32", "float16", "uint8", "int8", "int32", "int64", "bool")


class DeviceBuffer(Closing):
    """Bytes on a device, freed by ``close`` or with the last array that lies in them.

    Attributes:
        device: where they are.
        pointer: their address, aligned to 256 bytes.
        bytes: how many; at least 1.
    """

    def __init__(self, device: Device, bytes: int) -> None:
        """Allocate; the contents are undefined.

        Raises:
            BackendError: the device has not that much memory free; says how much it has.
            DeviceLostError: the device is lost.
        """
        if bytes < 0:
            raise InputError(f"bytes: expected 0 or more, found {bytes}")
        self.device = device
        self.bytes = max(bytes, 1)  # the driver refuses to allocate nothing
        try:
            self.pointer = int(device.call("cuMemAlloc", self.bytes))
        except BackendError as error:
            raise _out_of_memory(error, device, self.bytes) from error
        context = device.context
        context.hold()
        self._free = weakref.finalize(self, context.free, "cuMemFree", self.pointer)
        self._free.atexit = False

    def array(
        self,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        *,
        offset: int = 0,
        stream: Stream | None = None,
    ) -> DeviceArray:
        """An array in these bytes.

        Args:
            shape: C-contiguous.
            dtype: float32, float16, uint8, int8, int32, int64 or bool.
            offset: bytes before it, a multiple of the size of ``dtype``.
            stream: whose work will have filled it; consumers are made to wait for that.

        Raises:
            InputError: it does not fit.
        """
        found = np.dtype(dtype)
        wanted = math.prod(shape) * found.itemsize
        if offset < 0 or offset % found.itemsize or offset + wanted > self.bytes:
            raise InputError(
                f"{found} {list(shape)} at byte {offset}: expected within {self.bytes} bytes and "
                f"aligned to {found.itemsize}"
            )
        return DeviceArray(self.device, self.pointer + offset, shape, found, self, stream)

    def close(self) -> None:
        """Free it now, when nothing uses it any more: waits for the work of the device."""
        self._free()


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """A C-contiguous array in the memory of a device.

    Torch, CuPy, JAX and others take it without a copy (``torch.from_dlpack``, ``cupy.asarray``).
    Its memory lives while the array or any view of it does, unless its owner is closed.

    Attributes:
        device: where it is.
        pointer: its address.
        shape: sizes.
        dtype: of its numbers.
        owner: what keeps the memory alive.
        stream: whose work fills it; None if it is complete.
    """

    device: Device
    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object = field(repr=False)
    stream: Stream | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.dtype.name not in _DTYPES:
            raise InputError(f"dtype: expected one of {', '.join(_DTYPES)}, found {self.dtype}")
        if any(size < 0 for size in self.shape):
            raise InputError(f"shape: expected sizes of 0 or more, found {list(self.shape)}")

    @classmethod
    def empty(
        cls,
        device: Device,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        stream: Stream | None = None,
    ) -> DeviceArray:
        """An array in a buffer of its own, with undefined contents.

        Raises:
            BackendError: there is not enough memory.
        """
        bytes = math.prod(shape) * np.dtype(dtype).itemsize
        return DeviceBuffer(device, bytes).array(shape, dtype, stream=stream)

    @property
    def size(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        """How many axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes."""
        return self.size * self.dtype.itemsize

    def reshape(self, *shape: int) -> DeviceArray:
        """The same numbers in another shape.

        Raises:
            InputError: that is another number of them.
        """
        if math.prod(shape) != self.size:
            raise InputError(f"reshape: {list(self.shape)} holds not as many as {list(shape)}")
        return replace(self, shape=shape)

    def numpy(self) -> Array:
        """A copy on the host; waits for the stream that fills the array.

        Raises:
            DeviceLostError: the device is gone, and the numbers with it.
        """
        if self.stream is not None:
            self.stream.synchronize()
        copy = np.empty(self.shape, self.dtype)
        if self.nbytes:
            # The memory holds the context, even after the device was closed.
            context = self.device.context
            context.call("cuMemcpyDtoH", copy.ctypes.data, self.pointer, self.nbytes)
        return copy

    def __dlpack_device__(self) -> tuple[int, int]:
        """(kDLCUDA, index); see the Python array API."""
        return _DLPACK_CUDA, self.device.index

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule that shares the memory; see the Python array API.

        Args:
            stream: on which the consumer will work: a CUDA stream, 1 or None for the legacy
                default stream, 2 for the per-thread one, -1 if the consumer takes care itself. It
                is made to wait for the stream that fills the array; the host does not wait.
            max_version: newest DLPack the consumer understands; None for a capsule from before 1.0.
            dl_device: other devices than the own one are refused.
            copy: True is refused.

        Raises:
            BufferError: what is asked for cannot be done without a copy, or ``stream`` is 0, which
                the protocol forbids as ambiguous.
            DeviceLostError: the device is lost.
        """
        if copy:
            raise BufferError("copy=True: expected None or False; use .numpy() for a copy")
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(f"dl_device: expected {self.__dlpack_device__()}, found {dl_device}")
        if stream == 0 or (stream is not None and stream < -1):
            raise BufferError(f"stream: expected -1, 1, 2 or a CUDA stream, found {stream}")
        self.device.check_alive()
        if self.stream is not None and stream != -1:
            self.stream.let_wait(1 if stream is None else stream)
        return _native.device_array_capsule(
            self, self.pointer, self.shape, self.dtype.name, self.device.index, max_version
        )

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of the protocol of Numba and CuPy. Consumers wait for its ``stream``."""
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer if self.size else 0, False),
            "strides": None,
            "stream": None if self.stream is None else self.stream.handle,
        }


class PinnedBuffer(Closing):
    """Page-locked bytes of the host: what a device reads and writes without staging.

    Attributes:
        device: the device whose context locked them.
        pointer: their address.
        bytes: how many; at least 1.
    """

    def __init__(self, device: Device, bytes: int) -> None:
        """Allocate; the contents are undefined.

        Raises:
            BackendError: the host has not that much memory to lock.
            DeviceLostError: the device is lost.
        """
        if bytes < 0:
            raise InputError(f"bytes: expected 0 or more, found {bytes}")
        self.device = device
        self.bytes = max(bytes, 1)
        self.pointer = int(device.call("cuMemHostAlloc", self.bytes, 0))
        context = device.context
        context.hold()
        self._free = weakref.finalize(self, context.free, "cuMemFreeHost", self.pointer)
        self._free.atexit = False

    @classmethod
    def like(cls, device: Device, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An array in a pinned buffer of its own, which lives as long as its views do."""
        return cls(device, math.prod(shape) * np.dtype(dtype).itemsize).array(shape, dtype)

    def array(self, shape: tuple[int, ...], dtype: DTypeLike, *, offset: int = 0) -> Array:
        """A NumPy array in these bytes; it keeps the buffer, unless that is closed.

        Raises:
            InputError: it does not fit.
        """
        found = np.dtype(dtype)
        wanted = math.prod(shape) * found.itemsize
        if offset < 0 or offset + wanted > self.bytes:
            raise InputError(
                f"{found} {list(shape)} at byte {offset}: {self.bytes} bytes are there"
            )
        memory = np.asarray(_PinnedBytes(self))
        return memory[offset : offset + wanted].view(found).reshape(shape)

    def close(self) -> None:
        """Free it now; no array in it may be used afterwards."""
        self._free()


class _PinnedBytes:
    """What NumPy asks for the memory, and by which pinned arrays are told from others."""

    def __init__(self, buffer: PinnedBuffer) -> None:
        self.buffer = buffer
        self.__array_interface__ = {
            "version": 3,
            "shape": (buffer.bytes,),
            "typestr": "|u1",
            "data": (buffer.pointer, False),
        }


def is_pinned(array: Array) -> bool:
    """Whether an array lies in a :class:`PinnedBuffer`."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, _PinnedBytes)


def _out_of_memory(error: BackendError, device: Device, asked: int) -> BackendError:
    if "CUDA_ERROR_OUT_OF_MEMORY" not in str(error):
        return error
    free = device.free_memory()
    return BackendError(
        f"GPU {device.index} ({device.name}) is out of memory: {asked:,} bytes were asked for, "
        f"{free:,} of {device.total_memory:,} are free. Close other sessions or programs on this "
        f"GPU, or use a smaller avatar or image."
    )
