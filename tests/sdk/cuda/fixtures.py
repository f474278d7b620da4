"""What tests of the GPU side stand on when there is no GPU."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.plugins.cuda.host.library import (
    GAUSSIAN_KERNELS,
    PLUGINS,
    HostLibrary,
    compile_kernels,
)

if TYPE_CHECKING:
    from tests.sdk.cuda.fake_driver import FakeDriver
    from tests.sdk.cuda.fake_nvrtc import FakeNvrtc

COMPOSITING_KERNELS = PLUGINS / "compositing" / "cuda" / "kernels.cu"


class HostKernels:
    """All kernels of talksplat, compiled for the host; see ``fake_driver.HostKernels``."""

    def __init__(self, path: Path) -> None:
        self._library = HostLibrary(path)
        self._symbols = ctypes.CDLL(str(path))
        self._symbols.talksplat_host_argument_bytes.restype = ctypes.c_size_t

    def argument_bytes(self, kernel: str) -> int | None:
        if not hasattr(self._symbols, kernel):
            return None
        return int(self._symbols.talksplat_host_argument_bytes(kernel.encode()))

    def launch(
        self,
        kernel: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        shared_bytes: int,
        arguments: bytes,
    ) -> None:
        self._library.launch(kernel, grid, block, shared_bytes, arguments)


@pytest.fixture(scope="session")
def host_kernels(tmp_path_factory: pytest.TempPathFactory) -> HostKernels:
    """The kernels, compiled once."""
    path = tmp_path_factory.mktemp("cuda_on_host") / "kernels.so"
    sizes = Path(__file__).parent / "argument_sizes.cpp"
    return HostKernels(compile_kernels(path, (GAUSSIAN_KERNELS, COMPOSITING_KERNELS, sizes)))


@pytest.fixture
def fake_nvrtc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeNvrtc:
    """An NVRTC in place of the real one, and an empty cache for what it compiles."""
    bindings = pytest.importorskip("cuda.bindings", reason="needs the CUDA bindings: cuda-python")
    from tests.sdk.cuda.fake_nvrtc import FakeNvrtc

    fake = FakeNvrtc()
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", fake)  # type: ignore[misc]
    monkeypatch.setattr(bindings, "nvrtc", fake, raising=False)
    monkeypatch.setenv("TALKSPLAT_CACHE", str(tmp_path / "cache"))
    return fake


@pytest.fixture
def install_driver(
    monkeypatch: pytest.MonkeyPatch, host_kernels: HostKernels, fake_nvrtc: FakeNvrtc
) -> Iterator[Callable[..., FakeDriver]]:
    """Makes a fake driver, with the arguments of ``FakeDriver``, and puts it in place."""
    import cuda.bindings
    from tests.sdk.cuda.fake_driver import FakeDriver

    installed: list[FakeDriver] = []

    def install(**arguments: Any) -> FakeDriver:
        fake = FakeDriver(host_kernels, **arguments)
        monkeypatch.setitem(sys.modules, "cuda.bindings.driver", fake)  # type: ignore[misc]
        monkeypatch.setattr(cuda.bindings, "driver", fake, raising=False)
        monkeypatch.setattr("talksplat.cuda.device._contexts", {})
        installed.append(fake)
        return fake

    yield install
    for fake in installed:
        assert not fake.overruns, "something was written beyond its memory"
        assert not fake.freed_in_use, "memory of the host was freed while it was copied"


@pytest.fixture
def fake_driver(install_driver: Callable[..., FakeDriver]) -> FakeDriver:
    """A driver with one GPU, in place of the real one."""
    return install_driver()
