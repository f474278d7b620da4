"""ONNX Runtime's CUDA provider for the graphs, our kernels between them.

Nothing is built beforehand and any GPU will do, so it is what works when TensorRT is not there.
Frames are not recorded: ONNX Runtime allocates while it runs, which a recording must not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import onnxruntime

from talksplat.backends.base import Array
from talksplat.backends.device_graph import DeviceGraph
from talksplat.backends.gpu_backend import GpuBackend
from talksplat.backends.gpu_frame import FramePlan
from talksplat.backends.options import Options
from talksplat.bundle import Bundle
from talksplat.cuda import Device, DeviceArray, DeviceBuffer, Held, Stream, open_device
from talksplat.cuda.kernels import check_compiler
from talksplat.errors import BackendError
from talksplat.frame_program import FrameProgram, RunGraph, check_program
from talksplat.manifest import GraphSpec

PROVIDER = "CUDAExecutionProvider"
_INSTALL = (
    "pip install --force-reinstall --no-deps onnxruntime-gpu, which takes the place of "
    "onnxruntime: they are one Python module"
)


def open_backend(options: Options) -> GpuBackend:
    """The backend ``onnxruntime-cuda``, ready to load.

    Raises:
        BackendError: no GPU, ONNX Runtime without CUDA or what that needs, no compiler for our
            kernels, or another precision than float32.
        DeviceLostError: the GPU was lost, and what used it is not closed yet.
    """
    with ExitStack() as opened:
        device = opened.enter_context(open_device())
        check_installed()
        if options.precision != "fp32":
            raise BackendError(
                f"onnxruntime-cuda computes in fp32, asked for was {options.precision}; leave "
                "precision out, or use tensorrt or tensorrt-rtx."
            )
        check_compiler(device)
        carrier = OnnxRuntimeCuda(device)
        _check_libraries(device)
        backend = GpuBackend("onnxruntime-cuda", device, carrier, options.stage_times)
        opened.pop_all()
    return backend


def check_installed() -> str:
    """Version of ONNX Runtime, if it has the CUDA provider.

    Raises:
        BackendError: it has not; says how to get it.
    """
    version = str(onnxruntime.__version__)
    providers = onnxruntime.get_available_providers()
    if PROVIDER not in providers:
        raise BackendError(
            f"The backend onnxruntime-cuda needs {PROVIDER}; ONNX Runtime {version} has "
            f"{', '.join(providers)}. {_INSTALL}."
        )
    return version


class OnnxRuntimeCuda:
    """Loads graphs; see :class:`talksplat.backends.gpu_backend.Carrier`."""

    def __init__(self, device: Device) -> None:
        self._device = device
        # Since 1.21 ONNX Runtime finds the CUDA and cuDNN of NVIDIA's own wheels when asked to.
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()

    def load_graph(
        self, file: Path, spec: GraphSpec, constants: Mapping[str, Array]
    ) -> DeviceGraph:
        """See :meth:`talksplat.backends.gpu_backend.Carrier.load_graph`."""
        return OnnxRuntimeGraph(self._device, file)

    def plan_frame(self, bundle: Bundle, program: FrameProgram) -> FramePlan:
        """See :meth:`talksplat.backends.gpu_backend.Carrier.plan_frame`."""
        values = check_program(program, bundle.manifest)
        graphs = {
            step.graph: OnnxRuntimeGraph(self._device, bundle.graph_file(step.graph))
            for step in program.steps
            if isinstance(step, RunGraph)
        }
        return FramePlan(program, program.steps, values, graphs)


class OnnxRuntimeGraph:
    """A file; see :class:`talksplat.backends.device_graph.DeviceGraph`.

    A stream of work is given to ONNX Runtime when it opens a file, so every session opens its own,
    with weights of its own.
    """

    def __init__(self, device: Device, file: Path) -> None:
        self._device = device
        self._file = file

    def bind(self, stream: Stream, arrays: Mapping[str, DeviceArray]) -> OnnxRuntimeWork:
        """See :meth:`talksplat.backends.device_graph.DeviceGraph.bind`."""
        self._device.check_alive()
        with self._device.current(), ExitStack() as opened:
            # No variables for session and binding: an error's traceback would keep them.
            session = opened.enter_context(
                self._device.hold(_open_session(str(self._file), self._device, stream))
            )
            binding = opened.enter_context(self._device.hold(session.made.io_binding()))
            for node in session.made.get_inputs():
                self._bind(node.name, binding.made.bind_input, arrays)
            for node in session.made.get_outputs():
                self._bind(node.name, binding.made.bind_output, arrays)
            opened.pop_all()
        return OnnxRuntimeWork(self._device, self._file.name, session, binding)

    def close(self) -> None:
        """See :meth:`talksplat.backends.device_graph.DeviceGraph.close`; sessions hold it all."""

    def _bind(
        self, name: str, bind: Callable[..., None], arrays: Mapping[str, DeviceArray]
    ) -> None:
        if name not in arrays:
            raise BackendError(
                f"onnxruntime-cuda, {self._file.name}: nothing is bound to {name!r}. Export the "
                "avatar again."
            )
        array, index = arrays[name], self._device.index
        try:
            bind(name, "cuda", index, array.dtype, list(array.shape), array.pointer)
        except Exception as error:  # ONNX Runtime's own errors share no base of their own
            self._device.free_memory()  # fails with whatever befell the device
            raise BackendError(
                f"onnxruntime-cuda cannot bind {name!r} of {self._file.name}: {error}. Export the "
                "avatar again."
            ) from error


class OnnxRuntimeWork:
    """A session on a stream; see :class:`talksplat.backends.device_graph.BoundGraph`."""

    scratch_bytes = 0

    def __init__(self, device: Device, name: str, session: Held, binding: Held) -> None:
        self._device = device
        self._name = name
        self._session = session
        self._binding = binding
        self._options = onnxruntime.RunOptions()
        # What follows is on the same stream; the host need not wait between two graphs.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def use_scratch(self, memory: DeviceBuffer) -> None:
        """Not asked for: ONNX Runtime has an arena of its own."""

    def enqueue(self) -> None:
        """See :meth:`talksplat.backends.gpu_call.Work.enqueue`."""
        try:
            self._session.made.run_with_iobinding(self._binding.made, self._options)
        except Exception as error:  # ONNX Runtime's own errors share no base of their own
            self._device.free_memory()  # fails with whatever befell the device
            raise BackendError(f"onnxruntime-cuda failed on {self._name}: {error}") from error

    def warmed_up(self) -> bool:
        """See :meth:`talksplat.backends.gpu_call.Work.warmed_up`."""
        return False

    def close(self) -> None:
        """See :meth:`talksplat.backends.device_graph.BoundGraph.close`."""
        with ExitStack() as closing:
            closing.callback(self._session.close)
            closing.callback(self._binding.close)


def _open_session(model: str | bytes, device: Device, stream: Stream) -> Any:
    """A session on the GPU.

    Args:
        model: a file's path, or what a file holds.
        device: that is current.
        stream: on which it works.

    Raises:
        BackendError: ONNX Runtime refuses the model, or cannot load what it needs on a GPU.
        DeviceLostError: the device is lost.
    """
    name = Path(model).name if isinstance(model, str) else "a graph that does nothing"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # Sessions give the same bits: nothing is chosen by timing it, or added up as it comes.
    options.use_deterministic_compute = True
    cuda = {
        "device_id": str(device.index),
        "user_compute_stream": str(stream.handle),
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",  # float32 is meant
    }
    try:
        session = onnxruntime.InferenceSession(
            model, sess_options=options, providers=[(PROVIDER, cuda), "CPUExecutionProvider"]
        )
        session.disable_fallback()
    except Exception as error:  # ONNX Runtime's own errors share no base of their own
        device.free_memory()  # fails with whatever befell the device
        raise BackendError(
            f"onnxruntime-cuda cannot open {name}: {error}. If it is short of memory, close other "
            "sessions on this GPU."
        ) from error
    if PROVIDER not in session.get_providers():
        raise BackendError(
            "onnxruntime-cuda would run on the CPU only: its CUDA or cuDNN libraries cannot be "
            "loaded. pip install 'onnxruntime-gpu[cuda,cudnn]'."
        )
    return session


def _check_libraries(device: Device) -> None:
    """See whether sessions can be on the GPU, which needs libraries that ONNX Runtime loads with
    the first session and goes on without.

    Raises:
        BackendError: they cannot.
        DeviceLostError: the device is lost.
    """
    with Stream(device) as stream, device.current():
        device.hold(_open_session(_IDENTITY, device, stream)).close()


def _message(*fields: tuple[int, int | bytes]) -> bytes:
    """A protobuf message of short fields, by number: integers and strings or messages."""
    parts = (
        bytes((number << 3, value))
        if isinstance(value, int)
        else bytes((number << 3 | 2, len(value))) + value
        for number, value in fields
    )
    return b"".join(parts)


def _identity() -> bytes:
    """An ONNX model with ``y = Identity(x)`` for float32 [1], by the numbers of onnx.proto."""
    shape = _message((1, _message((1, 1))))
    tensor = _message((1, _message((1, 1), (2, shape))))
    node = _message((1, b"x"), (2, b"y"), (4, b"Identity"))
    values = ((11, _message((1, b"x"), (2, tensor))), (12, _message((1, b"y"), (2, tensor))))
    graph = _message((1, node), (2, b"identity"), *values)
    return _message((1, 8), (8, _message((2, 17))), (7, graph))


_IDENTITY = _identity()
