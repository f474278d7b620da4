"""The imaginary GPU of the runtime's tests, and everything that runs on it."""

from tests.sdk.backends.conftest import (  # noqa: F401 (fixtures)
    fake_plugins,
    gpu,
    put_in_place,
)
from tests.sdk.cuda.fixtures import (  # noqa: F401 (fixtures)
    fake_driver,
    fake_nvrtc,
    host_kernels,
    install_driver,
)
