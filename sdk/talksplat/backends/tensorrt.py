"""TensorRT: a whole frame as one engine, which carries our rasterizer as a plugin."""

from __future__ import annotations

from threading import Lock

from talksplat.backends.gpu_backend import GpuBackend
from talksplat.backends.options import Options
from talksplat.backends.tensorrt_carrier import TensorRtCarrier
from talksplat.cuda import open_device
from talksplat.engines.flavours import Flavour, open_flavour
from talksplat.errors import BackendError
from talksplat.frame_graph import DOMAIN, OPERATOR, VERSION
from talksplat.plugin_library import tensorrt_plugin

_registering = Lock()


def open_backend(options: Options) -> GpuBackend:
    """The backend ``tensorrt``, ready to load.

    Raises:
        BackendError: no GPU, no TensorRT that is known to work, or no plugin library for it.
    """
    device = open_device()
    try:
        flavour = open_flavour("tensorrt")
        register_plugin(flavour)
        return GpuBackend("tensorrt", device, TensorRtCarrier(flavour, device, options))
    except BaseException:
        device.close()
        raise


def register_plugin(flavour: Flavour) -> None:
    """Give TensorRT the rasterizer, once per process.

    Raises:
        BackendError: there is no plugin library, it is for another major version of TensorRT, or
            TensorRT refuses it.
    """
    plugin = tensorrt_plugin()
    plugin.check(flavour.version_text)
    registry = flavour.module.get_plugin_registry()
    operator = (OPERATOR, str(VERSION), DOMAIN)
    with _registering:
        if registry.get_creator(*operator) is None:
            registry.load_library(str(plugin.path))
        if registry.get_creator(*operator) is None:
            raise BackendError(
                f"tensorrt {flavour.version_text} did not take {OPERATOR} from {plugin.path}. "
                "Build talksplat again for this TensorRT (docs/tensorrt_plugin.md)."
            )
