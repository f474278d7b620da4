"""A TensorRT for machines without a GPU: its Python API, as far as talksplat uses it.

Its engines carry their ONNX model and run it with ONNX Runtime on the CPU, over the memory and the
streams of the fake driver. What the real libraries check, this one checks too and refuses in the
same way: with a line in the log, and None or False. ``test_stand_ins`` holds every name here
against the real ``tensorrt_rtx``.
"""

from __future__ import annotations

import enum
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import shape_inference

if TYPE_CHECKING:
    from tests.sdk.cuda.fake_driver import FakeDriver

MAGIC = b"fake TensorRT engine\n"
ACTIVATION_BYTES = 4096
PLUGIN_DOMAIN = "talksplat"

Shape = tuple[int, ...]


class DataType(enum.Enum):
    """Types of tensors."""

    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    INT64 = 8


_ELEMENT_TYPES = {
    onnx.TensorProto.FLOAT: (DataType.FLOAT, np.float32),
    onnx.TensorProto.FLOAT16: (DataType.HALF, np.float16),
    onnx.TensorProto.INT8: (DataType.INT8, np.int8),
    onnx.TensorProto.INT32: (DataType.INT32, np.int32),
    onnx.TensorProto.BOOL: (DataType.BOOL, np.bool_),
    onnx.TensorProto.UINT8: (DataType.UINT8, np.uint8),
    onnx.TensorProto.INT64: (DataType.INT64, np.int64),
}


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class TensorLocation(enum.Enum):
    DEVICE = 0
    HOST = 1


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class CudaGraphStrategy(enum.Enum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    LAZY = 0
    EAGER = 1
    NONE = 2


class EngineValidity(enum.Enum):
    VALID = 0
    SUBOPTIMAL = 1
    INVALID = 2


class EngineInvalidityDiagnostics(enum.Flag):
    VERSION_MISMATCH = 1
    UNSUPPORTED_CC = 2
    OLD_CUDA_DRIVER = 4
    OLD_CUDA_RUNTIME = 8
    INSUFFICIENT_GPU_MEMORY = 16
    MALFORMED_ENGINE = 32
    CUDA_ERROR = 64


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 0


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0
    TACTIC_SHARED_MEMORY = 4


class ProfilingVerbosity(enum.Enum):
    LAYER_NAMES_ONLY = 0
    NONE = 1
    DETAILED = 2


class HardwareCompatibilityLevel(enum.Enum):
    NONE = 0
    AMPERE_PLUS = 1
    SAME_COMPUTE_CAPABILITY = 2


class BuilderFlag(enum.Enum):
    TF32 = 6
    STRIP_PLAN = 18


class RtxBuilderFlag(enum.Enum):
    TF32 = 6
    STRIP_PLAN = 18
    REQUIRE_USER_ALLOCATION = 28


class ComputeCapability(enum.Enum):
    NONE = 0
    CURRENT = 1
    SM75 = 75
    SM80 = 80
    SM86 = 86
    SM89 = 89
    SM120 = 120
    SM121 = 121


class ILogger:
    """What is told of errors."""

    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    INTERNAL_ERROR = Severity.INTERNAL_ERROR
    ERROR = Severity.ERROR
    WARNING = Severity.WARNING
    INFO = Severity.INFO
    VERBOSE = Severity.VERBOSE

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        raise NotImplementedError


class Logger(ILogger):
    def __init__(self, min_severity: ILogger.Severity = ILogger.Severity.WARNING) -> None:
        self.min_severity = min_severity

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        if severity <= self.min_severity:
            print(f"[fake TensorRT] [{severity.name}] {msg}")


class IProgressMonitor:
    """What is told of how far a build is; ``step_complete`` says whether to go on."""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class IHostMemory(bytes):
    """Bytes that the library owns."""

    @property
    def nbytes(self) -> int:
        return len(self)


@dataclass(frozen=True)
class Header:
    """What an engine of this library says of itself."""

    flavour: str
    version: str
    capabilities: tuple[int, ...]
    profile: dict[str, list[list[int]]]
    allocates: bool


@dataclass
class Machine:
    """What a test decides: the library's version and what the fake driver's device is.

    Attributes:
        driver: whose memory and streams it uses.
        plugins: operators that plugin libraries have registered.
        plugin_libraries: what the file of a name registers.
        capturable: whether contexts can be captured.
        statuses: what the rasterizers of composed graphs report from now on; None for the truth.
        custom_op_library: what computes the operators of composed graphs.
        refuses: what is logged instead of running a context; None to run it.
        refuses_capture: contexts say they can be recorded and then cannot.
        kernels_found: how many runtime caches were filled from a file.
        executions: how many times a context was put on a stream.
        cannot_infer: what is raised when sizes are inferred; None to infer them.
        refuses_kernels: runtime configurations take no cache of compiled kernels.
        misuses: what the real library forbids without saying so: to make, use or drop something
            while no context of the device is current, and one execution context in two threads.
    """

    flavour: str
    version: str
    driver: FakeDriver
    plugins: set[str] = field(default_factory=set)
    plugin_libraries: dict[str, set[str]] = field(default_factory=dict)
    capturable: bool = True
    statuses: NDArray[np.int32] | None = None
    custom_op_library: Path | None = None
    refuses: str | None = None
    refuses_capture: bool = False
    kernels_found: int = 0
    executions: int = 0
    cannot_infer: str | None = None
    refuses_kernels: bool = False
    misuses: list[str] = field(default_factory=list)

    def needs_context(self, what: str) -> None:
        """Note that something is done; without a context of the device that is a misuse, unless
        the device is lost and has none."""
        _, current = self.driver.cuCtxGetCurrent()
        if not int(current) and not self.driver.lost:
            self.misuses.append(f"{what}, and no context is current")

    def is_capturing(self, stream: int) -> bool:
        """Whether work on a stream is being recorded."""
        _, status = self.driver.cuStreamIsCapturing(stream)
        return "ACTIVE" in str(status.name)

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT for RTX."""
        return self.flavour == "tensorrt_rtx"

    @property
    def capability(self) -> int:
        """89 for a device of compute capability 8.9."""
        major, minor = self.driver.gpus[0].compute_capability
        return 10 * major + minor


class _OnDevice:
    """Something with memory on the device."""

    _machine: Machine

    def _make(self, machine: Machine) -> None:
        self._machine = machine
        machine.needs_context(f"{type(self).__name__} is made")

    def __del__(self) -> None:
        self._machine.needs_context(f"{type(self).__name__} is dropped")


class IPluginRegistry:
    """What plugin libraries have registered."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def get_creator(self, type: str, version: str, plugin_namespace: str = "") -> object | None:
        known = plugin_namespace == PLUGIN_DOMAIN and version == "1"
        return object() if known and type in self._machine.plugins else None

    def load_library(self, plugin_path: str) -> object | None:
        found = self._machine.plugin_libraries.get(Path(plugin_path).name)
        if found is None:
            return None
        self._machine.plugins |= found
        return object()


class ITensor:
    def __init__(self, value: onnx.ValueInfoProto) -> None:
        self.name = value.name
        self.dtype = _ELEMENT_TYPES[value.type.tensor_type.elem_type][0]
        self.shape = _shape(value)


class INetworkDefinition:
    def __init__(self, machine: Machine, strongly_typed: bool) -> None:
        self._strongly_typed = strongly_typed
        self.name = ""
        self._model = onnx.ModelProto()

    @property
    def num_inputs(self) -> int:
        return len(self._model.graph.input)

    @property
    def num_outputs(self) -> int:
        return len(self._model.graph.output)

    @property
    def num_layers(self) -> int:
        return len(self._model.graph.node)

    def get_input(self, index: int) -> ITensor:
        return ITensor(self._model.graph.input[index])

    def get_output(self, index: int) -> ITensor:
        return ITensor(self._model.graph.output[index])


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


class ITimingCache:
    def __init__(self, blob: bytes) -> None:
        self._blob = blob

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._blob)

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        return True


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, list[Shape]] = {}

    def set_shape(self, input: str, min: Shape, opt: Shape, max: Shape) -> None:
        self._shapes[input] = [tuple(min), tuple(opt), tuple(max)]

    def get_shape(self, input: str) -> list[Shape]:
        return self._shapes.get(input, [])


class IBuilderConfig:
    def __init__(self) -> None:
        self.progress_monitor: IProgressMonitor | None = None
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.builder_optimization_level = 3
        self.max_aux_streams = 0
        self.plugins_to_serialize: list[str] = []
        self._flags: set[enum.Enum] = set()
        self._profiles: list[IOptimizationProfile] = []
        self._timing_cache: ITimingCache | None = None

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def set_flag(self, flag: enum.Enum) -> None:
        self._flags.add(flag)

    def get_flag(self, flag: enum.Enum) -> bool:
        return flag in self._flags

    def clear_flag(self, flag: enum.Enum) -> None:
        self._flags.discard(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        pass

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._timing_cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._timing_cache


class RtxBuilderConfig(IBuilderConfig):
    """Also says which devices the engine is for."""

    def __init__(self) -> None:
        super().__init__()
        self.num_compute_capabilities = 0
        self._capabilities: dict[int, ComputeCapability] = {}

    def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> bool:
        self._capabilities[index] = compute_capability
        return True


class OnnxParser:
    machine: Machine

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def clear_errors(self) -> None:
        self._errors.clear()

    def parse(self, model: bytes, path: str | None = None) -> bool:
        found = onnx.load_from_string(bytes(model))
        for node in found.graph.node:
            if node.domain == PLUGIN_DOMAIN and node.op_type not in self.machine.plugins:
                self._errors.append(
                    ParserError(f"Plugin not found: {node.op_type}, namespace {node.domain}")
                )
        self._network._model = found
        return not self._errors

    def parse_from_file(self, model: str) -> bool:
        return self.parse(Path(model).read_bytes())


class Builder:
    machine: Machine

    def __init__(self, logger: ILogger) -> None:
        self.logger = logger
        self.max_threads = 0

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        typed = 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return INetworkDefinition(self.machine, bool(flags & typed))

    def create_builder_config(self) -> IBuilderConfig:
        return RtxBuilderConfig() if self.machine.is_rtx else IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        free = {
            tensor.name
            for tensor in map(network.get_input, range(network.num_inputs))
            if -1 in tensor.shape
        }
        profile = config._profiles[0]._shapes if config._profiles else {}
        if not free <= set(profile):
            self.logger.log(
                ILogger.Severity.ERROR,
                f"Network has dynamic inputs without a profile: {sorted(free - set(profile))}",
            )
            return None
        if config.progress_monitor is not None:
            config.progress_monitor.phase_start("Building Engine", None, 2)
            for step in range(2):
                if not config.progress_monitor.step_complete("Building Engine", step):
                    return None
            config.progress_monitor.phase_finish("Building Engine")
        named = config._capabilities if isinstance(config, RtxBuilderConfig) else {}
        chosen = [capability.value for capability in named.values()]
        capabilities = tuple(sm for sm in chosen if sm > 1) or (self.machine.capability,)
        header = Header(
            self.machine.flavour,
            self.machine.version,
            capabilities,
            {name: [list(shape) for shape in shapes] for name, shapes in profile.items()},
            self.machine.is_rtx and RtxBuilderFlag.REQUIRE_USER_ALLOCATION not in config._flags,
        )
        text = json.dumps(asdict(header)).encode() + b"\n"
        return IHostMemory(MAGIC + text + network._model.SerializeToString(deterministic=True))


def read_engine(serialized: bytes) -> tuple[Header, onnx.ModelProto] | None:
    """What an engine holds; None if it is damaged."""
    if not serialized.startswith(MAGIC):
        return None
    header, _, model = serialized[len(MAGIC) :].partition(b"\n")
    try:
        found = json.loads(header)
        found["capabilities"] = tuple(found["capabilities"])
        return Header(**found), onnx.load_from_string(model)
    except Exception:  # whatever a damaged engine makes of these
        return None


def with_header(serialized: bytes, **changes: Any) -> bytes:
    """The same engine with another header."""
    found = read_engine(serialized)
    assert found is not None
    header = json.dumps(asdict(replace(found[0], **changes))).encode() + b"\n"
    return MAGIC + header + found[1].SerializeToString(deterministic=True)


class Runtime(_OnDevice):
    machine: Machine

    def __init__(self, logger: ILogger) -> None:
        self._make(self.machine)
        self.logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        trouble = self._trouble(serialized_engine)
        if trouble is not None:
            self.logger.log(ILogger.Severity.ERROR, f"The engine cannot be used: {trouble.name}")
            return None
        found = read_engine(bytes(serialized_engine))
        assert found is not None
        kind = RtxCudaEngine if self.machine.is_rtx else ICudaEngine
        return kind(self.machine, self.logger, *found)

    def _trouble(self, engine: bytes) -> EngineInvalidityDiagnostics | None:
        found = read_engine(bytes(engine))
        if found is None:
            return EngineInvalidityDiagnostics.MALFORMED_ENGINE
        header = found[0]
        if (header.flavour, header.version) != (self.machine.flavour, self.machine.version):
            return EngineInvalidityDiagnostics.VERSION_MISMATCH
        if self.machine.capability not in header.capabilities:
            return EngineInvalidityDiagnostics.UNSUPPORTED_CC
        return None


class RtxRuntime(Runtime):
    """Says beforehand why an engine would be refused."""

    def get_engine_validity(
        self, buffer: bytes
    ) -> tuple[EngineValidity, EngineInvalidityDiagnostics]:
        trouble = self._trouble(buffer)
        if trouble is None:
            return EngineValidity.VALID, EngineInvalidityDiagnostics(0)
        return EngineValidity.INVALID, trouble


class IRuntimeCache(_OnDevice):
    """Kernels compiled for the device; here how many contexts were made with it."""

    def __init__(self, machine: Machine) -> None:
        self._make(machine)
        self._contexts = 0

    def serialize(self) -> IHostMemory:
        return IHostMemory(b"contexts %d" % self._contexts)

    def deserialize(self, blob: bytes) -> bool:
        text = bytes(blob)
        if not text.startswith(b"contexts "):
            return False
        self._contexts = int(text.split()[1])
        self._machine.kernels_found += 1
        return True

    def reset(self) -> bool:
        self._contexts = 0
        return True


class IRuntimeConfig:
    def __init__(self) -> None:
        self._strategy = ExecutionContextAllocationStrategy.STATIC

    def set_execution_context_allocation_strategy(
        self,
        strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC,
    ) -> None:
        self._strategy = strategy

    def get_execution_context_allocation_strategy(self) -> ExecutionContextAllocationStrategy:
        return self._strategy


class RtxRuntimeConfig(IRuntimeConfig):
    """Also says how kernels are compiled and kept."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self.dynamic_shapes_kernel_specialization_strategy = (
            DynamicShapesKernelSpecializationStrategy.LAZY
        )
        self._cache: IRuntimeCache | None = None

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache(self._machine)

    def set_runtime_cache(self, cache: IRuntimeCache | None = None) -> bool:
        if self._machine.refuses_kernels:
            return False
        self._cache = cache
        return True

    def get_runtime_cache(self) -> IRuntimeCache | None:
        return self._cache


class ICudaEngine(_OnDevice):
    def __init__(
        self, machine: Machine, logger: ILogger, header: Header, model: onnx.ModelProto
    ) -> None:
        self._make(machine)
        self._logger = logger
        self._header = header
        self._model = model
        self._session = _open_session(model, machine.custom_op_library)
        self.name = model.graph.name
        self.device_memory_size_v2 = ACTIVATION_BYTES
        self.num_optimization_profiles = 1
        graph = model.graph
        self._tensors = {value.name: value for value in (*graph.input, *graph.output)}
        self._inputs = [value.name for value in graph.input]

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_layers(self) -> int:
        return len(self._model.graph.node)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        if name not in self._tensors:
            return TensorIOMode.NONE
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> Shape:
        return _shape(self._tensors[name])

    def get_tensor_dtype(self, name: str) -> DataType:
        return _ELEMENT_TYPES[self._tensors[name].type.tensor_type.elem_type][0]

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return ACTIVATION_BYTES

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(
        self,
        strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC,
        *,
        runtime_config: IRuntimeConfig | None = None,
    ) -> IExecutionContext | None:
        if isinstance(strategy, IRuntimeConfig):  # the second overload
            runtime_config = strategy
        if runtime_config is not None:
            strategy = runtime_config._strategy
        return IExecutionContext(self, strategy)


class RtxCudaEngine(ICudaEngine):
    """Compiles its kernels when a context runs."""

    def create_runtime_config(self) -> IRuntimeConfig:
        return RtxRuntimeConfig(self._machine)

    def create_execution_context(
        self,
        strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC,
        *,
        runtime_config: IRuntimeConfig | None = None,
    ) -> IExecutionContext | None:
        if isinstance(strategy, IRuntimeConfig):
            runtime_config = strategy
        context = RtxExecutionContext(self, strategy)
        if isinstance(runtime_config, RtxRuntimeConfig):
            context._strategy = runtime_config._strategy
            # A kernel that is being compiled beside the frame cannot be recorded.
            lazy = DynamicShapesKernelSpecializationStrategy.LAZY
            chosen = runtime_config.dynamic_shapes_kernel_specialization_strategy
            context._compiles_later = chosen is lazy
            if runtime_config._cache is not None:
                runtime_config._cache._contexts += 1
        return context


class IExecutionContext(_OnDevice):
    def __init__(self, engine: ICudaEngine, strategy: ExecutionContextAllocationStrategy) -> None:
        self._make(engine._machine)
        self._in_use = Lock()
        self.engine = engine
        self._strategy = strategy
        self._addresses: dict[str, int] = {}
        self._activations: tuple[int, int] | None = None
        self._shapes = {
            name: _shape(engine._tensors[name])
            for name in engine._inputs
            if -1 not in _shape(engine._tensors[name])
        }
        self._outputs: dict[str, Shape] = {}

    @property
    def all_binding_shapes_specified(self) -> bool:
        return set(self._shapes) == set(self.engine._inputs)

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        declared = _shape(self.engine._tensors[name])
        found = tuple(shape)
        fits = len(found) == len(declared) and all(
            size in (-1, given) for size, given in zip(declared, found, strict=True)
        )
        if fits and name in self.engine._header.profile:
            smallest, _, largest = self.engine._header.profile[name]
            fits = all(
                low <= size <= high
                for low, size, high in zip(smallest, found, largest, strict=True)
            )
        if not fits:
            return self._refuse(f"{name}: shape {found} is outside of the profile")
        self._shapes[name] = found
        self._outputs = {}
        return True

    def infer_shapes(self) -> list[str]:
        if (trouble := self._machine.cannot_infer) is not None:
            del self  # the real one is no Python frame that an error's traceback keeps
            raise RuntimeError(trouble)
        missing = [name for name in self.engine._inputs if name not in self._shapes]
        if not missing and not self._outputs:
            self._outputs = _output_shapes(self.engine._model, self._shapes)
        return missing

    def get_tensor_shape(self, name: str) -> Shape:
        if name in self._shapes:
            return self._shapes[name]
        self.infer_shapes()
        return self._outputs.get(name, _shape(self.engine._tensors[name]))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self.engine._tensors:
            return self._refuse(f"there is no tensor {name}")
        if memory % 256:
            return self._refuse(f"{name}: the address is not aligned to 256 bytes")
        self._addresses[name] = memory
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def update_device_memory_size_for_shapes(self) -> int:
        return ACTIVATION_BYTES if not self.infer_shapes() else 0

    def set_device_memory(self, memory: int, size: int) -> None:
        self._machine.needs_context("device memory is set")
        self._activations = (memory, size)

    def execute_async_v3(self, stream_handle: int) -> bool:
        self._machine.needs_context("a context is run")
        if not self._in_use.acquire(blocking=False):
            self._machine.misuses.append("a context is run by two threads at once")
            return False
        try:
            time.sleep(1e-4)  # another thread's turn
            return self._execute(stream_handle)
        finally:
            self._in_use.release()

    def _execute(self, stream_handle: int) -> bool:
        machine, names = self.engine._machine, list(self.engine._tensors)
        if machine.refuses is not None:
            return self._refuse(machine.refuses)
        if machine.refuses_capture and machine.is_capturing(stream_handle):
            return self._refuse("memory is allocated while the stream is captured")
        if missing := [name for name in names if not self._addresses.get(name)]:
            return self._refuse(f"no address for {missing}")
        if missing := self.infer_shapes():
            return self._refuse(f"no shape for {missing}")
        given = 0 if self._activations is None else self._activations[1]
        managed = self._strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        if managed and given < ACTIVATION_BYTES:
            return self._refuse("too little device memory was set")
        addresses, activations = dict(self._addresses), self._activations
        shapes, outputs = dict(self._shapes), dict(self._outputs)
        session, dtypes = self.engine._session, {name: self._dtype(name) for name in names}

        # What is on its way on a stream does not keep a context alive.
        def execute() -> None:
            if activations is not None:  # whatever lives there is overwritten
                machine.driver.view(activations[0], activations[1:], np.uint8)[:] = 0xA5
            feed = {
                name: machine.driver.view(addresses[name], shape, dtypes[name]).copy()
                for name, shape in shapes.items()
            }
            results = session.run(list(outputs), feed)
            for (name, shape), result in zip(outputs.items(), results, strict=True):
                if name == "status" and machine.statuses is not None:
                    result = machine.statuses
                machine.driver.view(addresses[name], shape, dtypes[name])[...] = result

        machine.driver.enqueue(stream_handle, execute)
        machine.executions += 1
        return True

    def _dtype(self, name: str) -> type[np.generic]:
        return _ELEMENT_TYPES[self.engine._tensors[name].type.tensor_type.elem_type][1]

    def _refuse(self, text: str) -> bool:
        self.engine._logger.log(ILogger.Severity.ERROR, text)
        return False


class RtxExecutionContext(IExecutionContext):
    """Says whether it can be recorded."""

    _compiles_later = True

    def is_stream_capturable(self, stream: int) -> bool:
        engine = self.engine
        return not (self._compiles_later or engine._header.allocates) and engine._machine.capturable


def fake_tensorrt(machine: Machine) -> ModuleType:
    """The module, to be put into ``sys.modules`` under the flavour's name."""
    module = ModuleType(machine.flavour)
    module.__version__ = machine.version  # type: ignore[attr-defined]
    for name, part in (RTX_PARTS if machine.is_rtx else PARTS).items():
        knows = {"machine": machine} if part in (OnnxParser, Builder, Runtime, RtxRuntime) else {}
        setattr(module, name, type(name, (part,), knows) if knows else part)
    registry = IPluginRegistry(machine)
    module.get_plugin_registry = lambda: registry  # type: ignore[attr-defined]
    return module


PARTS: dict[str, type] = {
    part.__name__: part
    for part in (
        Builder, BuilderFlag, DataType, ExecutionContextAllocationStrategy,
        HardwareCompatibilityLevel, IBuilderConfig, ICudaEngine, IExecutionContext, IHostMemory,
        ILogger, INetworkDefinition, IOptimizationProfile, IPluginRegistry, IProgressMonitor,
        IRuntimeConfig, ITensor, ITimingCache, Logger, MemoryPoolType,
        NetworkDefinitionCreationFlag, OnnxParser, ParserError, ProfilingVerbosity, Runtime,
        TensorIOMode, TensorLocation,
    )
}  # fmt: skip
"""The names of TensorRT."""

RTX_PARTS: dict[str, type] = PARTS | {
    "BuilderFlag": RtxBuilderFlag,
    "ComputeCapability": ComputeCapability,
    "CudaGraphStrategy": CudaGraphStrategy,
    "DynamicShapesKernelSpecializationStrategy": DynamicShapesKernelSpecializationStrategy,
    "EngineInvalidityDiagnostics": EngineInvalidityDiagnostics,
    "EngineValidity": EngineValidity,
    "IBuilderConfig": RtxBuilderConfig,
    "ICudaEngine": RtxCudaEngine,
    "IExecutionContext": RtxExecutionContext,
    "IRuntimeCache": IRuntimeCache,
    "IRuntimeConfig": RtxRuntimeConfig,
    "Runtime": RtxRuntime,
}
"""The names of TensorRT for RTX."""


def _shape(value: onnx.ValueInfoProto) -> Shape:
    """Sizes, -1 where free, as TensorRT says them."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)


def _output_shapes(model: onnx.ModelProto, inputs: dict[str, Shape]) -> dict[str, Shape]:
    declared = {value.name: _shape(value) for value in model.graph.output}
    if all(-1 not in shape for shape in declared.values()):
        return declared
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, inputs[value.name], strict=True):
            dim.dim_value = size
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    found = shape_inference.infer_shapes(fixed, data_prop=True)
    return {value.name: _shape(value) for value in found.graph.output}


def _open_session(
    model: onnx.ModelProto, custom_op_library: Path | None
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if any(node.domain == PLUGIN_DOMAIN for node in model.graph.node):
        assert custom_op_library is not None, "a composed graph needs the custom op library"
        options.register_custom_ops_library(str(custom_op_library))
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
