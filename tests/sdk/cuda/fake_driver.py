"""A CUDA driver without a GPU: ``cuda.bindings.driver`` over the memory of the host.

It takes and gives what the real functions do, with the real enumerations and handle types. Memory
is real memory, so pointers can be given to anything; kernels run through their compilation for the
host. To find what a forgiving stand-in would hide:

* work on a stream is done as late as the driver's promises allow: when something waits for it;
* new memory is filled with NaN, and a guard before and behind it is checked when it is freed;
* what befell a context is said by whatever call comes next, and what ended has no handle any more;
* in a thread that captures, what may not be captured fails and spoils the capture;
* what is still alive when a context ends is noted in :attr:`FakeDriver.leaks`.

Faults to order::

    FakeDriver(installed=False)                  # no libcuda
    FakeDriver(version=11_080)                   # driver too old
    FakeDriver(gpus=())                          # no device
    FakeDriver(gpus=(Gpu(memory=1_000_000),))    # soon out of memory
    driver.fail_next("cuMemAlloc", "CUDA_ERROR_OUT_OF_MEMORY")
    driver.lose_device("CUDA_ERROR_ILLEGAL_ADDRESS")   # in the next work on a stream

For other stand-ins (TensorRT, ONNX Runtime) there are :meth:`FakeDriver.enqueue`, which puts work
of the host on a stream or into its capture, and :meth:`FakeDriver.view`, NumPy's view of device
memory.
"""
# ruff: noqa: N802 (the driver's own names)

from __future__ import annotations

import ctypes
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import RLock, get_ident, local
from typing import Any, Protocol

import numpy as np
from cuda.bindings import driver as real
from numpy.typing import DTypeLike, NDArray

Work = Callable[[], None]

SUCCESS = real.CUresult.CUDA_SUCCESS
_ALIGNMENT = 256
_SHARED_BYTES = 48 * 1024  # what a block may have without being asked for more
_FINAL = {"CUDA_ERROR_ECC_UNCORRECTABLE", "CUDA_ERROR_LAUNCH_FAILED", "CUDA_ERROR_ILLEGAL_ADDRESS"}
_FRESH, _GUARD = 0xFF, 0xA5  # NaN as floats; anything else


@dataclass(frozen=True)
class Gpu:
    """What the driver says of one device."""

    name: str = "Imaginary GPU"
    compute_capability: tuple[int, int] = (8, 9)
    memory: int = 2**31


class HostKernels(Protocol):
    """Kernels compiled for the host."""

    def argument_bytes(self, kernel: str) -> int | None:
        """Size of the structure the kernel takes; None if there is no such kernel."""
        ...

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared_bytes: int,
        arguments: bytes,
    ) -> None:
        """Run every block of it."""
        ...


class DriverError(Exception):
    """A result other than success."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.result = getattr(real.CUresult, name)


class FakeDriver:
    """What ``from cuda.bindings import driver`` gives in a test.

    Attributes:
        calls: how often each function was called.
        launched: kernels in the order they were run.
        leaks: what was alive when its context ended.
        overruns: addresses of memory whose guard was written to.
        freed_in_use: page-locked memory that was freed before the copies from and to it were done,
            which the driver does not promise to wait for.
    """

    def __init__(
        self,
        kernels: HostKernels | None = None,
        *,
        gpus: tuple[Gpu, ...] = (Gpu(),),
        version: int = real.CUDA_VERSION,
        installed: bool = True,
    ) -> None:
        self.gpus = gpus
        self.calls: Counter[str] = Counter()
        self.launched: list[str] = []
        self.leaks: list[str] = []
        self.overruns: list[int] = []
        self.freed_in_use: list[int] = []
        self._kernels = kernels
        self._version = version
        self._installed = installed
        self._initialised = False
        self._lock = RLock()
        self._next_handle = 0x1000
        self._contexts: dict[int, _Context] = {}
        self._others: set[int] = set()
        self._thread = _Thread()
        self._ordered: dict[str, str] = {}

    # For tests.

    def fail_next(self, function: str, result: str) -> None:
        """Let the next call of a function give another result than success."""
        self._ordered[function] = result

    def lose_device(self, result: str = "CUDA_ERROR_ILLEGAL_ADDRESS", index: int = 0) -> None:
        """Let the next work on a stream of this device fail, and everything after it."""
        self._contexts[index].doomed = result

    @property
    def lost(self) -> bool:
        """Whether a device is lost, and was not reset since."""
        return any(context.lost is not None for context in self._contexts.values())

    def other_context(self) -> int:
        """A context that somebody else made, current in no thread."""
        self._others.add(self._handle())
        return max(self._others)

    def enqueue(self, stream: int, work: Work) -> None:
        """Put work of the host on a stream, or into its capture."""
        with self._lock:
            self._put(self._stream(stream), work)

    def view(self, pointer: int, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Device memory as an array; to be used in work on a stream.

        Raises:
            DriverError: this is not all allocated: CUDA_ERROR_ILLEGAL_ADDRESS.
        """
        wanted = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        for context in self._contexts.values():
            for memory in context.memory.values():
                if memory.pointer <= pointer and pointer + wanted <= memory.pointer + memory.size:
                    return _bytes_at(pointer, wanted).view(dtype).reshape(shape)
        raise DriverError("CUDA_ERROR_ILLEGAL_ADDRESS")

    def alive(self) -> Counter[str]:
        """What has been made and not been freed."""
        found: Counter[str] = Counter()
        for context in self._contexts.values():
            found["memory"] += len(context.memory)
            found["pinned"] += len(context.pinned)
            for thing in context.things.values():
                found[type(thing).__name__.strip("_").lower()] += 1
        return +found

    # Types and enumerations are the real ones; a function that is not here does not exist.

    def __getattr__(self, name: str) -> Any:
        if name.startswith("CU"):
            return getattr(real, name)
        raise AttributeError(f"the fake driver has no {name}")

    # The driver's functions.

    def cuGetErrorString(self, error: Any) -> tuple[Any, bytes]:
        return SUCCESS, f"the meaning of {error.name}".encode()

    def cuDriverGetVersion(self) -> tuple[Any, int]:
        if not self._installed:
            raise RuntimeError("Failed to dlopen libcuda.so.1")
        return SUCCESS, self._version

    def cuInit(self, flags: int) -> tuple[Any]:
        def work() -> None:
            if not self.gpus:
                raise DriverError("CUDA_ERROR_NO_DEVICE")
            self._initialised = True

        return self._answer("cuInit", work, needs_context=False)

    def cuDeviceGetCount(self) -> tuple[Any, ...]:
        return self._answer("cuDeviceGetCount", lambda: len(self.gpus), needs_context=False)

    def cuDeviceGet(self, ordinal: int) -> tuple[Any, ...]:
        return self._answer("cuDeviceGet", lambda: real.CUdevice(ordinal), needs_context=False)

    def cuDeviceGetName(self, length: int, device: Any) -> tuple[Any, ...]:
        name = self.gpus[int(device)].name.encode()[: length - 1].ljust(length, b"\0")
        return self._answer("cuDeviceGetName", lambda: name, needs_context=False)

    def cuDeviceGetAttribute(self, attribute: Any, device: Any) -> tuple[Any, ...]:
        known = real.CUdevice_attribute
        major, minor = self.gpus[int(device)].compute_capability
        values = {
            known.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: major,
            known.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: minor,
        }
        return self._answer("cuDeviceGetAttribute", lambda: values[attribute], needs_context=False)

    def cuDeviceTotalMem(self, device: Any) -> tuple[Any, ...]:
        memory = self.gpus[int(device)].memory
        return self._answer("cuDeviceTotalMem", lambda: memory, needs_context=False)

    def cuDevicePrimaryCtxRetain(self, device: Any) -> tuple[Any, ...]:
        def work() -> Any:
            if not self._initialised:
                raise DriverError("CUDA_ERROR_NOT_INITIALIZED")
            index = int(device)
            if index not in self._contexts:
                self._contexts[index] = self._new_context(index)
            self._contexts[index].users += 1
            return real.CUcontext(self._contexts[index].handle)

        return self._answer("cuDevicePrimaryCtxRetain", work, needs_context=False)

    def cuDevicePrimaryCtxRelease(self, device: Any) -> tuple[Any, ...]:
        def work() -> None:
            context = self._contexts.get(int(device))
            if context is None:
                raise DriverError("CUDA_ERROR_INVALID_CONTEXT")
            context.users -= 1
            if context.users == 0:
                self._end(int(device))

        return self._answer("cuDevicePrimaryCtxRelease", work, needs_context=False)

    def cuDevicePrimaryCtxReset(self, device: Any) -> tuple[Any, ...]:
        def work() -> None:
            index = int(device)
            if (context := self._contexts.get(index)) is not None:
                self._end(index)
                self._contexts[index] = self._new_context(index, context.users)

        return self._answer("cuDevicePrimaryCtxReset", work, needs_context=False)

    def cuCtxGetCurrent(self) -> tuple[Any, Any]:
        return SUCCESS, real.CUcontext(self._thread.current[-1] if self._thread.current else 0)

    def cuCtxPushCurrent(self, context: Any) -> tuple[Any]:
        # Any call may say what befell a context in earlier work, this one as well.
        for known in self._contexts.values():
            if known.handle == int(context):
                if known.lost is not None:
                    return (getattr(real.CUresult, known.lost),)
                self._thread.current.append(int(context))
                return (SUCCESS,)
        if int(context) not in self._others:
            return (real.CUresult.CUDA_ERROR_INVALID_CONTEXT,)
        self._thread.current.append(int(context))
        return (SUCCESS,)

    def cuCtxPopCurrent(self) -> tuple[Any, Any]:
        return SUCCESS, real.CUcontext(self._thread.current.pop())

    def cuCtxSetCurrent(self, context: Any) -> tuple[Any]:
        self._thread.current[-1:] = [int(context)]
        return (SUCCESS,)

    def cuCtxSynchronize(self) -> tuple[Any, ...]:
        return self._answer("cuCtxSynchronize", self._finish_all, unsafe=True)

    def cuMemGetInfo(self) -> tuple[Any, ...]:
        def work() -> tuple[int, int]:
            context = self._context()
            return context.capacity - context.used, context.capacity

        return self._answer("cuMemGetInfo", work)

    def cuMemAlloc(self, bytes: int) -> tuple[Any, ...]:
        def work() -> Any:
            context = self._context()
            if bytes == 0:
                raise DriverError("CUDA_ERROR_INVALID_VALUE")
            if context.used + bytes > context.capacity:
                raise DriverError("CUDA_ERROR_OUT_OF_MEMORY")
            memory = _Memory(bytes)
            context.memory[memory.pointer] = memory
            return real.CUdeviceptr(memory.pointer)

        return self._answer("cuMemAlloc", work, unsafe=True)

    def cuMemFree(self, pointer: Any) -> tuple[Any, ...]:
        def work() -> None:
            self._finish_all()
            memory = self._context().memory.pop(int(pointer), None)
            if memory is None:
                raise DriverError("CUDA_ERROR_INVALID_VALUE")
            if not memory.is_intact():
                self.overruns.append(memory.pointer)

        return self._answer("cuMemFree", work, unsafe=True)

    def cuMemHostAlloc(self, bytes: int, flags: int) -> tuple[Any, ...]:
        def work() -> int:
            memory = _Memory(bytes)
            self._context().pinned[memory.pointer] = memory
            return memory.pointer

        return self._answer("cuMemHostAlloc", work, unsafe=True)

    def cuMemFreeHost(self, pointer: int) -> tuple[Any, ...]:
        def work() -> None:
            memory = self._context().pinned.get(int(pointer))
            if memory is None:
                raise DriverError("CUDA_ERROR_INVALID_VALUE")
            if any(copy.uses(memory) for copy in self._copies_to_come()):
                self.freed_in_use.append(memory.pointer)
            self._finish_all()  # or this process would be the one that crashes
            del self._context().pinned[memory.pointer]

        return self._answer("cuMemFreeHost", work, unsafe=True)

    def cuMemcpyDtoH(self, host: int, device: Any, bytes: int) -> tuple[Any, ...]:
        # Waits for the legacy default stream only: other streams' work may not be done yet.
        def work() -> None:
            self._run(self._stream(1))
            self._guarded(lambda: _copy(host, self._range(int(device), bytes), bytes))

        return self._answer("cuMemcpyDtoH", work, unsafe=True)

    def cuMemcpyHtoD(self, device: Any, host: int, bytes: int) -> tuple[Any, ...]:
        def work() -> None:
            self._run(self._stream(1))
            self._guarded(lambda: _copy(self._range(int(device), bytes), host, bytes))

        return self._answer("cuMemcpyHtoD", work, unsafe=True)

    def cuMemcpyHtoDAsync(self, device: Any, host: int, bytes: int, stream: Any) -> tuple[Any, ...]:
        def work() -> None:
            queue, target = self._stream(stream), int(device)
            if self._is_pinned(host, bytes):
                self._put(
                    queue,
                    _HostCopy(host, bytes, lambda: _copy(self._range(target, bytes), host, bytes)),
                )
                return
            if queue.capture is not None:
                raise DriverError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
            staged = _bytes_at(host, bytes).copy()
            self._put(queue, lambda: _copy(self._range(target, bytes), staged.ctypes.data, bytes))

        return self._answer("cuMemcpyHtoDAsync", work)

    def cuMemcpyDtoHAsync(self, host: int, device: Any, bytes: int, stream: Any) -> tuple[Any, ...]:
        def work() -> None:
            queue, source = self._stream(stream), int(device)
            pinned = self._is_pinned(host, bytes)
            if queue.capture is not None and not pinned:
                raise DriverError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
            self._put(
                queue,
                _HostCopy(host, bytes, lambda: _copy(host, self._range(source, bytes), bytes)),
            )
            if not pinned:
                self._run(queue)

        return self._answer("cuMemcpyDtoHAsync", work)

    def cuMemcpyDtoDAsync(
        self, target: Any, source: Any, bytes: int, stream: Any
    ) -> tuple[Any, ...]:
        to, of = int(target), int(source)

        def work() -> None:
            _copy(self._range(to, bytes), self._range(of, bytes), bytes)

        return self._answer("cuMemcpyDtoDAsync", lambda: self._put(self._stream(stream), work))

    def cuMemsetD8Async(self, target: Any, value: int, bytes: int, stream: Any) -> tuple[Any, ...]:
        def work() -> None:
            ctypes.memset(self._range(int(target), bytes), value, bytes)

        return self._answer("cuMemsetD8Async", lambda: self._put(self._stream(stream), work))

    def cuStreamCreate(self, flags: int) -> tuple[Any, ...]:
        return self._answer("cuStreamCreate", lambda: real.CUstream(self._new(_Stream())))

    def cuStreamDestroy(self, stream: Any) -> tuple[Any, ...]:
        def work() -> None:
            self._run(self._take(_Stream, stream))

        return self._answer("cuStreamDestroy", work)

    def cuStreamSynchronize(self, stream: Any) -> tuple[Any, ...]:
        def work() -> None:
            queue = self._stream(stream)
            if queue.capture is not None:
                raise DriverError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
            self._run(queue)

        return self._answer("cuStreamSynchronize", work)

    def cuStreamQuery(self, stream: Any) -> tuple[Any, ...]:
        return self._answer("cuStreamQuery", lambda: self._run(self._stream(stream)))

    def cuStreamIsCapturing(self, stream: Any) -> tuple[Any, ...]:
        status = real.CUstreamCaptureStatus

        def work() -> Any:
            capture = self._stream(stream).capture
            if capture is None:
                return status.CU_STREAM_CAPTURE_STATUS_NONE
            if capture.spoiled:
                return status.CU_STREAM_CAPTURE_STATUS_INVALIDATED
            return status.CU_STREAM_CAPTURE_STATUS_ACTIVE

        return self._answer("cuStreamIsCapturing", work)

    def cuStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> tuple[Any, ...]:
        def work() -> None:
            recorded = self._thing(_Event, event).recorded
            if recorded is not None:
                self._put(self._stream(stream), lambda: self._run_until(recorded))

        return self._answer("cuStreamWaitEvent", work)

    def cuStreamBeginCapture(self, stream: Any, mode: Any) -> tuple[Any, ...]:
        def work() -> None:
            queue = self._stream(stream)
            if queue.capture is not None:
                raise DriverError("CUDA_ERROR_ILLEGAL_STATE")
            queue.capture = _Capture(get_ident(), mode)

        return self._answer("cuStreamBeginCapture", work)

    def cuStreamEndCapture(self, stream: Any) -> tuple[Any, ...]:
        def work() -> Any:
            queue = self._stream(stream)
            capture, queue.capture = queue.capture, None
            if capture is None:
                raise DriverError("CUDA_ERROR_ILLEGAL_STATE")
            if capture.spoiled:
                raise DriverError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
            return real.CUgraph(self._new(_Graph(capture.work)))

        return self._answer("cuStreamEndCapture", work)

    def cuGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        def work() -> Any:
            recorded = self._thing(_Graph, graph)
            return real.CUgraphExec(self._new(_Executable(list(recorded.work))))

        return self._answer("cuGraphInstantiate", work)

    def cuGraphLaunch(self, executable: Any, stream: Any) -> tuple[Any, ...]:
        def work() -> None:
            for part in self._thing(_Executable, executable).work:
                self._put(self._stream(stream), part)

        return self._answer("cuGraphLaunch", work)

    def cuGraphDestroy(self, graph: Any) -> tuple[Any, ...]:
        return self._answer("cuGraphDestroy", lambda: self._drop(_Graph, graph))

    def cuGraphExecDestroy(self, executable: Any) -> tuple[Any, ...]:
        return self._answer("cuGraphExecDestroy", lambda: self._drop(_Executable, executable))

    def cuEventCreate(self, flags: int) -> tuple[Any, ...]:
        timing = flags != real.CUevent_flags.CU_EVENT_DISABLE_TIMING.value
        return self._answer("cuEventCreate", lambda: real.CUevent(self._new(_Event(timing))))

    def cuEventDestroy(self, event: Any) -> tuple[Any, ...]:
        return self._answer("cuEventDestroy", lambda: self._drop(_Event, event))

    def cuEventRecord(self, event: Any, stream: Any) -> tuple[Any, ...]:
        def work() -> None:
            queue = self._stream(stream)
            moment = _Moment(queue)
            self._thing(_Event, event).recorded = moment
            self._put(queue, moment.happen)

        return self._answer("cuEventRecord", work)

    def cuEventRecordWithFlags(self, event: Any, stream: Any, flags: int) -> tuple[Any, ...]:
        if flags != real.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL.value:
            return self.cuEventRecord(event, stream)

        def work() -> None:
            queue, recorded = self._stream(stream), self._thing(_Event, event)

            def happen() -> None:  # anew in every launch of the graph
                recorded.recorded = _Moment(queue)
                recorded.recorded.happen()

            self._put(queue, happen)

        return self._answer("cuEventRecordWithFlags", work)

    def cuEventSynchronize(self, event: Any) -> tuple[Any, ...]:
        def work() -> None:
            recorded = self._thing(_Event, event).recorded
            if recorded is not None:
                self._run_until(recorded)

        return self._answer("cuEventSynchronize", work, unsafe=True)

    def cuEventElapsedTime(self, start: Any, end: Any) -> tuple[Any, ...]:
        def work() -> float:
            times = []
            for event in (self._thing(_Event, start), self._thing(_Event, end)):
                if event.recorded is None or not event.timing:
                    raise DriverError("CUDA_ERROR_INVALID_HANDLE")
                if event.recorded.seconds is None:
                    raise DriverError("CUDA_ERROR_NOT_READY")
                times.append(event.recorded.seconds)
            return 1000 * (times[1] - times[0])

        return self._answer("cuEventElapsedTime", work)

    def cuModuleLoadData(self, image: bytes) -> tuple[Any, ...]:
        def work() -> Any:
            if not image.startswith(b"\x7fELF") and b".version" not in image:
                raise DriverError("CUDA_ERROR_INVALID_IMAGE")
            return real.CUmodule(self._new(_Module()))

        return self._answer("cuModuleLoadData", work, unsafe=True)

    def cuModuleUnload(self, module: Any) -> tuple[Any, ...]:
        return self._answer("cuModuleUnload", lambda: self._drop(_Module, module), unsafe=True)

    def cuModuleGetFunction(self, module: Any, name: bytes) -> tuple[Any, ...]:
        def work() -> Any:
            loaded, kernel = self._thing(_Module, module), name.decode()
            size = None if self._kernels is None else self._kernels.argument_bytes(kernel)
            if size is None:
                raise DriverError("CUDA_ERROR_NOT_FOUND")
            handle = self._handle()
            loaded.functions[handle] = _Function(kernel, size)
            return real.CUfunction(handle)

        return self._answer("cuModuleGetFunction", work)

    def cuLaunchKernel(
        self,
        function: Any,
        grid_x: int,
        grid_y: int,
        grid_z: int,
        block_x: int,
        block_y: int,
        block_z: int,
        shared_bytes: int,
        stream: Any,
        parameters: int,
        extra: int,
    ) -> tuple[Any, ...]:
        grid, block = (grid_x, grid_y, grid_z), (block_x, block_y, block_z)

        def work() -> None:
            kernel = self._function(function)
            if 0 in grid or 0 in block or block_x * block_y * block_z > 1024:
                raise DriverError("CUDA_ERROR_INVALID_VALUE")
            if shared_bytes > _SHARED_BYTES:
                raise DriverError("CUDA_ERROR_INVALID_VALUE")
            address = ctypes.cast(parameters, ctypes.POINTER(ctypes.c_void_p))[0]
            assert address is not None
            arguments = ctypes.string_at(address, kernel.argument_bytes)

            def run() -> None:
                assert self._kernels is not None
                self.launched.append(kernel.name)
                self._kernels.launch(kernel.name, grid, block, shared_bytes, arguments)

            self._put(self._stream(stream), run)

        return self._answer("cuLaunchKernel", work)

    # How it works.

    def _answer(
        self,
        function: str,
        work: Callable[[], Any],
        *,
        needs_context: bool = True,
        unsafe: bool = False,
    ) -> tuple[Any, ...]:
        """The result of a call and what it gives; ``unsafe`` is what may not be done in a thread
        that captures."""
        with self._lock:
            self.calls[function] += 1
            try:
                if not self._installed:
                    raise RuntimeError("Failed to dlopen libcuda.so.1")
                ordered = self._ordered.pop(function, None)
                if ordered is not None and not needs_context:
                    raise DriverError(ordered)
                if needs_context:
                    context = self._context()
                    if ordered is not None:
                        context.lost = ordered if ordered in _FINAL else context.lost
                        raise DriverError(ordered)
                    if context.lost is not None:
                        raise DriverError(context.lost)
                    if unsafe:
                        self._refuse_in_capture(context)
                value = work()
            except DriverError as fault:
                if fault.result.name.startswith("CUDA_ERROR_STREAM_CAPTURE"):
                    self._spoil()
                return fault.result, None
            if value is None:
                return (SUCCESS,)
            return (SUCCESS, *value) if isinstance(value, tuple) else (SUCCESS, value)

    def _context(self) -> _Context:
        current = self._thread.current[-1] if self._thread.current else 0
        for context in self._contexts.values():
            if context.handle == current:
                return context
        raise DriverError("CUDA_ERROR_INVALID_CONTEXT")

    def _new_context(self, index: int, users: int = 0) -> _Context:
        """One whose handle none had before: handles of old ones are of no use."""
        return _Context(0xC0000 + self._handle(), self.gpus[index].memory, users)

    def _end(self, index: int) -> None:
        context = self._contexts.pop(index)
        if context.lost is None:
            self.leaks += [f"{memory.size} bytes" for memory in context.memory.values()]
            self.leaks += [type(thing).__name__ for thing in context.things.values()]
            self.leaks += [f"{memory.size} pinned bytes" for memory in context.pinned.values()]

    def _handle(self) -> int:
        self._next_handle += 0x10
        return self._next_handle

    def _new(self, thing: object) -> int:
        handle = self._handle()
        self._context().things[handle] = thing
        return handle

    def _thing(self, kind: type[Any], handle: Any) -> Any:
        found = self._context().things.get(int(handle))
        if not isinstance(found, kind):
            raise DriverError("CUDA_ERROR_INVALID_HANDLE")
        return found

    def _take(self, kind: type[Any], handle: Any) -> Any:
        found = self._thing(kind, handle)
        del self._context().things[int(handle)]
        return found

    def _drop(self, kind: type[Any], handle: Any) -> None:
        self._take(kind, handle)

    def _function(self, handle: Any) -> _Function:
        for thing in self._context().things.values():
            if isinstance(thing, _Module) and int(handle) in thing.functions:
                return thing.functions[int(handle)]
        raise DriverError("CUDA_ERROR_INVALID_HANDLE")

    def _stream(self, handle: Any) -> _Stream:
        context = self._context()
        if int(handle) in (0, 1, 2):  # the default streams
            return context.default_streams.setdefault(max(int(handle), 1), _Stream())
        stream: _Stream = self._thing(_Stream, handle)
        return stream

    def _put(self, stream: _Stream, work: Work) -> None:
        if stream.capture is not None:
            stream.capture.work.append(work)
        else:
            stream.queue.append(work)

    def _run(self, stream: _Stream) -> None:
        while stream.queue:
            self._guarded(stream.queue.popleft())

    def _run_until(self, moment: _Moment) -> None:
        while moment.seconds is None:
            self._guarded(moment.stream.queue.popleft())

    def _finish_all(self) -> None:
        context = self._context()
        for thing in list(context.things.values()) + list(context.default_streams.values()):
            if isinstance(thing, _Stream):
                self._run(thing)

    def _copies_to_come(self) -> list[_HostCopy]:
        things = self._context().things.values()
        queues = [thing.queue for thing in things if isinstance(thing, _Stream)]
        return [work for queue in queues for work in queue if isinstance(work, _HostCopy)]

    def _guarded(self, work: Work) -> None:
        """Do work of the device; what fails there is lost with the context."""
        context = self._context()
        try:
            if context.doomed is not None:
                raise DriverError(context.doomed)
            work()
        except DriverError as fault:
            context.lost = fault.result.name
            raise

    def _refuse_in_capture(self, context: _Context) -> None:
        for stream in self._captured(context):
            strict = real.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL
            relaxed = real.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
            assert stream.capture is not None
            own = stream.capture.thread == get_ident()
            if stream.capture.mode == strict or (own and stream.capture.mode != relaxed):
                raise DriverError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")

    def _spoil(self) -> None:
        for stream in self._captured(self._context()):
            assert stream.capture is not None
            if stream.capture.thread == get_ident():
                stream.capture.spoiled = True

    @staticmethod
    def _captured(context: _Context) -> list[_Stream]:
        return [
            thing
            for thing in context.things.values()
            if isinstance(thing, _Stream) and thing.capture is not None
        ]

    def _range(self, pointer: int, bytes: int) -> int:
        self.view(pointer, (bytes,), np.uint8)
        return pointer

    def _is_pinned(self, pointer: int, bytes: int) -> bool:
        return any(
            memory.pointer <= pointer and pointer + bytes <= memory.pointer + memory.size
            for memory in self._context().pinned.values()
        )


class _Thread(local):
    """The stack of current contexts of a thread."""

    def __init__(self) -> None:
        self.current: list[int] = []


class _Memory:
    """Bytes between two guards."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._all = np.full(size + 3 * _ALIGNMENT, _GUARD, np.uint8)
        start = -self._all.ctypes.data % _ALIGNMENT + _ALIGNMENT
        self._start = start
        self._all[start : start + size] = _FRESH
        self.pointer = self._all.ctypes.data + start

    def is_intact(self) -> bool:
        before, behind = self._all[: self._start], self._all[self._start + self.size :]
        return bool((before == _GUARD).all() and (behind == _GUARD).all())


@dataclass
class _HostCopy:
    """A copy from or to the host, when its time has come."""

    pointer: int
    size: int
    work: Work

    def __call__(self) -> None:
        self.work()

    def uses(self, memory: _Memory) -> bool:
        return (
            self.pointer < memory.pointer + memory.size
            and memory.pointer < self.pointer + self.size
        )


@dataclass
class _Context:
    handle: int
    capacity: int
    users: int = 0
    lost: str | None = None
    doomed: str | None = None
    memory: dict[int, _Memory] = field(default_factory=dict)
    pinned: dict[int, _Memory] = field(default_factory=dict)
    things: dict[int, object] = field(default_factory=dict)
    default_streams: dict[int, _Stream] = field(default_factory=dict)

    @property
    def used(self) -> int:
        return sum(memory.size for memory in self.memory.values())


@dataclass
class _Capture:
    thread: int
    mode: Any
    work: list[Work] = field(default_factory=list)
    spoiled: bool = False


@dataclass
class _Stream:
    queue: deque[Work] = field(default_factory=deque)
    capture: _Capture | None = None


@dataclass
class _Moment:
    stream: _Stream
    seconds: float | None = None

    def happen(self) -> None:
        self.seconds = time.perf_counter()


@dataclass
class _Event:
    timing: bool
    recorded: _Moment | None = None


@dataclass
class _Graph:
    work: list[Work]


@dataclass
class _Executable:
    work: list[Work]


@dataclass
class _Function:
    name: str
    argument_bytes: int


@dataclass
class _Module:
    functions: dict[int, _Function] = field(default_factory=dict)


def _bytes_at(pointer: int, size: int) -> NDArray[np.uint8]:
    return np.frombuffer((ctypes.c_uint8 * size).from_address(pointer), np.uint8)


def _copy(target: int, source: int, bytes: int) -> None:
    ctypes.memmove(target, source, bytes)
