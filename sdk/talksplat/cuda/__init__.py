"""CUDA from Python: devices, memory, streams, captured graphs, kernels compiled for the device.

Nothing here is imported by a plain ``import talksplat``, and the CUDA bindings (``cuda-python``)
are loaded only when a device is opened. Everything that is opened is closed by ``close()`` or a
``with`` block; closing twice does no harm, nor does closing after the device was lost.

========================  ======================================================================
:mod:`.bindings`          loading ``cuda.bindings``; what a result of the driver means
:mod:`.device`            :func:`open_device`, the primary context, a device that was lost
:mod:`.memory`            :class:`DeviceBuffer`, :class:`PinnedBuffer`, :class:`DeviceArray`
:mod:`.pool`              :class:`BufferPool`, for what is handed out per frame
:mod:`.stream`            :class:`Stream`, :class:`Event`, capture into a :class:`Graph`
:mod:`.compile`           NVRTC for the very device, with a cache on disk
:mod:`.kernels`           loaded kernels and how they are launched
:mod:`.rasterizer`        :class:`CudaRasterizer`
:mod:`.compositing`       what a frame program does between graphs, bit for bit as NumPy does it
========================  ======================================================================
"""

from talksplat.cuda.device import Device, Held, open_device
from talksplat.cuda.memory import DeviceArray, DeviceBuffer, PinnedBuffer
from talksplat.cuda.pool import BufferPool
from talksplat.cuda.stream import Event, Graph, Stream

__all__ = [
    "BufferPool",
    "Device",
    "DeviceArray",
    "DeviceBuffer",
    "Event",
    "Graph",
    "Held",
    "PinnedBuffer",
    "Stream",
    "open_device",
]
