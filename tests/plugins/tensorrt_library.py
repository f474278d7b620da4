"""TensorRT's plugin library, compiled without CUDA and spoken to as TensorRT speaks to it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PLUGINS = HERE.parents[1] / "plugins" / "gaussian_rasterizer"
VERSION = "1.2.3"
ARCHITECTURES = "75-real 120"

ROOTS = [Path(root) for root in os.environ.get("TENSORRT_ROOT", "").split(os.pathsep) if root]
NO_ROOTS = (
    "TENSORRT_ROOT is not set: TensorRT's plugin is not compiled and not tested (set it to a "
    "folder with TensorRT's headers, or to several)"
)

INPUTS = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds")
OUTPUTS = ("colors", "alphas", "status")


class DataType(IntEnum):
    """nvinfer1::DataType."""

    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    FP8 = 6
    BF16 = 7
    INT64 = 8


class FieldType(IntEnum):
    """nvinfer1::PluginFieldType."""

    FLOAT16 = 0
    FLOAT32 = 1
    FLOAT64 = 2
    INT32 = 5
    CHAR = 6
    INT64 = 10


FIELD_STORAGE: dict[FieldType, Any] = {
    FieldType.FLOAT32: ctypes.c_float,
    FieldType.FLOAT64: ctypes.c_double,
    FieldType.INT32: ctypes.c_int32,
    FieldType.INT64: ctypes.c_int64,
}

BUILD, RUNTIME = 0, 1
CORE_CAPABILITY, BUILD_CAPABILITY, RUNTIME_CAPABILITY = 0, 1, 2


class Dims(ctypes.Structure):
    """nvinfer1::Dims64."""

    _fields_ = (("nbDims", ctypes.c_int32), ("d", ctypes.c_int64 * 8))

    @classmethod
    def of(cls, shape: Sequence[int]) -> Dims:
        return cls(len(shape), (ctypes.c_int64 * 8)(*shape))


class TensorDescription(ctypes.Structure):
    """nvinfer1::PluginTensorDesc."""

    _fields_ = (
        ("dims", Dims),
        ("type", ctypes.c_int32),
        ("format", ctypes.c_int32),
        ("scale", ctypes.c_float),
    )


class DynamicTensorDescription(ctypes.Structure):
    """nvinfer1::DynamicPluginTensorDesc."""

    _fields_ = (("desc", TensorDescription), ("min", Dims), ("max", Dims), ("opt", Dims))


class PluginField(ctypes.Structure):
    """nvinfer1::PluginField."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("length", ctypes.c_int32),
    )


class PluginFieldCollection(ctypes.Structure):
    """nvinfer1::PluginFieldCollection."""

    _fields_ = (("count", ctypes.c_int32), ("fields", ctypes.POINTER(PluginField)))


@dataclass(frozen=True)
class Field:
    """An attribute as TensorRT hands it over; ``data`` of None is a field without a value."""

    name: str
    type: FieldType
    data: bytes | None
    length: int

    @classmethod
    def of(cls, name: str, value: int | float | str) -> Field:
        """As the ONNX parser makes it of an attribute."""
        if isinstance(value, str):
            data = value.encode() + b"\0"
            return cls(name, FieldType.CHAR, data, len(data))
        type = FieldType.INT32 if isinstance(value, int) else FieldType.FLOAT32
        return cls.number(name, type, value)

    @classmethod
    def number(cls, name: str, type: FieldType, *values: float) -> Field:
        """One number or more, of any type."""
        data = b"".join(bytes(FIELD_STORAGE[type](value)) for value in values)
        return cls(name, type, data, len(values))


def fields_in(collection: Any) -> list[Field]:
    """What a ``PluginFieldCollection*`` holds."""
    found = []
    for index in range(collection.contents.count):
        field = collection.contents.fields[index]
        type = FieldType(field.type)
        size = 1 if type is FieldType.CHAR else ctypes.sizeof(FIELD_STORAGE[type])
        data = ctypes.string_at(field.data, size * field.length) if field.data else None
        found.append(Field(field.name.decode(), type, data, field.length))
    return found


def headers_of(root: Path) -> Path:
    """The folder of NvInferRuntime.h."""
    found = next((p for p in (root / "include", root) if (p / "NvInferRuntime.h").is_file()), None)
    assert found, f"TENSORRT_ROOT: {root} holds no NvInferRuntime.h"
    return found


def link_library(output: Path, sources: Iterable[Path], headers: Path, *options: str) -> Path:
    """A shared library in which nothing is left open."""
    includes = [f"-I{PLUGINS}", "-isystem", str(headers), "-isystem", str(cuda_headers())]
    command = ["c++", "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", *includes, *options]
    command += ["-Wno-deprecated-declarations", "-shared", "-fPIC", *map(str, sources)]
    done = subprocess.run(
        [*command, "-Wl,-z,defs", "-ldl", "-o", str(output)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return output


def cuda_headers() -> Path | None:
    """Where cuda_runtime_api.h is, which TensorRT's headers include; None if it is nowhere."""
    nvcc = shutil.which("nvcc")
    places = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    places += [Path(nvcc).resolve().parents[1]] if nvcc else []
    places += [Path("/usr/local/cuda")]
    found = (place / "include" for place in places)
    return next((path for path in found if (path / "cuda_runtime_api.h").is_file()), None)


def compile_plugin(folder: Path, headers: Path, any_version: bool = False) -> Path:
    """The sources of the plugin library with the launches of ``tensorrt_host_launch.cpp``; with
    ``any_version`` it does not ask whom it serves."""
    macros = (
        f'-DTALKSPLAT_VERSION="{VERSION}"',
        f'-DTALKSPLAT_CUDA_ARCHITECTURES="{ARCHITECTURES}"',
    )
    own = {path.name: path for path in sorted((PLUGINS / "tensorrt").glob("*.cpp"))}
    if any_version:
        own["running_tensorrt.cpp"] = HERE / "tensorrt_any_version.cpp"
    sources = [
        *own.values(),
        PLUGINS / "operator.cpp",
        PLUGINS / "cuda" / "plan.cpp",
        HERE / "tensorrt_host_launch.cpp",
    ]
    # -Bsymbolic: its own operator new, which counts.
    options = (*macros, "-fvisibility=hidden", "-fvisibility-inlines-hidden", "-Wl,-Bsymbolic")
    return link_library(folder / "plugin.so", sources, headers, *options)


def compile_tensorrt(folder: Path, headers: Path, version: int, name: str = "libnvinfer") -> Path:
    """A library that takes itself for TensorRT's."""
    file = f"{name}.so.{version // 10000}"
    options = (f"-DSAID_VERSION={version}", f"-Wl,-soname,{file}")
    return link_library(folder / file, [HERE / "tensorrt_stand_in.cpp"], headers, *options)


LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.c_uint),
    ctypes.POINTER(ctypes.c_uint),
    ctypes.c_uint,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_void_p,
)


@dataclass(frozen=True)
class Launch:
    """One launch that was asked for."""

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_bytes: int
    arguments: bytes
    stream: int | None


class Library:
    """The plugin library, loaded, and TensorRT's part of the conversation.

    Args:
        folder: where it is compiled.
        headers: of TensorRT.
    """

    def __init__(self, folder: Path, headers: Path) -> None:
        self.headers = headers
        self.path = compile_plugin(folder, headers)
        self.plugin = ctypes.CDLL(str(self.path))
        self.tensorrt = ctypes.CDLL(
            str(link_library(folder / "harness.so", [HERE / "tensorrt_harness.cpp"], headers))
        )
        for name in ("take_logged", "take_recorded", "creator_identity", "identity", "capability",
                     "timing_cache_id", "output_shapes"):  # fmt: skip
            getattr(self.tensorrt, f"harness_{name}").restype = ctypes.c_char_p
        for name in ("create", "clone", "attach", "logger_finder"):
            getattr(self.tensorrt, f"harness_{name}").restype = ctypes.c_void_p
        for name in ("creator_fields", "fields_to_serialize"):
            getattr(self.tensorrt, f"harness_{name}").restype = ctypes.POINTER(
                PluginFieldCollection
            )
        self.tensorrt.harness_workspace_size.restype = ctypes.c_size_t
        self.tensorrt.harness_supports.restype = ctypes.c_bool
        self.plugin.getCreators.restype = ctypes.POINTER(ctypes.c_void_p)
        self.plugin.allocations.restype = ctypes.c_long
        self.plugin.talksplat_tensorrt_plugin_last_error.restype = ctypes.c_char_p
        self.plugin.setLoggerFinder(ctypes.c_void_p(self.tensorrt.harness_logger_finder()))
        self.version: int = self.tensorrt.harness_headers_version()

    def creators(self) -> list[int]:
        """What the library offers TensorRT."""
        count = ctypes.c_int32(-1)
        found = self.plugin.getCreators(ctypes.byref(count))
        return [found[index] for index in range(count.value)]

    def logged(self) -> str:
        """Errors since the last question."""
        text: bytes = self.tensorrt.harness_take_logged()
        return text.decode()

    def recorded(self) -> str:
        """Errors that the context's recorder was given since the last question."""
        text: bytes = self.tensorrt.harness_take_recorded()
        return text.decode()

    def create(self, fields: Sequence[Field] = (), phase: int = BUILD) -> Layer | None:
        """A layer, or None if the plugin refuses; :meth:`logged` says why."""
        array = (PluginField * len(fields))()
        buffers = [
            None if field.data is None else ctypes.create_string_buffer(field.data, len(field.data))
            for field in fields
        ]
        for place, (field, buffer) in enumerate(zip(fields, buffers, strict=True)):
            address = None if buffer is None else ctypes.addressof(buffer)
            array[place] = PluginField(field.name.encode(), address, field.type, field.length)
        (creator,) = self.creators()
        made = self.tensorrt.harness_create(ctypes.c_void_p(creator), array, len(fields), phase)
        return Layer(self, made) if made else None

    def layer(self, **attributes: int | float | str) -> Layer:
        """A layer of a network that is built."""
        made = self.create([Field.of(name, value) for name, value in attributes.items()])
        assert made is not None, self.logged()
        return made

    def launch_with(self, launch: Callable[[Launch], bool]) -> None:
        """Hand launches to ``launch``, which answers whether they succeeded."""

        def called(kernel: bytes, grid: Any, block: Any, shared: int, arguments: int, size: int,
                   stream: int | None) -> int:  # fmt: skip
            bytes_of = ctypes.string_at(arguments, size)
            asked = Launch(
                kernel.decode(), tuple(grid[:3]), tuple(block[:3]), shared, bytes_of, stream
            )
            return 0 if launch(asked) else 1

        self._launch = LAUNCH(called)  # kept for as long as the library may call it
        self.plugin.launch_with(self._launch)


class Layer:
    """One plugin object."""

    def __init__(self, library: Library, address: int) -> None:
        self.library = library
        self.address = ctypes.c_void_p(address)
        self._tensorrt = library.tensorrt

    def identity(self) -> str:
        text: bytes = self._tensorrt.harness_identity(self.address)
        return text.decode()

    def capability(self, type: int) -> str:
        text: bytes = self._tensorrt.harness_capability(self.address, type)
        return text.decode()

    def timing_cache_id(self) -> str:
        text: bytes = self._tensorrt.harness_timing_cache_id(self.address)
        return text.decode()

    def serialized(self) -> list[Field]:
        return fields_in(self._tensorrt.harness_fields_to_serialize(self.address))

    def clone(self) -> Layer:
        return Layer(self.library, self._tensorrt.harness_clone(self.address))

    def attached(self) -> Layer:
        return Layer(self.library, self._tensorrt.harness_attach(self.address))

    def destroy(self) -> None:
        self._tensorrt.harness_destroy(self.address)

    def output_count(self) -> int:
        count: int = self._tensorrt.harness_output_count(self.address)
        return count

    def output_types(self, inputs: Sequence[DataType]) -> list[DataType] | None:
        types = (ctypes.c_int32 * len(OUTPUTS))()
        given = (ctypes.c_int32 * len(inputs))(*inputs)
        failed = self._tensorrt.harness_output_types(
            self.address, given, len(inputs), types, len(OUTPUTS)
        )
        return None if failed else [DataType(type) for type in types]

    def output_shapes(self, ranks: Sequence[int]) -> list[str]:
        names = (ctypes.c_char_p * len(INPUTS))(*(name.encode() for name in INPUTS))
        given = (ctypes.c_int32 * len(ranks))(*ranks)
        text: bytes = self._tensorrt.harness_output_shapes(
            self.address, names, given, len(ranks), len(OUTPUTS)
        )
        return text.decode().splitlines()

    def supports(self, position: int, types: Sequence[DataType], format: int = 0) -> bool:
        tensors = (DynamicTensorDescription * len(types))()
        for tensor, type in zip(tensors, types, strict=True):
            tensor.desc.type = type
        tensors[position].desc.format = format
        found: bool = self._tensorrt.harness_supports(
            self.address, position, tensors, len(INPUTS), len(OUTPUTS)
        )
        return found

    def _bounds(self, shapes: Sequence[Sequence[int]], colors: DataType) -> Any:
        tensors = (DynamicTensorDescription * len(shapes))()
        for tensor, shape in zip(tensors, shapes, strict=True):
            tensor.desc.dims = Dims.of([-1] * len(shape))
            tensor.max = Dims.of(shape)
        tensors[INPUTS.index("colors")].desc.type = colors
        return tensors

    def configure(
        self, largest: Sequence[Sequence[int]], colors: DataType = DataType.FLOAT
    ) -> bool:
        outputs = (DynamicTensorDescription * len(OUTPUTS))()
        failed: int = self._tensorrt.harness_configure(
            self.address, self._bounds(largest, colors), len(largest), outputs, len(outputs)
        )
        return not failed

    def workspace_size(
        self, largest: Sequence[Sequence[int]], colors: DataType = DataType.FLOAT
    ) -> int:
        outputs = (DynamicTensorDescription * len(OUTPUTS))()
        size: int = self._tensorrt.harness_workspace_size(
            self.address, self._bounds(largest, colors), len(largest), outputs, len(outputs)
        )
        return size

    def _descriptions(self, shapes: Sequence[Sequence[int]], colors: DataType) -> Any:
        tensors = (TensorDescription * len(shapes))()
        for tensor, shape in zip(tensors, shapes, strict=True):
            tensor.dims = Dims.of(shape)
        tensors[INPUTS.index("colors")].type = colors
        return tensors

    def shape_change(
        self, shapes: Sequence[Sequence[int]], colors: DataType = DataType.FLOAT
    ) -> bool:
        outputs = (TensorDescription * len(OUTPUTS))()
        failed: int = self._tensorrt.harness_shape_change(
            self.address, self._descriptions(shapes, colors), len(shapes), outputs, len(outputs)
        )
        return not failed

    def enqueue(
        self,
        shapes: Sequence[Sequence[int]],
        inputs: Sequence[int],
        outputs: Sequence[int],
        workspace: int,
        stream: int = 0,
        colors: DataType = DataType.FLOAT,
    ) -> bool:
        """Addresses of inputs, of outputs and of the workspace."""
        failed: int = self._tensorrt.harness_enqueue(
            self.address,
            self._descriptions(shapes, colors),
            (TensorDescription * len(OUTPUTS))(),
            (ctypes.c_void_p * len(inputs))(*inputs),
            (ctypes.c_void_p * len(outputs))(*outputs),
            ctypes.c_void_p(workspace),
            ctypes.c_void_p(stream),
        )
        return not failed
