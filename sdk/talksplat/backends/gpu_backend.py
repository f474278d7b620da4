"""What the backends on a GPU share: graphs with arrays of the host, whole frames, and their end."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from talksplat.backends.base import Array
from talksplat.backends.device_graph import DeviceGraph
from talksplat.backends.gpu_call import (
    GpuCall,
    InputBlock,
    checked,
    new_array,
    sizes,
    upload_constants,
)
from talksplat.backends.gpu_frame import FramePlan, GpuFrame
from talksplat.bundle import Bundle
from talksplat.closing import Closing
from talksplat.cuda import Device, DeviceArray, DeviceBuffer, Stream
from talksplat.errors import BackendError
from talksplat.frame_program import FrameProgram
from talksplat.manifest import GraphSpec


class Carrier(Protocol):
    """What differs: who runs the graphs, and whether the frame is one of them."""

    def load_graph(
        self, file: Path, spec: GraphSpec, constants: Mapping[str, Array]
    ) -> DeviceGraph:
        """Load one graph on the device.

        Raises:
            BackendError: it is refused.
        """
        ...

    def plan_frame(self, bundle: Bundle, program: FrameProgram) -> FramePlan:
        """Load the graphs of a program, and say how they make a frame.

        Raises:
            BackendError: a graph is refused.
        """
        ...


class GpuBackend(Closing):
    """See :class:`talksplat.backends.base.Backend`.

    Args:
        name: of the backend.
        device: the GPU; closed with the backend.
        carrier: who runs the graphs on it.
        stage_times: see :class:`talksplat.backends.Options`.
    """

    def __init__(
        self, name: str, device: Device, carrier: Carrier, stage_times: bool = False
    ) -> None:
        self.name = name
        self._stage_times = stage_times
        self._device = device
        self._carrier = carrier
        self._open = ExitStack()
        self._open.callback(device.close)

    def load(
        self, file: Path, spec: GraphSpec, constants: Mapping[str, Array] | None = None
    ) -> GpuEngine:
        """See :meth:`talksplat.backends.base.Backend.load`."""
        graph = self._carrier.load_graph(file, spec, constants or {})
        self._open.callback(graph.close)
        return self._open.enter_context(GpuEngine(self._device, graph, spec, constants or {}))

    def load_frame(self, bundle: Bundle, program: FrameProgram) -> GpuFrame:
        """See :meth:`talksplat.backends.base.Backend.load_frame`."""
        plan = self._carrier.plan_frame(bundle, program)
        for graph in plan.graphs.values():
            self._open.callback(graph.close)
        return self._open.enter_context(GpuFrame(self._device, plan, self._stage_times))

    def close(self) -> None:
        """See :meth:`talksplat.backends.base.Backend.close`."""
        self._open.close()


class GpuEngine(Closing):
    """A graph that takes and gives arrays of the host; see
    :class:`talksplat.backends.base.Engine`."""

    def __init__(
        self, device: Device, graph: DeviceGraph, spec: GraphSpec, constants: Mapping[str, Array]
    ) -> None:
        self.spec = spec
        self._device = device
        self._graph = graph
        tensors = {tensor.name: tensor for tensor in spec.inputs}
        for name in constants:
            if name not in tensors:
                raise BackendError(f"{spec.file} has no input {name!r} to bind a constant to.")
            checked(tensors[name], constants[name])
        self._open = ExitStack()
        with self._open:
            self._constants = upload_constants(device, constants, self._open)
            self._open = self._open.pop_all()

    def runner(self) -> GpuRunner:
        """See :meth:`talksplat.backends.base.Engine.runner`."""
        return GpuRunner(self._device, self._graph, self.spec, self._constants)

    def close(self) -> None:
        """Free the constants, once no runner is used any more."""
        self._open.close()


class GpuRunner(Closing):
    """See :class:`talksplat.backends.base.Runner`."""

    def __init__(
        self,
        device: Device,
        graph: DeviceGraph,
        spec: GraphSpec,
        constants: Mapping[str, DeviceArray],
    ) -> None:
        varying = {tensor.name: tensor for tensor in spec.inputs if tensor.name not in constants}
        with ExitStack() as opened:
            stream = opened.enter_context(Stream(device))
            inputs = opened.enter_context(InputBlock(device, varying))
            outputs = {
                tensor.name: new_array(device, sizes(tensor), tensor.dtype, opened)
                for tensor in spec.outputs
            }
            bound = graph.bind(stream, {**constants, **inputs.arrays, **outputs})
            opened.callback(bound.close)
            if bound.scratch_bytes:
                scratch = opened.enter_context(DeviceBuffer(device, bound.scratch_bytes))
                bound.use_scratch(scratch)
            self._call = opened.enter_context(GpuCall(stream, inputs, [bound], outputs))
            self._opened = opened.pop_all()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See :meth:`talksplat.backends.base.Runner.run`."""
        self._call.start(inputs)
        return {name: array.copy() for name, array in self._call.finish().items()}

    def close(self) -> None:
        """See :meth:`talksplat.backends.base.Runner.close`."""
        self._opened.close()
