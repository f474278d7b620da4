"""The CUDA bindings, loaded when they are needed, and their results as typed errors."""

from __future__ import annotations

from typing import Any

from talksplat.errors import BackendError, DeviceLostError, NoDriverError

_INSTALL = "install the GPU extras: pip install 'talksplat[gpu]' or 'talksplat[rtx]'"

# After one of these nothing on the context works any more (CUDA driver API, "Error handling"). Not
# every version of the bindings knows all of them.
LOST = frozenset(
    {
        "CUDA_ERROR_DEVICE_UNAVAILABLE",
        "CUDA_ERROR_ECC_UNCORRECTABLE",
        "CUDA_ERROR_NVLINK_UNCORRECTABLE",
        "CUDA_ERROR_CONTAINED",
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        "CUDA_ERROR_LAUNCH_TIMEOUT",
        "CUDA_ERROR_CONTEXT_IS_DESTROYED",
        "CUDA_ERROR_ASSERT",
        "CUDA_ERROR_HARDWARE_STACK_ERROR",
        "CUDA_ERROR_ILLEGAL_INSTRUCTION",
        "CUDA_ERROR_MISALIGNED_ADDRESS",
        "CUDA_ERROR_INVALID_ADDRESS_SPACE",
        "CUDA_ERROR_INVALID_PC",
        "CUDA_ERROR_LAUNCH_FAILED",
        "CUDA_ERROR_EXTERNAL_DEVICE",
        "CUDA_ERROR_MPS_CLIENT_TERMINATED",
        "CUDA_ERROR_TENSOR_MEMORY_LEAK",
    }
)

_ADVICE = {
    "CUDA_ERROR_NO_DEVICE": "check that the GPU is visible: nvidia-smi, CUDA_VISIBLE_DEVICES",
    "CUDA_ERROR_INVALID_DEVICE": "choose a device that nvidia-smi lists",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "restart the machine after the driver's update",
    "CUDA_ERROR_SYSTEM_NOT_READY": "start nvidia-fabricmanager, or wait until it is up",
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE": "remove the CUDA compatibility package, or "
    "update the driver",
    "CUDA_ERROR_OUT_OF_MEMORY": "close other sessions or programs on this GPU, or make the image "
    "or the avatar smaller",
    "CUDA_ERROR_NOT_READY": "synchronize first",
    "CUDA_ERROR_NO_BINARY_FOR_GPU": "update NVRTC or the driver, so that they know this GPU",
    "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": "update the NVIDIA driver, or use an older NVRTC",
    "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED": "do this before or after the capture; allocations "
    "and synchronisation cannot be part of it",
    "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED": "look for what failed earlier in this capture",
}


def load_driver() -> Any:
    """``cuda.bindings.driver``.

    Raises:
        NoDriverError: the bindings are not installed.
    """
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise NoDriverError(
            f"A GPU needs the CUDA bindings for Python (cuda-python 12.6 or later), which are not "
            f"installed ({error}); {_INSTALL}."
        ) from error
    return driver


def load_nvrtc() -> Any:
    """``cuda.bindings.nvrtc``, with the library behind it found.

    Raises:
        BackendError: the bindings or the library are not installed.
    """
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise BackendError(
            f"Kernels are compiled with NVRTC through the CUDA bindings for Python (cuda-python "
            f"12.6 or later), which are not installed ({error}); {_INSTALL}."
        ) from error
    try:
        nvrtc.nvrtcVersion()
    # What is raised for a missing library has changed between versions of the bindings.
    except Exception as error:
        raise BackendError(
            f"Kernels are compiled for your GPU with NVRTC, whose library was not found "
            f"({_first_line(error)}); pip install nvidia-cuda-nvrtc for CUDA 13, or "
            f"nvidia-cuda-nvrtc-cu12 for CUDA 12."
        ) from error
    return nvrtc


def call_driver(driver: Any, function: str, *arguments: Any) -> Any:
    """What ``driver.function(*arguments)`` gives after its result: nothing, a value or a tuple.

    Raises:
        DeviceLostError: the context is of no use any more.
        BackendError: any other result than success, or the driver lacks the function.
    """
    try:
        result, *values = getattr(driver, function)(*arguments)
    except RuntimeError as error:
        # The bindings look a function up in the driver's library when it is first called.
        raise BackendError(
            f"The NVIDIA driver does not offer {function} ({_first_line(error)}); install or "
            f"update the NVIDIA driver."
        ) from error
    if result.value == 0:
        return values[0] if len(values) == 1 else tuple(values) or None
    raise error_of(driver, function, result)


def error_of(driver: Any, function: str, result: Any) -> BackendError:
    """The error that stands for ``result``, a CUresult other than success."""
    name, meaning = result_name(result), _meaning(driver, result)
    if name in LOST:
        return DeviceLostError(
            f"The GPU failed in {function} or in work before it: {name} ({meaning}). What was on "
            f"it is gone; close the session and the avatar and load it again. If that fails too, "
            f"restart the program."
        )
    advice = _ADVICE.get(name, "if it comes again, report it with the output of talksplat doctor")
    return BackendError(f"CUDA: {function} failed with {name} ({meaning}); {advice}.")


def result_name(result: Any) -> str:
    """``CUDA_ERROR_ILLEGAL_ADDRESS`` and the like."""
    return str(getattr(result, "name", result))


def _meaning(driver: Any, result: Any) -> str:
    found, text = driver.cuGetErrorString(result)
    if found.value != 0 or text is None:
        return "no description"
    return text.decode() if isinstance(text, bytes) else str(text)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
