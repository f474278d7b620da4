"""Which TensorRTs are taken, and what engines they build for whom."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tests.sdk.engines.conftest import FakeDevice

from talksplat.engines.flavours import TensorRT, TensorRTRTX, open_flavour
from talksplat.errors import BackendError, InputError

PACKAGES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
AMPERE, TURING = FakeDevice(), FakeDevice("Tesla T4", (7, 5))


def install(monkeypatch: pytest.MonkeyPatch, package: str, version: str | None) -> None:
    module = ModuleType(package)
    if version is not None:
        module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package, module)


def rtx(*capabilities: str) -> TensorRTRTX:
    names = ("NONE", "CURRENT", *capabilities)
    members = {name: number for number, name in enumerate(names)}
    module = SimpleNamespace(
        ComputeCapability=SimpleNamespace(__members__=members),
        BuilderFlag=SimpleNamespace(REQUIRE_USER_ALLOCATION="REQUIRE_USER_ALLOCATION"),
    )
    return TensorRTRTX(module, (1, 7))


@pytest.mark.parametrize("name", PACKAGES)
def test_tensorrt_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(BackendError, match=rf"needs {PACKAGES[name]} .*found none.*pip install"):
        open_flavour(name)


def test_tensorrt_whose_libraries_are_missing(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text("raise FileNotFoundError('libnvinfer.so.11')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(BackendError, match=r"cannot be loaded \(FileNotFoundError: libnvinfer"):
        open_flavour("tensorrt")


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("tensorrt", "8.6.1"),
        ("tensorrt", "10.2.0.19"),
        ("tensorrt", "12.0.0"),
        ("tensorrt", None),
        ("tensorrt-rtx", "1.0.0.21"),
        ("tensorrt-rtx", "2.0"),
    ],
)
def test_wrong_major_version(
    name: str, version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, PACKAGES[name], version)
    with pytest.raises(BackendError, match=rf"found {version or 'no version'}\. pip install '"):
        open_flavour(name)


@pytest.mark.parametrize(
    ("name", "version"),
    [("tensorrt", "10.3.0"), ("tensorrt", "11.4.0.106"), ("tensorrt-rtx", "1.2.0.44")],
)
def test_known_versions(name: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, PACKAGES[name], version)
    flavour = open_flavour(name)
    assert (flavour.name, flavour.version_text) == (name, version)


def test_an_unknown_flavour_is_an_input_error() -> None:
    with pytest.raises(InputError, match="tensorrt-rtx"):
        open_flavour("tensorrt-lite")


def test_tensorrt_builds_for_one_gpu_under_one_driver() -> None:
    target = TensorRT(None, (11, 4)).target(AMPERE, compatible=False)
    assert (target.devices, target.driver) == ("8.9 NVIDIA GeForce RTX 4090", "CUDA 12.8")


def test_tensorrt_needs_a_gpu_to_build() -> None:
    with pytest.raises(BackendError, match="there is none here"):
        TensorRT(None, (11, 4)).target(None, compatible=False)


@pytest.mark.parametrize(
    ("device", "devices", "level"),
    [
        (AMPERE, "8.0 and later", "AMPERE_PLUS"),
        (TURING, "7.5", "SAME_COMPUTE_CAPABILITY"),
    ],
)
def test_compatible_engines_of_tensorrt(device: FakeDevice, devices: str, level: str) -> None:
    levels = SimpleNamespace(
        AMPERE_PLUS="AMPERE_PLUS", SAME_COMPUTE_CAPABILITY="SAME_COMPUTE_CAPABILITY"
    )
    flavour = TensorRT(SimpleNamespace(HardwareCompatibilityLevel=levels), (10, 13))
    target = flavour.target(device, compatible=True)
    assert target.devices == devices
    config = SimpleNamespace()
    flavour.configure(config, target)
    assert config.hardware_compatibility_level == level
    own = SimpleNamespace()
    flavour.configure(own, flavour.target(device, compatible=False))
    assert not vars(own)


def test_an_old_tensorrt_has_no_compatible_engines_for_turing() -> None:
    levels = SimpleNamespace(AMPERE_PLUS="AMPERE_PLUS")
    flavour = TensorRT(SimpleNamespace(HardwareCompatibilityLevel=levels), (10, 3))
    with pytest.raises(BackendError, match=r"8\.0 and later only, found 7\.5"):
        flavour.configure(SimpleNamespace(), flavour.target(TURING, compatible=True))


def test_rtx_builds_one_engine_for_every_gpu_from_ampere_on() -> None:
    flavour = rtx("SM75", "SM80")
    targets = {flavour.target(AMPERE, compatible) for compatible in (False, True)}
    targets |= {flavour.target(None, False), flavour.targets([])}
    assert {(target.devices, target.driver) for target in targets} == {("8.0 and later", "any")}
    flags: list[str] = []
    flavour.configure(SimpleNamespace(set_flag=flags.append), targets.pop())
    assert flags == ["REQUIRE_USER_ALLOCATION"]  # and no compute capability


def test_rtx_builds_for_turing_alone() -> None:
    flavour = rtx("SM75", "SM80")
    assert flavour.target(TURING, False).compute_capabilities == ((7, 5),)
    with pytest.raises(BackendError, match="without --compatible"):
        flavour.target(TURING, True)


def test_rtx_takes_the_capabilities_it_knows() -> None:
    flavour = rtx("SM80", "SM120", "SM89")
    assert flavour.known_capabilities() == [(8, 0), (8, 9), (12, 0)]
    assert flavour.targets([(12, 0), (8, 9), (12, 0)]).devices == "8.9 12.0"
    with pytest.raises(InputError, match=r"8\.0, 8\.9, 12\.0; found 9\.0"):
        flavour.targets([(8, 9), (9, 0)])


def test_a_target_runs_on_its_own_capabilities() -> None:
    flavour = rtx("SM80", "SM89")
    assert flavour.targets([]).runs_on(AMPERE) and not flavour.targets([]).runs_on(TURING)
    assert flavour.targets([(8, 9)]).runs_on(AMPERE)
    assert not flavour.targets([(8, 0)]).runs_on(AMPERE)


def test_the_installed_rtx_knows_what_is_named() -> None:
    pytest.importorskip("tensorrt_rtx")
    assert {(8, 0), (8, 6), (8, 9), (12, 0)} <= set(
        open_flavour("tensorrt-rtx").known_capabilities()  # type: ignore[attr-defined]
    )
