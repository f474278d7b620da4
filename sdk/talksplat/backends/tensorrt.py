"""TensorRT: a whole frame as one engine, which carries our rasterizer as a plugin."""

from __future__ import annotations

from talksplat.backends.gpu_backend import GpuBackend
from talksplat.backends.options import Options
from talksplat.backends.tensorrt_carrier import TensorRtCarrier
from talksplat.cuda import open_device
from talksplat.engines.flavours import open_flavour
from talksplat.plugin_library import tensorrt_plugin


def open_backend(options: Options) -> GpuBackend:
    """The backend ``tensorrt``, ready to load.

    Raises:
        BackendError: no GPU, no TensorRT that is known to work, or no plugin library for it.
    """
    device = open_device()
    try:
        flavour = open_flavour("tensorrt")
        tensorrt_plugin().register(flavour.module)
        return GpuBackend(
            "tensorrt", device, TensorRtCarrier(flavour, device, options), options.stage_times
        )
    except BaseException:
        device.close()
        raise
