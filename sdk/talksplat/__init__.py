"""talksplat: run audio-driven 3D Gaussian talking heads. Never imports torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from talksplat.audio import read_audio
    from talksplat.avatar import Avatar, load
    from talksplat.bundle import Bundle
    from talksplat.custom_op import custom_op_library
    from talksplat.errors import TalksplatError
    from talksplat.plugin_library import tensorrt_plugin_library
    from talksplat.rasterization import rasterize
    from talksplat.session import Frame, Session

# Imported on first use (PEP 562): the rasterizer needs no ONNX Runtime, inspecting no rasterizer.
_HOMES = {
    "Avatar": "talksplat.avatar",
    "Bundle": "talksplat.bundle",
    "Frame": "talksplat.session",
    "Session": "talksplat.session",
    "TalksplatError": "talksplat.errors",
    "custom_op_library": "talksplat.custom_op",
    "load": "talksplat.avatar",
    "rasterize": "talksplat.rasterization",
    "read_audio": "talksplat.audio",
    "tensorrt_plugin_library": "talksplat.plugin_library",
}

__all__ = [
    "Avatar",
    "Bundle",
    "Frame",
    "Session",
    "TalksplatError",
    "custom_op_library",
    "load",
    "rasterize",
    "read_audio",
    "tensorrt_plugin_library",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'talksplat' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
