"""ONNX Runtime on the CPU: the backend that is always there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from talksplat.backends.base import Array
from talksplat.backends.options import Options
from talksplat.backends.split_frame import SplitFrame
from talksplat.bundle import Bundle
from talksplat.closing import Closing
from talksplat.errors import BackendError, BundleError
from talksplat.frame_program import FrameProgram
from talksplat.manifest import GraphSpec, TensorSpec

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


def open_backend(options: Options) -> OnnxRuntimeCpu:
    """The backend, ready to load.

    Raises:
        BackendError: another precision than float32 is asked for.
    """
    if options.precision != "fp32":
        raise BackendError(
            f"onnxruntime-cpu computes in fp32, asked for was {options.precision}; leave precision "
            "out, or use tensorrt or tensorrt-rtx on a machine with an NVIDIA GPU."
        )
    return OnnxRuntimeCpu(options.threads)


class OnnxRuntimeCpu:
    """The backend ``onnxruntime-cpu``.

    Args:
        threads: threads that one graph, or the rasterizer, may use.
    """

    name = "onnxruntime-cpu"

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def load(
        self, file: Path, spec: GraphSpec, constants: Mapping[str, Array] | None = None
    ) -> OnnxRuntimeEngine:
        """See :meth:`talksplat.backends.Backend.load`."""
        return OnnxRuntimeEngine(open_session(file, self.threads), spec, constants or {})

    def load_frame(self, bundle: Bundle, program: FrameProgram) -> SplitFrame:
        """See :meth:`talksplat.backends.Backend.load_frame`."""
        return SplitFrame(self, bundle, program, self.threads)

    def close(self) -> None:
        """See :meth:`talksplat.backends.Backend.close`; memory goes with the engines."""


class OnnxRuntimeEngine:
    """One graph in one ``onnxruntime.InferenceSession``."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        spec: GraphSpec,
        constants: Mapping[str, Array],
    ) -> None:
        inputs, outputs = graph_tensors(session)
        for kind, expected, found in (
            ("inputs", spec.inputs, inputs),
            ("outputs", spec.outputs, outputs),
        ):
            if expected != found:
                raise BundleError(
                    f"The {kind} of {spec.file} are not those in the manifest: expected "
                    f"{expected}, found {found}. Export the avatar again."
                )
        self.spec = spec
        self._session = session
        tensors = {tensor.name: tensor for tensor in spec.inputs}
        for name, constant in constants.items():
            if name not in tensors:
                raise BackendError(f"{spec.file} has no input {name!r} to bind a constant to.")
            _check_tensor(spec.file, "Input", tensors[name], constant)
        self._constants = {
            name: np.ascontiguousarray(constant) for name, constant in constants.items()
        }

    def runner(self) -> OnnxRuntimeRunner:
        """A new runner of this graph."""
        return OnnxRuntimeRunner(self._session, self.spec, self._constants)


class OnnxRuntimeRunner(Closing):
    """See :class:`talksplat.backends.Runner`.

    ``InferenceSession.run`` reads and returns NumPy arrays without copying them; IO binding was
    measured to be no faster on the CPU, and to copy outputs.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        spec: GraphSpec,
        constants: Mapping[str, Array],
    ) -> None:
        self._session = session
        self._spec = spec
        self._constants = constants
        self._varying = tuple(tensor for tensor in spec.inputs if tensor.name not in constants)
        self._output_names = tuple(tensor.name for tensor in spec.outputs)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See :meth:`talksplat.backends.Runner.run`."""
        feed = dict(self._constants)
        for tensor in self._varying:
            array = inputs.get(tensor.name)
            if array is None:
                raise BackendError(f"{self._spec.file} expects an input {tensor.name!r}.")
            _check_tensor(self._spec.file, "Input", tensor, array)
            feed[tensor.name] = np.ascontiguousarray(array)
        try:
            arrays = self._session.run(self._output_names, feed)
        except Exception as error:  # ONNX Runtime's own errors share no base of their own
            raise BackendError(f"onnxruntime-cpu failed on {self._spec.file}: {error}") from error
        for tensor, array in zip(self._spec.outputs, arrays, strict=True):
            _check_tensor(self._spec.file, "Output", tensor, array)
        return {
            tensor.name: array for tensor, array in zip(self._spec.outputs, arrays, strict=True)
        }

    def close(self) -> None:
        """See :meth:`talksplat.backends.Runner.close`."""


def open_session(file: Path, threads: int) -> onnxruntime.InferenceSession:
    """An inference session on the CPU.

    Raises:
        BundleError: ONNX Runtime refuses the file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin after a graph would take the cores from the rasterizer's threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            str(file), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own errors share no base of their own
        raise BundleError(f"ONNX Runtime cannot open {file}: {error}") from error


def graph_tensors(
    session: onnxruntime.InferenceSession,
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a graph as the manifest describes them.

    Raises:
        BundleError: a tensor has a type that talksplat does not know.
    """
    return (
        tuple(_tensor_spec(node) for node in session.get_inputs()),
        tuple(_tensor_spec(node) for node in session.get_outputs()),
    )


def _tensor_spec(node: Any) -> TensorSpec:
    if node.type not in _DTYPES:
        raise BundleError(
            f"Tensor {node.name!r} has type {node.type}; expected one of {', '.join(_DTYPES)}."
        )
    shape = tuple(size if isinstance(size, int) else str(size or "") for size in node.shape)
    return TensorSpec(name=node.name, dtype=_DTYPES[node.type], shape=shape)  # type: ignore[arg-type]


def _check_tensor(file: str, kind: str, tensor: TensorSpec, array: Array) -> None:
    sizes_fit = len(array.shape) == len(tensor.shape) and all(
        isinstance(size, str) or size == found
        for size, found in zip(tensor.shape, array.shape, strict=True)
    )
    if array.dtype != tensor.dtype or not sizes_fit:
        raise BackendError(
            f"{kind} {tensor.name!r} of {file} expects {tensor.dtype} {list(tensor.shape)}, "
            f"found {array.dtype} {list(array.shape)}."
        )
