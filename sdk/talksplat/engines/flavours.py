"""The two TensorRTs: what they are called, which versions are known, and all they differ in.

``tensorrt`` times kernels on the GPU that will run the engine and keeps what it measured in a
timing cache; ``tensorrt-rtx`` writes engines without a GPU, whose kernels are compiled on the
device that runs them and kept in a runtime cache (its timing cache is without effect and asks for a
GPU). Their Python modules are imported when asked for.
"""

from __future__ import annotations

import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from talksplat.cuda_version import cuda_version_text
from talksplat.errors import BackendError, InputError

Version = tuple[int, ...]
ComputeCapability = tuple[int, int]


class DeviceFacts(Protocol):
    """What an engine depends on of a device; a :class:`talksplat.cuda.Device` is one."""

    name: str
    compute_capability: ComputeCapability
    driver_version: int


@dataclass(frozen=True)
class Target:
    """What an engine is built to run on.

    Attributes:
        devices: compute capabilities, ``"8.0 8.6"``, or ``"8.0 and later"``; with a name where it
            is for that very GPU, ``"8.9 NVIDIA GeForce RTX 4090"``.
        driver: CUDA version of the driver it was built under, or ``"any"``.
        compute_capabilities: those to be named to the builder; none leaves it to the builder.
        compatible: it runs on other GPUs too, where that costs speed.
    """

    devices: str
    driver: str
    compute_capabilities: tuple[ComputeCapability, ...] = ()
    compatible: bool = False

    def runs_on(self, device: DeviceFacts) -> bool:
        """Whether the device's compute capability is among those it was built for."""
        if self.compute_capabilities:
            return device.compute_capability in self.compute_capabilities
        return device.compute_capability >= OLDEST_PORTABLE


OLDEST_PORTABLE: ComputeCapability = (8, 0)
"""What engines for many GPUs need at least: Ampere."""


class Flavour(ABC):
    """One TensorRT, installed and of a known version; see :func:`open_flavour`.

    Args:
        module: its Python module.
        version: of that module.

    Attributes:
        name: as backends call it.
        package: its Python module's name.
        versions: the oldest one that is known to work, and the first that is not.
        extra: what to install talksplat with.
        needs_device: engines are built on the GPU that will run them.
        takes_plugins: graphs may hold operators of a plugin library.
        compiles_on_device: kernels are made where the engine runs, on first use; otherwise they are
            chosen by timing them while building, which is faster with the timings of earlier times.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    versions: ClassVar[tuple[Version, Version]]
    extra: ClassVar[str]
    needs_device: ClassVar[bool]
    takes_plugins: ClassVar[bool]
    compiles_on_device: ClassVar[bool]

    def __init__(self, module: Any, version: Version) -> None:
        self.module = module
        self.version = version

    @property
    def version_text(self) -> str:
        """``"10.13.0.35"``"""
        return ".".join(map(str, self.version))

    @abstractmethod
    def target(self, device: DeviceFacts | None, compatible: bool) -> Target:
        """What an engine has to be built for to run on ``device``.

        Args:
            device: the GPU, or None if there is none.
            compatible: let it run on other GPUs too.

        Raises:
            BackendError: no such engine can be built here.
        """

    @abstractmethod
    def targets(self, capabilities: Sequence[ComputeCapability]) -> Target:
        """These compute capabilities and no others, for engines built ahead of time; without any,
        all that one engine can run on.

        Raises:
            InputError: this version does not know one of them.
            BackendError: engines of this flavour cannot be built ahead of time.
        """

    @abstractmethod
    def misfit(self, target: Target, device: DeviceFacts) -> str | None:
        """Why an engine that was built for ``target`` is not to run on ``device``; None if it
        fits."""

    @abstractmethod
    def configure(self, config: Any, target: Target) -> None:
        """Set in an ``IBuilderConfig`` what makes engines run on ``target``.

        Raises:
            BackendError: this version cannot build for it.
        """

    def create_network(self, builder: Any) -> Any:
        """A strongly typed network: precision is what the graph says.

        TensorRT 10 has to be told; later ones know no other and may drop the flag.
        """
        flags = getattr(self.module, "NetworkDefinitionCreationFlag", None)
        strongly_typed = getattr(flags, "STRONGLY_TYPED", None)
        return builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))


class TensorRT(Flavour):
    """TensorRT 10 and 11."""

    name = "tensorrt"
    package = "tensorrt"
    versions = ((10, 3), (12,))
    extra = "gpu"
    needs_device = True
    takes_plugins = True
    compiles_on_device = False

    def target(self, device: DeviceFacts | None, compatible: bool) -> Target:
        """One GPU model under one driver; ``compatible`` is Ampere and later, or on Turing GPUs
        of the same compute capability.

        Version compatibility is not offered: such an engine carries a runtime library, code that
        would be executed on loading, and an engine is built again when TensorRT changes anyway.
        """
        if device is None:
            raise BackendError(
                "Engines of tensorrt are built on the GPU that runs them, and there is none here: "
                "build on that machine, or use --backend tensorrt-rtx, which needs no GPU."
            )
        capability = _text(device.compute_capability)
        driver = f"CUDA {cuda_version_text(device.driver_version)}"
        if not compatible:
            return Target(f"{capability} {device.name}", driver, (device.compute_capability,))
        if device.compute_capability >= OLDEST_PORTABLE:
            return Target(f"{_text(OLDEST_PORTABLE)} and later", driver, (), True)
        return Target(capability, driver, (device.compute_capability,), True)

    def targets(self, capabilities: Sequence[ComputeCapability]) -> Target:
        """None: see :meth:`Flavour.targets`."""
        raise BackendError(
            "Engines of tensorrt cannot be built ahead of time for other GPUs: expected "
            "--all-targets with --backend tensorrt-rtx only. Build on the GPU that runs them, with "
            "--compatible for several."
        )

    def misfit(self, target: Target, device: DeviceFacts) -> str | None:
        """It has to be what would be built here."""
        here = self.target(device, target.compatible)
        if target.devices != here.devices:
            return f"it is for {target.devices}, this GPU takes {here.devices}"
        if target.driver != here.driver:
            return f"it was built under {target.driver}, this driver knows {here.driver}"
        return None if target == here else f"it contradicts itself: {target}, expected {here}"

    def configure(self, config: Any, target: Target) -> None:
        """Sets ``hardware_compatibility_level``; the device is the one of the current context."""
        levels = self.module.HardwareCompatibilityLevel
        if not target.compatible:
            return
        if not target.compute_capabilities:
            config.hardware_compatibility_level = levels.AMPERE_PLUS
        elif hasattr(levels, "SAME_COMPUTE_CAPABILITY"):
            config.hardware_compatibility_level = levels.SAME_COMPUTE_CAPABILITY
        else:
            raise BackendError(
                f"tensorrt {self.version_text} builds compatible engines for compute capability "
                f"{_text(OLDEST_PORTABLE)} and later only, found {target.devices}. Build without "
                "--compatible, or update TensorRT."
            )


class TensorRTRTX(Flavour):
    """TensorRT for RTX 1.2 and later, whose engines can say whether a CUDA graph may hold them."""

    name = "tensorrt-rtx"
    package = "tensorrt_rtx"
    versions = ((1, 2), (2,))
    extra = "rtx"
    needs_device = False
    takes_plugins = False
    compiles_on_device = True

    def target(self, device: DeviceFacts | None, compatible: bool) -> Target:
        """Every GPU from Ampere on, which is what this builder does unless told otherwise: one
        engine, whether there is a GPU here or not. An older GPU gets an engine of its own."""
        if device is not None and device.compute_capability < OLDEST_PORTABLE:
            if compatible:
                raise BackendError(
                    f"Engines of tensorrt-rtx for several GPUs need compute capability "
                    f"{_text(OLDEST_PORTABLE)} or later, found {_text(device.compute_capability)}. "
                    "Build without --compatible."
                )
            return self.targets([device.compute_capability])
        return self.targets([])

    def targets(self, capabilities: Sequence[ComputeCapability]) -> Target:
        """See :meth:`Flavour.targets`; one engine runs on all of them."""
        if not capabilities:
            return Target(f"{_text(OLDEST_PORTABLE)} and later", "any", (), True)
        known = self.known_capabilities()
        unknown = [capability for capability in capabilities if capability not in known]
        if unknown:
            raise InputError(
                f"tensorrt-rtx {self.version_text} builds for the compute capabilities "
                f"{', '.join(map(_text, known))}; found {', '.join(map(_text, unknown))}."
            )
        ordered = tuple(sorted(set(capabilities)))
        return Target(" ".join(map(_text, ordered)), "any", ordered)

    def misfit(self, target: Target, device: DeviceFacts) -> str | None:
        """The compute capability decides; kernels are compiled for GPU and driver later."""
        if target.runs_on(device):
            return None
        found = _text(device.compute_capability)
        return f"it is for compute capability {target.devices}, this GPU has {found}"

    def known_capabilities(self) -> list[ComputeCapability]:
        """What this version can name as a target."""
        names = self.module.ComputeCapability.__members__
        numbers = [match[1] for name in names if (match := re.fullmatch(r"SM(\d+)", name))]
        return sorted((int(number[:-1]), int(number[-1])) for number in numbers)

    def configure(self, config: Any, target: Target) -> None:
        """Names the compute capabilities, if any. Engines allocate nothing while they run, which a
        recorded frame must not."""
        config.set_flag(self.module.BuilderFlag.REQUIRE_USER_ALLOCATION)
        if not target.compute_capabilities:
            return
        config.num_compute_capabilities = len(target.compute_capabilities)
        for index, (major, minor) in enumerate(target.compute_capabilities):
            member = self.module.ComputeCapability.__members__[f"SM{major}{minor}"]
            if not config.set_compute_capability(member, index):
                raise BackendError(
                    f"tensorrt-rtx {self.version_text} refuses compute capability "
                    f"{_text((major, minor))}."
                )


FLAVOURS: dict[str, type[Flavour]] = {kind.name: kind for kind in (TensorRT, TensorRTRTX)}
"""By the names of their backends."""


def open_flavour(name: str) -> Flavour:
    """Import a TensorRT and check its version.

    Args:
        name: ``"tensorrt"`` or ``"tensorrt-rtx"``.

    Raises:
        InputError: another name.
        BackendError: it is not installed, cannot be loaded, or is of a version that talksplat does
            not know; says what was found, what is expected and how to get it.
    """
    if name not in FLAVOURS:
        raise InputError(f"Expected one of {', '.join(FLAVOURS)}, found {name!r}.")
    kind = FLAVOURS[name]
    oldest, beyond = kind.versions
    expected = f"{kind.package} {_text(oldest)} or later, before {_text(beyond)}"
    install = f"pip install 'talksplat[{kind.extra}]'"
    try:
        module = importlib.import_module(kind.package)
    except ModuleNotFoundError as error:
        raise BackendError(
            f"The backend {name} needs {expected}; found none ({error}). {install}."
        ) from error
    except Exception as error:  # a broken installation fails in many ways, OSError among them
        raise BackendError(
            f"The backend {name} needs {expected}; what is installed cannot be loaded "
            f"({type(error).__name__}: {error}). Install it again: {install}."
        ) from error
    text = str(getattr(module, "__version__", ""))
    version = tuple(int(number) for number in re.findall(r"\d+", text)[:4])
    if not oldest <= version < beyond:
        raise BackendError(
            f"The backend {name} needs {expected}; found {text or 'no version'}. "
            f"pip install '{kind.package.replace('_', '-')}>={_text(oldest)},<{_text(beyond)}'."
        )
    return kind(module, version)


def _text(numbers: Version) -> str:
    return ".".join(map(str, numbers))
