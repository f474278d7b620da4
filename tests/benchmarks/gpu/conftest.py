"""The imaginary GPU of the runtime's tests."""

from tests.sdk.cuda.fixtures import (  # noqa: F401 (fixtures)
    fake_driver,
    fake_nvrtc,
    host_kernels,
    install_driver,
)
