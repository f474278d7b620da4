"""Compiled kernels loaded into a context, and how they are launched."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

from talksplat.closing import Closing
from talksplat.cuda.compile import KernelSet, architecture_of, compile_kernels, sources_folder
from talksplat.cuda.device import Device
from talksplat.cuda.stream import Stream

Extent = tuple[int, int, int]


def check_compiler(device: Device) -> None:
    """See whether kernels can be compiled for a device, without compiling any.

    Raises:
        BackendError: NVRTC is missing or too new for the device, or the sources are missing.
    """
    architecture_of(device.compute_capability)
    sources_folder()


class Kernel:
    """A kernel that takes one structure by value."""

    def __init__(self, device: Device, function: Any) -> None:
        self._device = device
        self._function = function

    def launch(
        self, stream: Stream, grid: Extent, block: Extent, arguments: bytes, shared_bytes: int = 0
    ) -> None:
        """Put it on a stream.

        Args:
            stream: of the same device.
            grid: blocks per axis.
            block: threads per axis.
            arguments: the structure; copied before this returns.
            shared_bytes: dynamic shared memory per block, at most 48 KiB.

        Raises:
            BackendError: the driver refuses the launch.
            DeviceLostError: the device is lost.
        """
        # The driver reads an array of addresses, one per parameter, and copies what they show.
        structure = ctypes.create_string_buffer(arguments, len(arguments))
        addresses = (ctypes.c_void_p * 1)(ctypes.addressof(structure))
        self._device.call(
            "cuLaunchKernel",
            self._function,
            *grid,
            *block,
            shared_bytes,
            stream.handle,
            ctypes.addressof(addresses),
            0,
        )


class KernelModule(Closing):
    """A set of kernels on a device, compiled when it is first needed."""

    def __init__(self, device: Device, kernels: KernelSet) -> None:
        """Compile, or take from the cache, and load.

        Raises:
            BackendError: NVRTC is missing, or the driver refuses what it made.
            DeviceLostError: the device is lost.
        """
        self.device = device
        image = compile_kernels(kernels, architecture_of(device.compute_capability))
        self._module = device.call("cuModuleLoadData", image)
        context = device.context
        context.hold()
        self._free = weakref.finalize(self, context.free, "cuModuleUnload", self._module)
        self._free.atexit = False
        self._kernels: dict[str, Kernel] = {}

    def kernel(self, name: str) -> Kernel:
        """One of its kernels.

        Raises:
            BackendError: there is none of that name.
        """
        if name not in self._kernels:
            function = self.device.call("cuModuleGetFunction", self._module, name.encode())
            self._kernels[name] = Kernel(self.device, function)
        return self._kernels[name]

    def close(self) -> None:
        """Unload it once nothing launches its kernels any more."""
        self._free()
