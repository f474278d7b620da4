"""Engines of TensorRT and of TensorRT for RTX as graphs on a device."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from threading import Lock
from typing import Any

from talksplat.backends.compiled_kernels import CompiledKernels
from talksplat.cuda import Device, DeviceArray, DeviceBuffer, Held, Stream
from talksplat.engines.flavours import Flavour
from talksplat.engines.log import EngineLog
from talksplat.errors import BackendError

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}


class TensorRtGraph:
    """An engine on a device; see :class:`talksplat.backends.device_graph.DeviceGraph`.

    Args:
        flavour: which TensorRT.
        device: where the engine runs.
        name: of the graph, for messages.
        engine: its bytes.
        kernels: where kernels are kept that are compiled here; None where none are.

    Raises:
        BackendError: TensorRT refuses the engine; says what it logged.
        DeviceLostError: the device is lost.
    """

    def __init__(
        self,
        flavour: Flavour,
        device: Device,
        name: str,
        engine: bytes,
        kernels: CompiledKernels | None = None,
    ) -> None:
        self._flavour = flavour
        self._log = EngineLog(flavour)
        self._device = device
        self._name = name
        self._lock = Lock()
        self._kernels = kernels
        self._runtime_cache: Held | None = None
        self._kept = b""
        device.check_alive()
        with device.current():
            # The engine lives no longer than what deserialised it.
            self._runtime = device.hold(flavour.module.Runtime(self._log.logger))
            self._engine = device.hold(self._runtime.made.deserialize_cuda_engine(engine))
        if self._engine.made is None:
            self.close()
            raise self.refusal("the engine was refused")

    def bind(self, stream: Stream, arrays: Mapping[str, DeviceArray]) -> TensorRtWork:
        """See :meth:`talksplat.backends.device_graph.DeviceGraph.bind`."""
        with self._lock, self._device.current():
            self._device.check_alive()
            self._log.clear()
            context = self._device.hold(self._new_context())
            try:
                if context.made is None:
                    raise self.refusal("no execution context could be made")
                self._bind(context, arrays)
                return TensorRtWork(self, context, stream)
            except BaseException:
                context.close()
                raise

    def refusal(self, what: str) -> BackendError:
        """The error for something that TensorRT refused, with what it logged.

        Raises:
            DeviceLostError: it failed because the device is lost.
        """
        self._device.free_memory()  # fails with whatever befell the device
        said = self._log.take() or "it did not say why"
        return BackendError(
            f"{self._flavour.name} {self._flavour.version_text}, graph {self._name!r}: {what} "
            f"({said}). Build the engine again with `talksplat build`; if it comes again, report "
            "it with the output of talksplat doctor."
        )

    @property
    def device_memory_size(self) -> int:
        """Bytes of scratch memory that suffice for any shapes."""
        return int(self._engine.made.device_memory_size_v2)

    def close(self) -> None:
        """See :meth:`talksplat.backends.device_graph.DeviceGraph.close`."""
        with self._lock, ExitStack() as closing:
            closing.callback(self._runtime.close)
            closing.callback(self._engine.close)
            if self._runtime_cache is not None:
                closing.callback(self._runtime_cache.close)

    def keep_kernels(self) -> None:
        """Keep what was compiled here, now that everything has run once."""
        with self._lock:
            if self._kernels is None or self._runtime_cache is None:
                return
            compiled = bytes(self._runtime_cache.made.serialize())
            if compiled != self._kept:
                self._kernels.keep(compiled)
                self._kept = compiled

    def _new_context(self) -> Any:
        """An execution context that works in memory it is given."""
        trt = self._flavour.module
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._kernels is None:
            return self._engine.made.create_execution_context(strategy)
        config = self._engine.made.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        # The recording is ours, and nothing may be compiled while it is made.
        config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = eager
        if self._runtime_cache is None:
            self._runtime_cache = self._device.hold(config.create_runtime_cache())
            found = self._kernels.find()
            if found and self._runtime_cache.made.deserialize(found):
                self._kept = found
        if not config.set_runtime_cache(self._runtime_cache.made):
            raise self.refusal("its cache of compiled kernels was refused")
        return self._engine.made.create_execution_context(config)

    def _bind(self, context: Held, arrays: Mapping[str, DeviceArray]) -> None:
        # No variable for what is held: an error's traceback would keep it.
        outputs = []
        for index in range(self._engine.made.num_io_tensors):
            name = self._engine.made.get_tensor_name(index)
            if name not in arrays:
                raise BackendError(
                    f"{self._flavour.name}, graph {self._name!r}: nothing is bound to {name!r}. "
                    "Build the engine again with `talksplat build`."
                )
            array = arrays[name]
            dtype = _DTYPES.get(self._engine.made.get_tensor_dtype(name).name)
            if array.dtype != dtype:
                raise self._mismatch(name, f"{dtype}", f"{array.dtype}")
            if self._engine.made.get_tensor_mode(name).name == "OUTPUT":
                outputs.append(name)
            elif not context.made.set_input_shape(name, array.shape):
                shape = list(self._engine.made.get_tensor_shape(name))
                raise self._mismatch(name, f"{shape} within its profile", f"{list(array.shape)}")
            if not context.made.set_tensor_address(name, array.pointer):
                raise self.refusal(f"the address of {name!r} was refused")
        try:
            unknown = context.made.infer_shapes()
        except RuntimeError as error:
            raise self.refusal(f"its sizes cannot be inferred: {error}") from error
        if unknown:
            raise self.refusal(f"no sizes are known of {', '.join(unknown)}")
        for name in outputs:
            found = tuple(context.made.get_tensor_shape(name))
            if found != arrays[name].shape:
                raise self._mismatch(name, f"{list(found)}", f"{list(arrays[name].shape)}")

    def _mismatch(self, tensor: str, expected: str, found: str) -> BackendError:
        return BackendError(
            f"{self._flavour.name}, graph {self._name!r}: {tensor!r} expects {expected}, found "
            f"{found}. Build the engine again with `talksplat build`."
        )


class TensorRtWork:
    """A context of an engine, bound; see :class:`talksplat.backends.device_graph.BoundGraph`."""

    def __init__(self, graph: TensorRtGraph, context: Held, stream: Stream) -> None:
        self._graph = graph
        self._context = context
        self._stream = stream
        # Without a figure for these shapes, the one for any shapes.
        needed = int(context.made.update_device_memory_size_for_shapes())
        self.scratch_bytes = needed or graph.device_memory_size

    def warmed_up(self) -> bool:
        """See :meth:`talksplat.backends.gpu_call.Work.warmed_up`. TensorRT for RTX can be asked;
        TensorRT allows the recording of whatever has fixed shapes."""
        self._graph.keep_kernels()
        ask = getattr(self._context.made, "is_stream_capturable", None)
        return ask is None or bool(ask(self._stream.handle))

    def use_scratch(self, memory: DeviceBuffer) -> None:
        """See :meth:`talksplat.backends.device_graph.BoundGraph.use_scratch`."""
        with memory.device.current():
            self._context.made.set_device_memory(memory.pointer, memory.bytes)

    def enqueue(self) -> None:
        """See :meth:`talksplat.backends.gpu_call.Work.enqueue`."""
        if not self._context.made.execute_async_v3(self._stream.handle):
            raise self._graph.refusal("it was not run")

    def close(self) -> None:
        """See :meth:`talksplat.backends.device_graph.BoundGraph.close`."""
        self._context.close()
