"""TensorRT: a whole frame as one engine, which carries our rasterizer as a plugin."""

from __future__ import annotations

from contextlib import ExitStack

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
        DeviceLostError: the GPU was lost, and what used it is not closed yet.
    """
    with ExitStack() as opened:
        device = opened.enter_context(open_device())
        flavour = open_flavour("tensorrt")
        tensorrt_plugin().register(flavour.module)
        carrier = TensorRtCarrier(flavour, device, options)
        backend = GpuBackend("tensorrt", device, carrier, options.stage_times)
        opened.pop_all()
    return backend
