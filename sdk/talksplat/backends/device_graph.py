"""A graph on a GPU: what TensorRT and ONNX Runtime look like to what makes frames with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from talksplat.backends.gpu_call import Work
from talksplat.cuda import DeviceArray, DeviceBuffer, Stream


class BoundGraph(Work, Protocol):
    """A graph bound to a stream and to arrays on its device. Belongs to one session."""

    @property
    def scratch_bytes(self) -> int:
        """Memory it needs while it runs, and may share with what runs before and after it."""
        ...

    def use_scratch(self, memory: DeviceBuffer) -> None:
        """Run in ``memory``, of ``scratch_bytes`` at least, from now on."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class DeviceGraph(Protocol):
    """A graph loaded on a device. Thread-safe; shared by sessions."""

    def bind(self, stream: Stream, arrays: Mapping[str, DeviceArray]) -> BoundGraph:
        """The graph with all its inputs and outputs in ``arrays``, by name.

        Raises:
            BackendError: an array is missing or of another shape or dtype.
            DeviceLostError: the device is lost.
        """
        ...

    def close(self) -> None:
        """Free it, once nothing that is bound is used any more."""
        ...
