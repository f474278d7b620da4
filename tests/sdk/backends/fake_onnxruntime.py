"""An ONNX Runtime with a CUDA provider, on the CPU: what talksplat's CUDA backend uses of it.

Sessions compute with the real ONNX Runtime, over the memory of the fake driver and as work on the
stream they were given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime as real
from tests.sdk.cuda.fake_driver import FakeDriver

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


@dataclass
class FakeOnnxRuntime:
    """What ``import onnxruntime`` gives in a test.

    Attributes:
        driver: whose memory and streams it uses.
        providers: what the installed wheel has.
        libraries_load: whether cuDNN and the like are found; ONNX Runtime goes on without them.
        refuses_binding: what is raised when a tensor is bound; None to bind it.
    """

    driver: FakeDriver
    providers: list[str] = field(default_factory=lambda: [CUDA, CPU])
    libraries_load: bool = True
    refuses_binding: str | None = None
    __version__: str = real.__version__
    SessionOptions: Any = real.SessionOptions
    RunOptions: Any = real.RunOptions

    def get_available_providers(self) -> list[str]:
        return list(self.providers)

    def preload_dlls(self) -> None:
        """Nothing to load."""

    def InferenceSession(  # noqa: N802 (the library's own name)
        self, path: str | bytes, sess_options: Any, providers: list[Any]
    ) -> FakeSession:
        name, options = providers[0]
        assert name == CUDA and sess_options.use_deterministic_compute
        assert options["cudnn_conv_algo_search"] == "HEURISTIC" and options["use_tf32"] == "0"
        loaded = [CUDA, CPU] if self.libraries_load else [CPU]
        session = real.InferenceSession(path, sess_options, providers=[CPU])
        stream = int(options["user_compute_stream"])
        return FakeSession(self, session, loaded, stream)


class FakeSession:
    def __init__(
        self, library: FakeOnnxRuntime, session: Any, providers: list[str], stream: int
    ) -> None:
        self._library = library
        self._driver = library.driver
        self._session = session
        self._providers = providers
        self._stream = stream
        self.get_inputs: Callable[[], Any] = session.get_inputs
        self.get_outputs: Callable[[], Any] = session.get_outputs
        self._falls_back = True

    def get_providers(self) -> list[str]:
        return self._providers

    def disable_fallback(self) -> None:
        self._falls_back = False

    def io_binding(self) -> FakeBinding:
        return FakeBinding(self._library)

    def run_with_iobinding(self, iobinding: FakeBinding, run_options: Any = None) -> None:
        waits = run_options.get_run_config_entry("disable_synchronize_execution_providers") != "1"
        assert not waits and not self._falls_back
        inputs, outputs = dict(iobinding.inputs), dict(iobinding.outputs)
        view = self._driver.view

        def execute() -> None:
            feed = {name: view(*place).copy() for name, place in inputs.items()}
            results = self._session.run(list(outputs), feed)
            for place, result in zip(outputs.values(), results, strict=True):
                view(*place)[...] = result

        self._driver.enqueue(self._stream, execute)


class FakeBinding:
    """Places of tensors: pointer, shape, dtype."""

    def __init__(self, library: FakeOnnxRuntime) -> None:
        self._library = library
        self.inputs: dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]] = {}
        self.outputs: dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]] = {}

    def bind_input(
        self,
        name: str,
        device_type: str,
        device_id: int,
        element_type: Any,
        shape: list[int],
        buffer_ptr: int,
    ) -> None:
        assert (device_type, device_id) == ("cuda", 0)
        if self._library.refuses_binding is not None:
            raise RuntimeError(self._library.refuses_binding)
        self.inputs[name] = buffer_ptr, tuple(shape), np.dtype(element_type)

    def bind_output(
        self,
        name: str,
        device_type: str,
        device_id: int,
        element_type: Any,
        shape: list[int],
        buffer_ptr: int,
    ) -> None:
        assert (device_type, device_id) == ("cuda", 0)
        if self._library.refuses_binding is not None:
            raise RuntimeError(self._library.refuses_binding)
        self.outputs[name] = buffer_ptr, tuple(shape), np.dtype(element_type)
