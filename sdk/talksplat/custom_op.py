"""Where ONNX Runtime's custom operator ``talksplat::GaussianRasterize`` is.

::

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(talksplat.custom_op_library()))
    session = onnxruntime.InferenceSession("frame.onnx", options)
"""

from __future__ import annotations

from pathlib import Path

from talksplat.environment import named_path
from talksplat.errors import BackendError

LIBRARY_VARIABLE = "TALKSPLAT_ONNXRUNTIME_OP"
"""Environment variable that names another library than the package's."""

THREADS_ENTRY = "talksplat.threads"
"""Entry of ``SessionOptions.add_session_config_entry``, before the library is registered: CPU
threads that the rasterizer may use; "0", as without it, is one per available processor. Pixels do
not depend on it."""

_NAMES = ("libtalksplat_onnxruntime.so", "libtalksplat_onnxruntime.dylib")


def custom_op_library() -> Path:
    """The library for ``SessionOptions.register_custom_ops_library``, which takes a ``str``.

    The environment variable ``TALKSPLAT_ONNXRUNTIME_OP`` goes before the package's own.

    Raises:
        InputError: the variable's path is relative.
        BackendError: the variable names no file, or talksplat was built without the operator.
    """
    asked = named_path(LIBRARY_VARIABLE)
    if asked is not None:
        if not asked.is_file():
            raise BackendError(
                f"{LIBRARY_VARIABLE} expects the path of a custom-operator library, found "
                f"{str(asked)!r}, which is no file. Correct or unset it."
            )
        return asked
    package = Path(__file__).parent
    for name in _NAMES:
        if (package / name).is_file():
            return package / name
    raise BackendError(
        f"Expected ONNX Runtime's custom operator {_NAMES[0]} in {package}, found none: talksplat "
        "was built without it, as happens when ONNX Runtime's headers were not found. Build "
        "talksplat with ONNXRUNTIME_ROOT set to them, or name a library in "
        f"{LIBRARY_VARIABLE}."
    )
