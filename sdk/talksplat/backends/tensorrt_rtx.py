"""TensorRT for RTX: an engine per graph, our kernels between them, one stream, one CUDA graph.

It takes no plugins, so the rasterizer cannot be part of an engine. Its engines need no GPU to be
built and compile their kernels on the GPU that runs them.
"""

from __future__ import annotations

from contextlib import ExitStack

from talksplat.backends.gpu_backend import GpuBackend
from talksplat.backends.options import Options
from talksplat.backends.tensorrt_carrier import TensorRtCarrier
from talksplat.cuda import open_device
from talksplat.cuda.kernels import check_compiler
from talksplat.engines.flavours import open_flavour


def open_backend(options: Options) -> GpuBackend:
    """The backend ``tensorrt-rtx``, ready to load.

    Raises:
        BackendError: no GPU, no TensorRT for RTX that is known to work, or no compiler for our
            kernels.
        DeviceLostError: the GPU was lost, and what used it is not closed yet.
    """
    with ExitStack() as opened:
        device = opened.enter_context(open_device())
        flavour = open_flavour("tensorrt-rtx")
        check_compiler(device)
        carrier = TensorRtCarrier(flavour, device, options)
        backend = GpuBackend("tensorrt-rtx", device, carrier, options.stage_times)
        opened.pop_all()
    return backend
