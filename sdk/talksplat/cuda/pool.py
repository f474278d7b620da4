"""Memory for what is handed out again and again, such as a frame that is left on the device."""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import replace

from numpy.typing import DTypeLike

from talksplat.closing import Closing
from talksplat.cuda.device import Device
from talksplat.cuda.memory import DeviceArray, DeviceBuffer

_KEPT = 4
"""A frame that is shown, one that is made, and some that a consumer lags behind."""


class BufferPool(Closing):
    """Buffers of one size. What is dropped comes back, from whatever thread drops it.

    Allocating and freeing would be done per frame otherwise, and a free may wait for everything
    that the device has to do. The few buffers that are kept are freed when the pool is closed, and
    those that are in use then when they are dropped.
    """

    def __init__(self, device: Device, bytes: int) -> None:
        self._device = device
        self._bytes = bytes
        self._unused: deque[DeviceBuffer] = deque()
        self._closed = False

    def take(self) -> Lease:
        """A buffer that nobody has; the contents are undefined.

        Work of others that was given the buffer before may still be on its way on the device, see
        :meth:`talksplat.cuda.Stream.wait_for`.

        Raises:
            BackendError: the device has not that much memory free; says how much it has.
            DeviceLostError: the device is lost.
        """
        self._device.check_alive()
        try:
            buffer = self._unused.popleft()
        except IndexError:
            buffer = DeviceBuffer(self._device, self._bytes)
        lease = Lease(buffer)
        # The garbage collector may come in between anything here: no locks, single steps only.
        weakref.finalize(lease, self._take_back, buffer).atexit = False
        return lease

    def close(self) -> None:
        """Free what is not in use, and what is in use once it is dropped."""
        self._closed = True
        self._free_unused()

    def _take_back(self, buffer: DeviceBuffer) -> None:
        if len(self._unused) >= _KEPT:
            buffer.close()
            return
        self._unused.append(buffer)
        if self._closed:
            self._free_unused()

    def _free_unused(self) -> None:
        while True:
            try:
                buffer = self._unused.popleft()
            except IndexError:
                return
            buffer.close()


class Lease:
    """A buffer of a pool, until this and all arrays in it are dropped."""

    def __init__(self, buffer: DeviceBuffer) -> None:
        self._buffer = buffer

    def array(self, shape: tuple[int, ...], dtype: DTypeLike, *, offset: int = 0) -> DeviceArray:
        """An array in these bytes; see :meth:`talksplat.cuda.DeviceBuffer.array`."""
        return replace(self._buffer.array(shape, dtype, offset=offset), owner=self)
