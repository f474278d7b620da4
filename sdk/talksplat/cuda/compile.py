"""Kernels compiled by NVRTC for the very device at hand, kept on disk.

The sources travel with the package (``talksplat/cuda/sources``): one ``.cu`` file per set of
kernels and the headers that the CPU shares. A first use takes a few seconds; then the cache holds
the result until sources, NVRTC, architecture or options are others.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from talksplat.cache import cache_folder
from talksplat.cuda.bindings import load_nvrtc
from talksplat.errors import BackendError, OutputError
from talksplat.private_files import read_private, write_private

_log = logging.getLogger(__name__)

KernelSet = Literal["gaussian_rasterizer", "compositing"]

# Division and roots are rounded correctly everywhere. Compositing promises NumPy's bits: denormals
# are kept and no product is merged with a sum. The rasterizer does both, as the CPU's does. NVRTC
# up to 12 takes lambdas for functions of the host unless told otherwise.
_COMMON = (
    "--std=c++17",
    "--device-as-default-execution-space",
    "--prec-div=true",
    "--prec-sqrt=true",
)
_OPTIONS: dict[KernelSet, tuple[str, ...]] = {
    "gaussian_rasterizer": (*_COMMON, "--ftz=true", "--fmad=true"),
    "compositing": (*_COMMON, "--ftz=false", "--fmad=false"),
}
_DIGEST_BYTES = 32
_MAX_BYTES = 2**28


@dataclass(frozen=True)
class Architecture:
    """What NVRTC compiles for: a GPU (``sm_89``), or PTX (``compute_90``) for one it does not know,
    which the driver finishes.
    """

    name: str

    @property
    def is_ptx(self) -> bool:
        """Whether the driver has to finish it."""
        return self.name.startswith("compute_")


def architecture_of(compute_capability: tuple[int, int]) -> Architecture:
    """The best that the installed NVRTC can compile for a GPU.

    Raises:
        BackendError: NVRTC is missing, or is too new for such an old GPU.
    """
    wanted = 10 * compute_capability[0] + compute_capability[1]
    known = _checked(load_nvrtc(), "nvrtcGetSupportedArchs")
    if wanted in known:
        return Architecture(f"sm_{wanted}")
    older = [number for number in known if number < wanted]
    if not older:
        raise BackendError(
            f"NVRTC {_version_text()} compiles for compute capability {min(known) / 10:.1f} and "
            f"later, the GPU has {wanted / 10:.1f}; install an older CUDA: pip install "
            f"'cuda-python<13' nvidia-cuda-nvrtc-cu12."
        )
    return Architecture(f"compute_{max(older)}")


def compile_kernels(kernels: KernelSet, architecture: Architecture) -> bytes:
    """A cubin or PTX, from the cache or made now.

    Args:
        kernels: whose.
        architecture: from :func:`architecture_of`.

    Raises:
        BackendError: NVRTC is missing or refuses the sources, whose log is quoted.
    """
    nvrtc = load_nvrtc()
    file = cache_folder() / "cuda" / f"{kernels}-{_key(kernels, architecture)}.bin"
    image = _read(file)
    if image is None:
        image = _compile(nvrtc, kernels, architecture)
        _keep(file, image)
    return image


def sources_folder() -> Path:
    """Where the sources of the kernels are installed.

    Raises:
        BackendError: they are not: the package was installed without its native part.
    """
    folder = Path(str(resources.files("talksplat.cuda") / "sources"))
    if not folder.is_dir():
        raise BackendError(
            f"The sources of the CUDA kernels are missing: expected {folder}. Install talksplat "
            f"again, or run `make native` in a checkout."
        )
    return folder


def _key(kernels: KernelSet, architecture: Architecture) -> str:
    """Everything the result depends on."""
    digest = hashlib.sha256()
    for part in (_version_text(), architecture.name, *_OPTIONS[kernels]):
        digest.update(part.encode() + b"\0")
    folder = sources_folder()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            name = file.relative_to(folder).as_posix()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _compile(nvrtc: Any, kernels: KernelSet, architecture: Architecture) -> bytes:
    folder = sources_folder()
    source = folder / kernels / "cuda" / "kernels.cu"
    options = (*_OPTIONS[kernels], f"--gpu-architecture={architecture.name}")
    program = _checked(
        nvrtc, "nvrtcCreateProgram", source.read_bytes(), str(source).encode(), 0, None, None
    )
    try:
        encoded = [option.encode() for option in options]
        (result,) = nvrtc.nvrtcCompileProgram(program, len(encoded), encoded)
        if result.value != 0:
            raise BackendError(
                f"NVRTC {_version_text()} could not compile the {kernels} kernels for "
                f"{architecture.name}; report this:\n{_log_of(nvrtc, program)}"
            )
        what = "PTX" if architecture.is_ptx else "CUBIN"
        image = bytearray(_checked(nvrtc, f"nvrtcGet{what}Size", program))
        _checked(nvrtc, f"nvrtcGet{what}", program, image)
        return bytes(image)
    finally:
        _checked(nvrtc, "nvrtcDestroyProgram", program)


def _log_of(nvrtc: Any, program: Any) -> str:
    text = bytearray(_checked(nvrtc, "nvrtcGetProgramLogSize", program))
    _checked(nvrtc, "nvrtcGetProgramLog", program, text)
    return text.rstrip(b"\0").decode(errors="replace")


def _read(file: Path) -> bytes | None:
    """What was kept; None if there is nothing, or not what was written."""
    try:
        content = read_private(file, range(_MAX_BYTES + 1))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        _log.warning("Compiled kernels in %s are not used: %s; compiling again.", file, error)
        return None
    except OSError as error:
        _log.warning("Compiled kernels in %s cannot be read (%s); compiling again.", file, error)
        return None
    digest, image = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if not image or hashlib.sha256(image).digest() != digest:
        _log.warning("Compiled kernels in %s are damaged; compiling again.", file)
        return None
    return image


def _keep(file: Path, image: bytes) -> None:
    try:
        write_private(file, hashlib.sha256(image).digest() + image)
    except OutputError as error:
        # They are in memory and work; the next start takes some seconds longer.
        _log.warning("Compiled kernels cannot be kept for the next start: %s", error)


def _checked(nvrtc: Any, function: str, *arguments: Any) -> Any:
    result, *values = getattr(nvrtc, function)(*arguments)
    if result.value != 0:
        raise BackendError(f"NVRTC: {function} failed with {result.name}; report this.")
    return values[0] if len(values) == 1 else tuple(values)


def _version_text() -> str:
    major, minor = _checked(load_nvrtc(), "nvrtcVersion")
    return f"{major}.{minor}"
