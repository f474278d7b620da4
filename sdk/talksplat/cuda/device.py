"""A GPU and its primary context, shared by everything of this process that uses it."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import RLock, local
from types import TracebackType
from typing import Any

from talksplat.closing import Closing
from talksplat.cuda.bindings import call_driver, load_driver
from talksplat.cuda_version import cuda_version_text
from talksplat.errors import BackendError, DeviceLostError, NoDriverError

_MINIMUM_COMPUTE_CAPABILITY = (7, 5)


class Device(Closing):
    """A GPU that was opened; see :func:`open_device`. Thread-safe.

    Attributes:
        index: as the driver counts.
        name: ``NVIDIA GeForce RTX 4090`` and the like.
        compute_capability: (8, 9) and the like.
        driver_version: newest CUDA the driver knows, 1000 · major + 10 · minor.
        total_memory: bytes.
    """

    def __init__(self, context: _Context) -> None:
        self.context = context
        self.index = context.index
        self.name = context.name
        self.compute_capability = context.compute_capability
        self.driver_version = context.driver_version
        self.total_memory = context.total_memory
        context.enter()
        self._leave = weakref.finalize(self, context.leave)
        self._leave.atexit = False

    @property
    def lost(self) -> bool:
        """Whether it failed; everything but ``close`` raises DeviceLostError then."""
        return self.context.lost is not None

    def free_memory(self) -> int:
        """Bytes that can still be allocated.

        Raises:
            DeviceLostError: the device is lost.
        """
        free, _ = self.call("cuMemGetInfo")
        return int(free)

    def call(self, function: str, *arguments: Any) -> Any:
        """A function of the driver with this device's context current in the calling thread.

        Raises:
            DeviceLostError: the device is or was lost.
            BackendError: the driver refuses.
        """
        self._check_open(function)
        return self.context.call(function, *arguments)

    def check_alive(self) -> None:
        """Raise what a lost device raises; for work that does not go through :meth:`call`.

        Raises:
            DeviceLostError: the device is or was lost.
        """
        self.context.check_alive()

    def current(self) -> _Current:
        """A ``with`` block in which this device's context is current in the calling thread, for
        libraries that bring their own calls (TensorRT, ONNX Runtime). Entering it raises what
        :meth:`call` raises."""
        self._check_open("current")
        return _Current(self.context)

    def hold(self, made: Any) -> Held:
        """Take over an object of another library that lives on this device, see :class:`Held`."""
        return Held(self.context, made)

    def mark_lost(self, reason: str) -> None:
        """Another library saw the device fail: nothing here calls the driver any more."""
        self.context.mark_lost(reason)

    def _check_open(self, asked: str) -> None:
        """Of a closed device the context may be gone, and its handle with it."""
        if not self._leave.alive:
            raise BackendError(f"{asked}: device {self.index} is closed; open it again.")

    def close(self) -> None:
        """Give the device back. The context ends with its last user; arrays that were handed out
        are users too."""
        self._leave()


class Held(Closing):
    """An object of another library (TensorRT, ONNX Runtime) that must end on its device: with the
    context current, whoever drops it and when, and before the context ends.

    Attributes:
        made: the object, to which nothing else may refer; None once it is closed.
    """

    def __init__(self, context: _Context, made: Any) -> None:
        self._only = [made]
        context.hold()
        self._free = weakref.finalize(self, context.drop, self._only)
        self._free.atexit = False

    @property
    def made(self) -> Any:
        """See the class."""
        return self._only[0] if self._only else None

    def close(self) -> None:
        """End it."""
        self._free()


def open_device(index: int = 0) -> Device:
    """Open a GPU, with its primary context, which other libraries of the process share.

    Args:
        index: as the driver counts the devices that CUDA_VISIBLE_DEVICES lets it see.

    Raises:
        DeviceLostError: it was lost, and what used it is not closed yet.
        BackendError: the bindings or the driver are missing or too old, there is no such device,
            or it is older than compute capability 7.5.
    """
    driver = load_driver()
    _initialise(driver)
    count = call_driver(driver, "cuDeviceGetCount")
    if not 0 <= index < count:
        raise BackendError(
            f"GPU {index} was asked for; the driver sees {count}. Choose one from 0 to {count - 1}"
            f", or check nvidia-smi and CUDA_VISIBLE_DEVICES."
            if count
            else "The NVIDIA driver sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES."
        )
    with _lock:
        context = _contexts.get(index)
        if context is not None and context.lost is not None:
            raise DeviceLostError(
                f"GPU {index} was lost ({context.lost}) and {context.users} of its users are not "
                f"closed yet; close all sessions and avatars on it, then load again."
            )
        if context is None:
            context = _contexts[index] = _Context(driver, index)
        return Device(context)


def driver_version() -> int:
    """Newest CUDA that the installed driver knows, 1000 · major + 10 · minor.

    Raises:
        BackendError: the bindings or the driver are missing.
    """
    return _version(load_driver())


class _Depth(local):
    """How many captures the calling thread is in."""

    depth = 0


class _Context:
    """The primary context of a device, retained while something uses it."""

    def __init__(self, driver: Any, index: int) -> None:
        self.driver = driver
        self.index = index
        self.lost: str | None = None
        self.users = 0  # devices that were opened
        self._held = 0  # memory, streams and the like that are alive
        self._capturing = _Depth()
        self._postponed: deque[Callable[[], None]] = deque()
        self.driver_version = _version(driver)
        self._device = call_driver(driver, "cuDeviceGet", index)
        name = call_driver(driver, "cuDeviceGetName", 256, self._device)
        self.name = name.split(b"\0")[0].decode(errors="replace")
        self.compute_capability = self._compute_capability()
        self.total_memory = int(call_driver(driver, "cuDeviceTotalMem", self._device))
        self._handle = call_driver(driver, "cuDevicePrimaryCtxRetain", self._device)

    def call(self, function: str, *arguments: Any) -> Any:
        with _Current(self):
            return self.call_driver(function, *arguments)

    def call_driver(self, function: str, *arguments: Any) -> Any:
        """A function of the driver, with whatever context is current; a loss is noted."""
        try:
            return call_driver(self.driver, function, *arguments)
        except DeviceLostError as error:
            self.mark_lost(str(error))
            raise

    def check_alive(self) -> None:
        if self.lost is not None:
            raise DeviceLostError(
                f"GPU {self.index} was lost earlier: {self.lost} Close the session and the avatar "
                f"and load it again."
            )

    def mark_lost(self, reason: str) -> None:
        with _lock:
            if self.lost is None:
                self.lost = reason
                self._end_if_unused()

    def enter(self) -> None:
        with _lock:
            self.users += 1

    def leave(self) -> None:
        with _lock:
            self.users -= 1
            self._end_if_unused()

    def hold(self) -> None:
        with _lock:
            self._held += 1

    def free(self, function: str, handle: Any) -> None:
        """Give back what was held, once, from any thread and from a garbage collection.

        Frees are not allowed in a thread that captures: they wait for the capture's end.
        """
        self._let_go(partial(self._free, function, handle))

    def drop(self, only: list[Any]) -> None:
        """As :meth:`free`, for an object of another library: the last reference to it."""
        self._let_go(partial(self._drop, only))

    def begin_capture(self) -> None:
        self._capturing.depth += 1

    def end_capture(self) -> None:
        self._capturing.depth -= 1
        while True:
            try:
                work = self._postponed.popleft()
            except IndexError:  # another thread's capture may end now, too
                return
            work()

    def _let_go(self, work: Callable[[], None]) -> None:
        if self.lost is None and self._capturing.depth:
            self._postponed.append(work)
        else:
            work()

    def _free(self, function: str, handle: Any) -> None:
        try:
            # What a lost context held went with it.
            if self.lost is None:
                self.call(function, handle)
        except DeviceLostError:
            pass  # noted; whoever works next is told
        finally:
            self._release()

    def _drop(self, only: list[Any]) -> None:
        try:
            # The memory on the host goes even where the device is lost.
            with _CurrentIfPossible(self):
                only.clear()
        finally:
            self._release()

    def _release(self) -> None:
        with _lock:
            self._held -= 1
            self._end_if_unused()

    def _end_if_unused(self) -> None:
        if self.users or (self._held and self.lost is None):
            return
        if _contexts.get(self.index) is self:
            del _contexts[self.index]
            if self.lost is None:
                call_driver(self.driver, "cuDevicePrimaryCtxRelease", self._device)
            else:
                # A failed context stays failed for whoever else retains it; a reset lets the next
                # one begin anew. Whether it can is seen when it is opened.
                self.driver.cuDevicePrimaryCtxReset(self._device)
                self.driver.cuDevicePrimaryCtxRelease(self._device)

    def _compute_capability(self) -> tuple[int, int]:
        attribute = self.driver.CUdevice_attribute
        major, minor = (
            call_driver(self.driver, "cuDeviceGetAttribute", which, self._device)
            for which in (
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        if (major, minor) < _MINIMUM_COMPUTE_CAPABILITY:
            raise BackendError(
                f"GPU {self.index} ({self.name}) has compute capability {major}.{minor}; talksplat "
                f"needs 7.5 (Turing) or later. Use the onnxruntime-cpu backend, or another GPU."
            )
        return int(major), int(minor)


class _Current:
    """The context current in the calling thread, and what was current before it again after."""

    def __init__(self, context: _Context) -> None:
        self._context = context
        self._pushed = False

    def __enter__(self) -> None:
        context = self._context
        context.check_alive()
        found = context.call_driver("cuCtxGetCurrent")
        if int(found) != int(context._handle):
            context.call_driver("cuCtxPushCurrent", context._handle)
            self._pushed = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pushed:
            self._pushed = False
            # Fails only for a context that was lost, which has been said by then.
            self._context.driver.cuCtxPopCurrent()


class _CurrentIfPossible(_Current):
    """As :class:`_Current`, to close something: what is to be closed is closed without it, too."""

    def __enter__(self) -> None:
        if self._context.lost is not None:
            return
        try:
            super().__enter__()
        except BackendError as error:
            # A context that cannot be made current is of no use any more.
            self._context.mark_lost(str(error))


def _initialise(driver: Any) -> None:
    found = _version(driver)
    needed = driver.CUDA_VERSION
    # Within a major version of CUDA, older drivers run what newer bindings ask for.
    if found // 1000 < needed // 1000:
        raise BackendError(
            f"The NVIDIA driver knows CUDA {cuda_version_text(found)}; the installed bindings need "
            f"CUDA {needed // 1000}.0 or later. Update the NVIDIA driver, or install the bindings "
            f"for it: pip install 'cuda-python<{needed // 1000}'."
        )
    call_driver(driver, "cuInit", 0)


def _version(driver: Any) -> int:
    try:
        result, version = driver.cuDriverGetVersion()
    # A missing libcuda is another kind of error in every version of the bindings.
    except Exception as error:
        raise NoDriverError(
            f"No NVIDIA driver was found ({error}); install one from nvidia.com/drivers, or use "
            f"the onnxruntime-cpu backend. In a container, start it with --gpus all."
        ) from error
    if result.value != 0 or not version:
        raise BackendError(
            "The NVIDIA driver does not answer (cuDriverGetVersion); check nvidia-smi, or use the "
            "onnxruntime-cpu backend."
        )
    return int(version)


_lock = RLock()
_contexts: dict[int, _Context] = {}
