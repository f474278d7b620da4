"""Arrays up, work on a stream, arrays down: once as calls, from then on as one captured graph."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike

from talksplat.backends.base import Array
from talksplat.backends.stage_times import StageTimes
from talksplat.closing import Closing
from talksplat.cuda import Device, DeviceArray, DeviceBuffer, Graph, PinnedBuffer, Stream
from talksplat.errors import BackendError, DeviceLostError
from talksplat.manifest import TensorSpec

_log = logging.getLogger(__name__)

_ALIGNMENT = 256
"""Bytes; what TensorRT asks of the address of a tensor."""


class Work(Protocol):
    """Something that can be put on a stream again and again, always at the same addresses."""

    def warmed_up(self) -> bool:
        """Told once, after the first run: keep what that made. Whether it may be recorded now."""
        ...

    def enqueue(self) -> None:
        """Put it on the stream.

        Raises:
            BackendError: it is refused.
            DeviceLostError: the device is lost.
        """
        ...


class InputBlock(Closing):
    """Small arrays that are new in every run, side by side, so that one copy takes them up.

    Attributes:
        arrays: the same arrays on the device.
    """

    def __init__(self, device: Device, tensors: Mapping[str, TensorSpec]) -> None:
        self._tensors = dict(tensors)
        offsets, size = {}, 0
        for name, tensor in self._tensors.items():
            offsets[name] = size
            size += -(-_bytes(tensor) // _ALIGNMENT) * _ALIGNMENT
        self._pinned = PinnedBuffer(device, size)
        self._memory = DeviceBuffer(device, size)
        self._staged = {
            name: self._pinned.array(sizes(tensor), tensor.dtype, offset=offsets[name])
            for name, tensor in self._tensors.items()
        }
        self._all_staged = self._pinned.array((self._pinned.bytes,), "uint8")
        self._all = self._memory.array((self._memory.bytes,), "uint8")
        self.arrays = {
            name: self._memory.array(sizes(tensor), tensor.dtype, offset=offsets[name])
            for name, tensor in self._tensors.items()
        }

    def fill(self, inputs: Mapping[str, Array]) -> None:
        """Take the arrays of the next run; those of the last one must be on the device.

        Raises:
            BackendError: one is missing, or is not what it should be.
        """
        for name, tensor in self._tensors.items():
            self._staged[name][...] = checked(tensor, inputs.get(name))

    def upload(self, stream: Stream) -> None:
        """Copy all of them to the device."""
        if self._tensors:
            stream.upload(self._all_staged, self._all)

    def close(self) -> None:
        """Free the memory."""
        self._staged.clear()
        with ExitStack() as closing:
            closing.callback(self._pinned.close)
            closing.callback(self._memory.close)


class GpuCall(Closing):
    """Uploads, work and downloads on one stream.

    The first run makes the calls one by one, so that libraries allocate and compile what they need.
    After it they are recorded, and every later run replays the recording. Kernels and addresses are
    the same, so are the results.

    Args:
        stream: whose work it is; closed by whoever made it.
        inputs: what is uploaded.
        work: what is done then.
        outputs: what is downloaded after that.
        stages: of the work, to have each of them timed on the device; none times nothing.

    Attributes:
        stage_times: milliseconds of the stages in the last run, by name; empty if not timed.
    """

    def __init__(
        self,
        stream: Stream,
        inputs: InputBlock,
        work: Sequence[Work],
        outputs: Mapping[str, DeviceArray],
        stages: Sequence[str] = (),
    ) -> None:
        self._stream = stream
        self._inputs = inputs
        self._work = tuple(work)
        self._outputs = dict(outputs)
        device = stream.device
        self._downloaded = {
            name: PinnedBuffer.like(device, array.shape, array.dtype)
            for name, array in self._outputs.items()
        }
        self._events = StageTimes(stream, stages) if stages else None
        self.stage_times: dict[str, float] = {}
        self._graph: Graph | None = None
        self._has_run = False
        self._under_way = False  # put on the stream and not waited for

    @property
    def captured(self) -> bool:
        """Whether runs replay a recording."""
        return self._graph is not None

    def start(self, inputs: Mapping[str, Array]) -> None:
        """Put everything on the stream.

        Args:
            inputs: the arrays of the input block, by name; others are left alone.

        Raises:
            BackendError: an input does not fit, or something refused its work.
            DeviceLostError: the device is lost.
        """
        self._let_finish()
        self._inputs.fill(inputs)
        self._under_way = True
        if self._graph is not None:
            self._graph.launch(self._stream)
        else:
            self._enqueue()

    def finish(self) -> dict[str, Array]:
        """Wait for everything on the stream.

        Returns:
            The outputs in pinned memory, valid until the next start.

        Raises:
            DeviceLostError: the device failed in it.
        """
        self._let_finish()
        if self._events is not None:
            self.stage_times = self._events.read()
        if not self._has_run:
            self._has_run = True
            with self._stream.device.current():
                recordable = [work.warmed_up() for work in self._work]
            if all(recordable):
                self._record()
        return self._downloaded

    def _let_finish(self) -> None:
        """Wait for work that is under way; that of a run that was interrupted, too, which reads and
        writes pinned memory."""
        if self._under_way:
            self._stream.synchronize()
            self._under_way = False

    def _record(self) -> None:
        """Without a recording every frame is as right, and slower: said, and gone on."""
        try:
            with self._stream.capture() as graph:
                self._enqueue(capturing=True)
            self._graph = graph
        except DeviceLostError:
            raise
        except BackendError as error:
            _log.warning("Work on the GPU cannot be recorded and is slower for it: %s", error)

    def _enqueue(self, *, capturing: bool = False) -> None:
        times = self._events
        with self._stream.device.current():
            self._inputs.upload(self._stream)
            if times is not None:
                times.mark(0, capturing=capturing)
            for pieces, work in enumerate(self._work, start=1):
                work.enqueue()
                if times is not None:
                    times.mark(pieces, capturing=capturing)
            for name, array in self._outputs.items():
                self._stream.download(array, self._downloaded[name])

    def close(self) -> None:
        """Wait for the stream unless the device is lost, and free the recording and the memory of
        the downloads; the rest is the maker's, who closes this first."""
        with ExitStack() as closing:
            closing.callback(self._downloaded.clear)
            if self._events is not None:
                closing.callback(self._events.close)
            if self._graph is not None:
                closing.callback(self._graph.close)
                self._graph = None
            closing.enter_context(suppress(DeviceLostError))  # whoever works next is told
            if not self._stream.device.lost:
                self._let_finish()


def new_array(
    device: Device, shape: tuple[int, ...], dtype: DTypeLike, opened: ExitStack
) -> DeviceArray:
    """An array in memory of its own, which is freed with ``opened``.

    Raises:
        BackendError: there is not enough memory.
        DeviceLostError: the device is lost.
    """
    memory = DeviceBuffer(device, math.prod(shape) * np.dtype(dtype).itemsize)
    opened.callback(memory.close)
    return memory.array(shape, dtype)


def upload_constants(
    device: Device, constants: Mapping[str, Array], opened: ExitStack
) -> dict[str, DeviceArray]:
    """Copies of ``constants`` on the device, which are freed with ``opened``.

    Raises:
        BackendError: there is not enough memory.
        DeviceLostError: the device is lost.
    """
    arrays = {}
    with Stream(device) as stream:
        for name, constant in constants.items():
            arrays[name] = new_array(device, constant.shape, constant.dtype, opened)
            stream.upload(np.ascontiguousarray(constant), arrays[name])
        stream.synchronize()
    return arrays


def checked(tensor: TensorSpec, array: Array | None) -> Array:
    """``array``, if it is what ``tensor`` says.

    Raises:
        BackendError: it is missing or something else.
    """
    if array is None:
        raise BackendError(f"Expected an input {tensor.name!r}, found none.")
    if array.dtype != tensor.dtype or array.shape != sizes(tensor):
        raise BackendError(
            f"Input {tensor.name!r} expects {tensor.dtype} {list(tensor.shape)}, found "
            f"{array.dtype} {list(array.shape)}."
        )
    return array


def sizes(tensor: TensorSpec) -> tuple[int, ...]:
    """The shape of a tensor none of whose axes is free.

    Raises:
        BackendError: one is.
    """
    known = tuple(size for size in tensor.shape if isinstance(size, int))
    if len(known) != len(tensor.shape):
        raise BackendError(
            f"{tensor.name!r} is {list(tensor.shape)}: expected sizes that the constants give, as "
            "memory on a GPU is laid out once. Export the avatar again."
        )
    return known


def _bytes(tensor: TensorSpec) -> int:
    return math.prod(sizes(tensor)) * np.dtype(tensor.dtype).itemsize
