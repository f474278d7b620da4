"""Where TensorRT's plugin ``talksplat::GaussianRasterize`` is, and which TensorRT it is for.

::

    library = talksplat.tensorrt_plugin_library()
    tensorrt.get_plugin_registry().load_library(str(library))
"""

from __future__ import annotations

import ctypes
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

from talksplat.environment import named_path
from talksplat.errors import PluginMismatchError, PluginMissingError

LIBRARY_VARIABLE = "TALKSPLAT_TENSORRT_PLUGIN"
"""Environment variable that names another library than the package's."""

CREATOR = ("GaussianRasterize", "1", "talksplat")
"""Name, version and namespace in TensorRT's registry."""

ABI = 1
"""Of the functions below; see ``talksplat_tensorrt_plugin.h``."""

_NAME = "libtalksplat_tensorrt_plugin.so"
_BUILD = (
    "Build talksplat where nvcc and the headers of your TensorRT are, with TENSORRT_ROOT set to "
    "their folder (docs/tensorrt_plugin.md)"
)


@dataclass(frozen=True)
class TensorRTPlugin:
    """A plugin library and what it says of itself.

    Attributes:
        path: the library.
        tensorrt: version of the headers it was compiled with; it runs in every TensorRT of the
            same major version, from 10.3 on.
        cuda: version of the CUDA toolkit.
        talksplat: version of talksplat.
        architectures: of the GPUs it has code for, in CMake's words: ``90-real`` is machine code,
            ``120-virtual`` PTX for those to come, ``120`` both.
    """

    path: Path
    tensorrt: tuple[int, int, int]
    cuda: tuple[int, int]
    talksplat: str
    architectures: tuple[str, ...]

    @cached_property
    def sha256(self) -> str:
        """Of the library: engines that carry its layers are as old as it is."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def register(self, tensorrt: ModuleType) -> None:
        """Make the plugin known to ``tensorrt``, the module; once is enough, more does no harm.

        Raises:
            PluginMismatchError: it does not fit this TensorRT, or TensorRT did not take it.
        """
        self.check(tensorrt.__version__)
        registry = tensorrt.get_plugin_registry()
        if registry.get_creator(*CREATOR) is not None:
            return
        registry.load_library(str(self.path))
        if registry.get_creator(*CREATOR) is None:
            raise PluginMismatchError(
                f"{self.path}: TensorRT {tensorrt.__version__} loaded it and found no plugin "
                f"{'::'.join(reversed(CREATOR[::2]))} in it; see TensorRT's log. {_BUILD}."
            )

    def check(self, tensorrt_version: str) -> None:
        """Whether the plugin fits the TensorRT of ``tensorrt.__version__``.

        Raises:
            PluginMismatchError: another major version, or older than 10.3.
        """
        numbers = [int(part) for part in tensorrt_version.split(".")[:3] if part.isdigit()]
        major, minor, patch = (*numbers, 0, 0, 0)[:3]
        library = _load(self.path)
        unit = 10000 if major >= 10 else 1000
        if library.talksplat_tensorrt_plugin_check(unit * major + 100 * minor + patch) != 0:
            raise PluginMismatchError(f"{self.path}: {_last_error(library)}")


class _Facts(ctypes.Structure):
    _fields_ = (
        ("abi", ctypes.c_int32),
        ("tensorrt_version", ctypes.c_int32),
        ("cuda_version", ctypes.c_int32),
        ("talksplat_version", ctypes.c_char_p),
        ("cuda_architectures", ctypes.c_char_p),
    )


def tensorrt_plugin_library() -> Path:
    """The library for ``IPluginRegistry.load_library``, which takes a ``str``.

    The environment variable ``TALKSPLAT_TENSORRT_PLUGIN`` goes before the package's own.

    Raises:
        InputError: the variable's path is relative.
        PluginMissingError: the variable names no file, or talksplat was built without the plugin.
    """
    asked = named_path(LIBRARY_VARIABLE)
    if asked is not None:
        if not asked.is_file():
            raise PluginMissingError(
                f"{LIBRARY_VARIABLE} expects the path of {_NAME}, found {str(asked)!r}, which is "
                "no file. Correct or unset it."
            )
        return asked
    path = Path(__file__).parent / _NAME
    if not path.is_file():
        raise PluginMissingError(
            f"Expected TensorRT's plugin {_NAME} in {path.parent}, found none: talksplat was built "
            f"without it. {_BUILD}, or name a library in {LIBRARY_VARIABLE}."
        )
    return path


def tensorrt_plugin(path: Path | None = None) -> TensorRTPlugin:
    """Open a plugin library and ask what it is; needs neither TensorRT nor a GPU.

    Args:
        path: the library; without one, :func:`tensorrt_plugin_library`.

    Raises:
        PluginMissingError: there is none, or the file is no plugin library.
        PluginMismatchError: it is of a talksplat with another ABI.
    """
    path = path or tensorrt_plugin_library()
    library = _load(path)
    facts = _Facts()
    if library.talksplat_tensorrt_plugin_info(ctypes.byref(facts), ctypes.sizeof(facts)) != 0:
        raise PluginMismatchError(f"{path}: {_last_error(library)}. {_BUILD}.")
    if facts.abi != ABI:
        raise PluginMismatchError(
            f"{path}: expected a plugin with ABI {ABI}, found {facts.abi}. {_BUILD}."
        )
    tensorrt, cuda = facts.tensorrt_version, facts.cuda_version
    return TensorRTPlugin(
        path,
        (tensorrt // 10000, tensorrt // 100 % 100, tensorrt % 100),
        (cuda // 1000, cuda % 1000 // 10),
        facts.talksplat_version.decode(),
        tuple(facts.cuda_architectures.decode().split()),
    )


def _load(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
        library.talksplat_tensorrt_plugin_info.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        library.talksplat_tensorrt_plugin_check.argtypes = [ctypes.c_int32]
        library.talksplat_tensorrt_plugin_last_error.restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:
        raise PluginMissingError(
            f"{path} cannot be used as TensorRT's plugin: {error}. {_BUILD}."
        ) from error
    return library


def _last_error(library: ctypes.CDLL) -> str:
    message: bytes = library.talksplat_tensorrt_plugin_last_error()
    return message.decode(errors="replace")
