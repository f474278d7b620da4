"""What tests of the native parts share."""

from __future__ import annotations

import pytest
from tests.plugins.cuda.host.library import HostLibrary, compile_kernels


@pytest.fixture(scope="session")
def host_library(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    """The CUDA kernels of the Gaussian rasterizer, compiled for the host."""
    return HostLibrary(compile_kernels(tmp_path_factory.mktemp("kernels") / "kernels.so"))
