"""TensorRT for RTX: an engine per graph, our kernels between them, one stream, one CUDA graph.

It takes no plugins, so the rasterizer cannot be part of an engine. Its engines need no GPU to be
built and compile their kernels on the GPU that runs them.
"""

from __future__ import annotations

from talksplat.backends.gpu_backend import GpuBackend
from talksplat.backends.options import Options
from talksplat.backends.tensorrt_carrier import TensorRtCarrier
from talksplat.cuda import open_device
from talksplat.engines.flavours import open_flavour


def open_backend(options: Options) -> GpuBackend:
    """The backend ``tensorrt-rtx``, ready to load.

    Raises:
        BackendError: no GPU, or no TensorRT for RTX that is known to work.
    """
    device = open_device()
    try:
        flavour = open_flavour("tensorrt-rtx")
        return GpuBackend(
            "tensorrt-rtx", device, TensorRtCarrier(flavour, device, options), options.stage_times
        )
    except BaseException:
        device.close()
        raise
