"""Kernels that TensorRT for RTX compiled on this very device, kept for the next start."""

from __future__ import annotations

import hashlib
import logging

from talksplat.cuda import Device
from talksplat.engines.cache import EngineCache, Found
from talksplat.engines.flavours import Flavour
from talksplat.errors import OutputError

_log = logging.getLogger(__name__)


class CompiledKernels:
    """What the runtime cache of one engine held when it last ran here.

    Args:
        cache: beside the engines.
        flavour: whose runtime cache it is.
        device: what the kernels were compiled for.
        name: of the graph.
        engine: its bytes.
    """

    def __init__(
        self, cache: EngineCache, flavour: Flavour, device: Device, name: str, engine: bytes
    ) -> None:
        major, minor = device.compute_capability
        self._cache = cache
        self._label = f"{name}, kernels"
        self._key = {
            "kind": "kernels",
            "engine": hashlib.sha256(engine).hexdigest(),
            "flavour": flavour.name,
            "version": flavour.version_text,
            "devices": f"{major}.{minor} {device.name}",
            "driver": str(device.driver_version),
        }

    def find(self) -> bytes:
        """What was kept, or nothing."""
        found = self._cache.find(self._key, self._label)
        return found.data if isinstance(found, Found) else b""

    def keep(self, data: bytes) -> None:
        """Keep ``data``. Where nothing can be written, the next start compiles again."""
        try:
            self._cache.store(self._key, self._label, data)
        except OutputError as error:
            _log.warning("The kernels compiled for this GPU are not kept: %s", error)
