"""A machine with a GPU, as far as tests go: driver, TensorRT, TensorRT for RTX, ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.sdk.cuda.fixtures import (  # noqa: F401 (fixtures)
    fake_nvrtc,
    host_kernels,
    install_driver,
)

import talksplat
from talksplat import Frame
from talksplat.speech import speak

if TYPE_CHECKING:
    from tests.sdk.backends.fake_onnxruntime import FakeOnnxRuntime
    from tests.sdk.backends.fake_tensorrt import Machine
    from tests.sdk.cuda.fake_driver import FakeDriver

HERE = Path(__file__).parent
PLUGIN_VARIABLE = "TALKSPLAT_TENSORRT_PLUGIN"


@dataclass
class GpuMachine:
    """Everything that a GPU backend finds; tests change what they are about.

    Attributes:
        driver: of the GPU.
        tensorrt: the installed TensorRT.
        rtx: the installed TensorRT for RTX.
        onnxruntime: the installed ONNX Runtime.
    """

    driver: FakeDriver
    tensorrt: Machine
    rtx: Machine
    onnxruntime: FakeOnnxRuntime


@pytest.fixture(scope="session")
def fake_plugins(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Plugin libraries by the major version of TensorRT they are for."""
    folder = tmp_path_factory.mktemp("plugins")
    paths = {major: folder / f"libplugin_{major}.so" for major in (10, 11)}
    for major, path in paths.items():
        command = ["c++", "-shared", "-fPIC", f"-DMAJOR={major}", str(HERE / "fake_plugin.cpp")]
        subprocess.run([*command, "-o", str(path)], check=True)
    return paths


@pytest.fixture
def put_in_place(
    monkeypatch: pytest.MonkeyPatch, fake_plugins: dict[int, Path]
) -> Callable[[FakeDriver], GpuMachine]:
    """Installs what runs graphs on a driver's GPU."""

    def put(driver: FakeDriver) -> GpuMachine:
        from tests.sdk.backends.fake_onnxruntime import FakeOnnxRuntime
        from tests.sdk.backends.fake_tensorrt import Machine

        from talksplat.custom_op import custom_op_library

        libraries = {path.name: {"GaussianRasterize"} for path in fake_plugins.values()}
        machine = GpuMachine(
            driver,
            Machine(
                "tensorrt",
                "11.4.0.106",
                driver,
                plugin_libraries=libraries,
                custom_op_library=custom_op_library(),
            ),
            Machine("tensorrt_rtx", "1.7.1.116", driver),
            FakeOnnxRuntime(driver),
        )
        install_modules(machine, monkeypatch)
        monkeypatch.setenv(PLUGIN_VARIABLE, str(fake_plugins[11]))
        fake = machine.onnxruntime
        monkeypatch.setattr("talksplat.backends.onnxruntime_cuda.onnxruntime", fake)
        return machine

    return put


def install_modules(machine: GpuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make both TensorRTs importable, as their machines say now."""
    from tests.sdk.backends.fake_tensorrt import fake_tensorrt

    for part in (machine.tensorrt, machine.rtx):
        monkeypatch.setitem(sys.modules, part.flavour, fake_tensorrt(part))


@pytest.fixture
def gpu(
    install_driver: Callable[..., FakeDriver],  # noqa: F811 (the fixture)
    put_in_place: Callable[[FakeDriver], GpuMachine],
) -> Iterator[GpuMachine]:
    """A machine whose GPU has everything; nothing may be left on it at the end."""
    machine = put_in_place(install_driver())
    yield machine
    assert not machine.driver.leaks
    assert not machine.tensorrt.misuses + machine.rtx.misuses


@pytest.fixture(scope="session")
def all_bundles(bundle_path: Path, family_bundles: dict[str, Path]) -> dict[str, Path]:
    """One synthetic bundle of every family."""
    return {"d3talker": bundle_path, **family_bundles}


def frames_of(path: Path, backend: str, pcm: Any, **session: Any) -> list[Frame]:
    """The frames of a speech, with an avatar of its own."""
    with talksplat.load(path, backend, 1) as avatar, avatar.session(**session) as speaking:
        return list(speak(speaking, pcm))
