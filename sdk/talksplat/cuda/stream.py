"""Streams, events and captured graphs."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talksplat.closing import Closing
from talksplat.cuda.device import Device
from talksplat.cuda.memory import DeviceArray, is_pinned
from talksplat.errors import BackendError, InputError

Array = NDArray[Any]

LEGACY_DEFAULT_STREAM = 1
"""CU_STREAM_LEGACY: the stream of whoever names none."""


class _Handle(Closing):
    """Something of the driver that is destroyed once."""

    def __init__(self, device: Device, destroy: str, handle: Any) -> None:
        self.device = device
        self.handle = int(handle)
        context = device.context
        context.hold()
        self._free = weakref.finalize(self, context.free, destroy, handle)
        self._free.atexit = False

    def close(self) -> None:
        """Destroy it; nothing may use it afterwards."""
        self._free()


class Event(_Handle):
    """A moment in the work of a stream.

    Attributes:
        handle: the CUevent as a number.
    """

    def __init__(self, device: Device, *, timing: bool = True) -> None:
        flags = device.context.driver.CUevent_flags
        flag = flags.CU_EVENT_DEFAULT if timing else flags.CU_EVENT_DISABLE_TIMING
        super().__init__(device, "cuEventDestroy", device.call("cuEventCreate", flag.value))

    def synchronize(self) -> None:
        """Let the host wait for it.

        Raises:
            DeviceLostError: the device failed in the work before it.
        """
        self.device.call("cuEventSynchronize", self.handle)

    def elapsed_since(self, start: Event) -> float:
        """Milliseconds between two events that have happened, to about half a microsecond."""
        return float(self.device.call("cuEventElapsedTime", start.handle, self.handle))


class Stream(_Handle):
    """A queue of work on a device that does not wait for the legacy default stream.

    Not thread-safe: one per session.

    Attributes:
        handle: the CUstream as a number, for other libraries.
    """

    def __init__(self, device: Device) -> None:
        flags = device.context.driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value
        super().__init__(device, "cuStreamDestroy", device.call("cuStreamCreate", flags))
        self._order = Event(device, timing=False)
        self._capturing = False

    def upload(self, source: Array, target: DeviceArray) -> None:
        """Copy from the host.

        Args:
            source: of the shape and dtype of ``target``, C-contiguous. Pinned memory must not
                change before the copy is done; other memory may at once, but cannot be captured.
            target: on this device.

        Raises:
            InputError: shapes or dtypes differ.
            DeviceLostError: the device is lost.
        """
        self._check_copy("source", source, target)
        if target.nbytes:
            self.device.call(
                "cuMemcpyHtoDAsync", target.pointer, source.ctypes.data, target.nbytes, self.handle
            )

    def download(self, source: DeviceArray, target: Array) -> None:
        """Copy to the host; pinned memory holds it after :meth:`synchronize`.

        Raises:
            InputError: shapes or dtypes differ, or ``target`` cannot be written.
            DeviceLostError: the device is lost.
        """
        self._check_copy("target", target, source)
        if not target.flags.writeable:
            raise InputError("target: expected an array that can be written")
        if source.nbytes:
            self.device.call(
                "cuMemcpyDtoHAsync", target.ctypes.data, source.pointer, source.nbytes, self.handle
            )

    def copy(self, source: DeviceArray, target: DeviceArray) -> None:
        """Copy on the device.

        Raises:
            InputError: the numbers of bytes differ.
            DeviceLostError: the device is lost.
        """
        if source.nbytes != target.nbytes:
            raise InputError(f"copy: {source.nbytes} bytes do not fit {target.nbytes}")
        if source.nbytes:
            self.device.call(
                "cuMemcpyDtoDAsync", target.pointer, source.pointer, source.nbytes, self.handle
            )

    def zero(self, target: DeviceArray) -> None:
        """Set every byte to 0.

        Raises:
            DeviceLostError: the device is lost.
        """
        if target.nbytes:
            self.device.call("cuMemsetD8Async", target.pointer, 0, target.nbytes, self.handle)

    def to_device(self, values: Array) -> DeviceArray:
        """A new array on the device with these values, for what is loaded once.

        Raises:
            BackendError: there is not enough memory.
            DeviceLostError: the device is lost.
        """
        array = DeviceArray.empty(self.device, values.shape, values.dtype)
        self.upload(np.ascontiguousarray(values), array)
        self.synchronize()
        return array

    def synchronize(self) -> None:
        """Let the host wait for all work so far.

        Raises:
            DeviceLostError: the device failed in it.
        """
        self.device.call("cuStreamSynchronize", self.handle)

    def record(self, event: Event) -> Event:
        """Let ``event`` happen when all work so far is done; returns it."""
        self.device.call("cuEventRecord", event.handle, self.handle)
        return event

    def wait(self, event: Event) -> None:
        """Let later work wait for ``event``; the host does not wait."""
        self.device.call("cuStreamWaitEvent", self.handle, event.handle, 0)

    def wait_for(self, stream: int) -> None:
        """Let later work wait for all work on another stream so far; the host does not wait.

        Args:
            stream: a CUstream as a number. What is recorded on :data:`LEGACY_DEFAULT_STREAM` comes
                after the work of every stream that was not made to be independent of it.
        """
        if stream != self.handle:
            self.device.call("cuEventRecord", self._order.handle, stream)
            self.wait(self._order)

    def let_wait(self, stream: int) -> None:
        """Let later work on another stream wait for all work on this one so far.

        Args:
            stream: a CUstream as a number; 1 is the legacy default stream, 2 the per-thread one.
        """
        if stream != self.handle:
            self.record(self._order)
            self.device.call("cuStreamWaitEvent", stream, self._order.handle, 0)

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        """Record the work of a ``with`` block instead of doing it.

        ::

            with stream.capture() as graph:
                ...                 # launches, copies to and from pinned memory
            graph.launch(stream)    # does it, as often as asked

        Nothing may be allocated or waited for inside. Other threads may do so meanwhile: only the
        calling thread's own calls are checked. Memory the work uses must live as long as the graph.

        Raises:
            BackendError: something cannot be captured; the stream is usable again afterwards.
            DeviceLostError: the device is lost.
        """
        if self._capturing:
            raise BackendError("capture: this stream is being captured already; end that first.")
        device, driver = self.device, self.device.context.driver
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        device.call("cuStreamBeginCapture", self.handle, mode)
        device.context.begin_capture()
        self._capturing = True
        graph = Graph(device)
        try:
            yield graph
        except BaseException:
            # The error of the block matters; what was recorded until then is thrown away.
            self._end_capture(graph, keep=False)
            raise
        self._end_capture(graph, keep=True)

    def _end_capture(self, graph: Graph, *, keep: bool) -> None:
        self._capturing = False
        try:
            if keep:
                graph._adopt(self.device.call("cuStreamEndCapture", self.handle))
            elif not self.device.lost:
                with self.device.current():
                    _, recorded = self.device.context.driver.cuStreamEndCapture(self.handle)
                if recorded is not None and int(recorded):
                    self.device.call("cuGraphDestroy", recorded)
        finally:
            self.device.context.end_capture()

    def _check_copy(self, name: str, host: Array, there: DeviceArray) -> None:
        if host.shape != there.shape or host.dtype != there.dtype:
            raise InputError(
                f"{name}: expected {there.dtype} {list(there.shape)}, found {host.dtype} "
                f"{list(host.shape)}"
            )
        if not host.flags.c_contiguous:
            raise InputError(f"{name}: expected a C-contiguous array")
        if self._capturing and not is_pinned(host):
            raise InputError(f"{name}: expected pinned memory, for a copy that is captured")

    def close(self) -> None:
        """Destroy it once its work is done."""
        with ExitStack() as closing:
            closing.callback(super().close)
            closing.callback(self._order.close)


class Graph(Closing):
    """Work that was captured, ready to be launched; made by :meth:`Stream.capture`."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._executable: _Handle | None = None

    def launch(self, stream: Stream) -> None:
        """Do the work, after what ``stream`` has to do.

        Raises:
            BackendError: nothing was captured, or the driver refuses.
            DeviceLostError: the device is lost.
        """
        if self._executable is None:
            raise BackendError("launch: this graph holds nothing; its capture has not ended.")
        self.device.call("cuGraphLaunch", self._executable.handle, stream.handle)

    def close(self) -> None:
        """Destroy it once its work is done."""
        if self._executable is not None:
            self._executable.close()

    def _adopt(self, recorded: Any) -> None:
        try:
            executable = self.device.call("cuGraphInstantiate", recorded, 0)
        finally:
            self.device.call("cuGraphDestroy", recorded)
        self._executable = _Handle(self.device, "cuGraphExecDestroy", executable)
