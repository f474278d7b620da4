"""What goes wrong on a GPU, seen from outside: load, sessions and doctor say what to do."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from synthetic_bundle import speech_like
from tests.sdk.backends.conftest import (
    PLUGIN_VARIABLE,
    GpuMachine,
    frames_of,
    install_modules,
)

import talksplat
from talksplat import families
from talksplat.backends.gpu_frame import GpuFrame
from talksplat.backends.tensorrt_graph import TensorRtGraph
from talksplat.bundle import Bundle
from talksplat.cuda import open_device
from talksplat.doctor import Check, examine
from talksplat.engines.cache import EngineCache
from talksplat.engines.flavours import open_flavour
from talksplat.engines.obtain import graph_source, open_workshop
from talksplat.errors import BackendError, DeviceLostError, InputError
from talksplat.speech import speak
from talksplat.timings import Timings

if TYPE_CHECKING:
    from tests.sdk.cuda.fake_driver import FakeDriver

Install = Callable[..., "FakeDriver"]
Put = Callable[["FakeDriver"], GpuMachine]

GPU_BACKENDS = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")
CLIP = speech_like(640 * 6)


def found_by_doctor() -> dict[str, Check]:
    return {check.name: check for check in examine()}


def assert_only_the_cpu(path: Path, reason: str) -> None:
    """No GPU backend loads, auto takes the CPU and doctor says why; all give ``reason``."""
    for backend in GPU_BACKENDS:
        with pytest.raises(BackendError, match=reason):
            talksplat.load(path, backend, 1)
    with talksplat.load(path, "auto", 1) as avatar:
        assert avatar.backend == "onnxruntime-cpu"
        unusable = ", ".join(GPU_BACKENDS)
        assert re.search(f"not {unusable}: .*{reason}", avatar.backend_reason)
    checks = found_by_doctor()
    assert all(checks[f"backend {backend}"].status == "absent" for backend in GPU_BACKENDS)
    assert checks["backend onnxruntime-cpu"].status == "ok"
    assert any(re.search(reason, check.fix) for check in checks.values())
    assert "broken" not in {check.status for check in checks.values()}


def test_no_driver(install_driver: Install, put_in_place: Put, bundle_path: Path) -> None:
    put_in_place(install_driver(installed=False))
    assert_only_the_cpu(bundle_path, "No NVIDIA driver was found")
    assert found_by_doctor()["NVIDIA driver"].status == "absent"


def test_no_gpu(install_driver: Install, put_in_place: Put, bundle_path: Path) -> None:
    put_in_place(install_driver(gpus=()))
    assert_only_the_cpu(bundle_path, "CUDA_ERROR_NO_DEVICE")
    checks = found_by_doctor()
    assert (checks["NVIDIA driver"].status, checks["GPU"].status) == ("ok", "absent")


def test_a_driver_that_is_too_old(
    install_driver: Install, put_in_place: Put, bundle_path: Path
) -> None:
    put_in_place(install_driver(version=11_080))
    assert_only_the_cpu(bundle_path, r"knows CUDA 11\.8; .* Update the NVIDIA driver")


def test_a_gpu_that_is_too_old(
    install_driver: Install, put_in_place: Put, bundle_path: Path
) -> None:
    from tests.sdk.cuda.fake_driver import Gpu

    put_in_place(install_driver(gpus=(Gpu("Quadro P4000", (6, 1)),)))
    assert_only_the_cpu(bundle_path, r"Quadro P4000\) has compute capability 6\.1; talksplat needs")


@pytest.mark.parametrize(
    ("backend", "module", "next_best"),
    [
        ("tensorrt", "tensorrt", "tensorrt-rtx"),
        ("tensorrt-rtx", "tensorrt_rtx", "tensorrt"),
    ],
)
def test_tensorrt_missing(
    gpu: GpuMachine,
    bundle_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    module: str,
    next_best: str,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(BackendError, match=r"found none .* pip install 'talksplat\["):
        talksplat.load(bundle_path, backend, 1)
    with talksplat.load(bundle_path, "auto", 1) as avatar:
        assert avatar.backend == next_best
        assert (f"not {backend}: " in avatar.backend_reason) == (backend == "tensorrt")
    assert found_by_doctor()[f"backend {backend}"].status == "absent"


@pytest.mark.parametrize(
    ("backend", "version"), [("tensorrt", "9.3.0"), ("tensorrt", "12.0.1"), ("tensorrt-rtx", "2.0")]
)
def test_tensorrt_of_a_wrong_major_version(
    gpu: GpuMachine,
    bundle_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    version: str,
) -> None:
    machine = gpu.tensorrt if backend == "tensorrt" else gpu.rtx
    machine.version = version
    install_modules(gpu, monkeypatch)
    with pytest.raises(BackendError, match=rf"found {re.escape(version)}. pip install"):
        talksplat.load(bundle_path, backend, 1)
    name = "TensorRT" if backend == "tensorrt" else "TensorRT for RTX"
    assert f"found {version}" in found_by_doctor()[name].fix


def test_plugin_missing(
    gpu: GpuMachine, bundle_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(PLUGIN_VARIABLE)
    monkeypatch.setattr("talksplat.plugin_library._NAME", "libnone.so")
    with pytest.raises(BackendError, match=r"libnone\.so.* found none: .* Build talksplat"):
        talksplat.load(bundle_path, "tensorrt", 1)
    with talksplat.load(bundle_path, "auto", 1) as avatar:
        assert avatar.backend == "tensorrt-rtx"
        assert "libnone.so" in avatar.backend_reason
    assert "Build talksplat" in found_by_doctor()["TensorRT plugin"].fix


def test_a_file_that_is_no_plugin(
    gpu: GpuMachine, bundle_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "plugin.so").write_bytes(b"not a library")
    monkeypatch.setenv(PLUGIN_VARIABLE, str(tmp_path / "plugin.so"))
    with pytest.raises(BackendError, match="cannot be used as TensorRT's plugin"):
        talksplat.load(bundle_path, "tensorrt", 1)
    assert "cannot be used as" in found_by_doctor()["TensorRT plugin"].fix


def test_a_plugin_of_another_major_version(
    gpu: GpuMachine,
    bundle_path: Path,
    fake_plugins: dict[int, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PLUGIN_VARIABLE, str(fake_plugins[10]))
    with pytest.raises(BackendError, match="another major version of TensorRT"):
        talksplat.load(bundle_path, "tensorrt", 1)
    assert "another major version" in found_by_doctor()["TensorRT plugin"].fix
    with talksplat.load(bundle_path, "auto", 1) as avatar:
        assert avatar.backend == "tensorrt-rtx"


def test_a_plugin_that_tensorrt_does_not_take(gpu: GpuMachine, bundle_path: Path) -> None:
    gpu.tensorrt.plugin_libraries.clear()
    with pytest.raises(BackendError, match="found no plugin"):
        talksplat.load(bundle_path, "tensorrt", 1)


def test_onnxruntime_without_cuda(gpu: GpuMachine, bundle_path: Path) -> None:
    gpu.onnxruntime.providers.remove("CUDAExecutionProvider")
    with pytest.raises(BackendError, match=r"pip install .* onnxruntime-gpu"):
        talksplat.load(bundle_path, "onnxruntime-cuda", 1)
    assert "onnxruntime-gpu" in found_by_doctor()["ONNX Runtime on CUDA"].fix


def test_onnxruntime_whose_libraries_are_missing_is_not_chosen(
    gpu: GpuMachine, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.onnxruntime.libraries_load = False
    with pytest.raises(BackendError, match="on the CPU only: its CUDA or cuDNN"):
        talksplat.load(bundle_path, "onnxruntime-cuda", 1)
    assert not gpu.driver.alive()
    assert "cuDNN" in found_by_doctor()["backend onnxruntime-cuda"].fix
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with talksplat.load(bundle_path, "auto", 1) as avatar:
        assert avatar.backend == "onnxruntime-cpu"
        assert "cuDNN" in avatar.backend_reason


def test_without_a_compiler_for_kernels_only_tensorrt_is_chosen(
    gpu: GpuMachine, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise BackendError("NVRTC was not found")

    monkeypatch.setattr("talksplat.cuda.compile.load_nvrtc", missing)
    for backend in ("tensorrt-rtx", "onnxruntime-cuda"):
        with pytest.raises(BackendError, match="NVRTC was not found"):
            talksplat.load(bundle_path, backend, 1)
    assert frames_of(bundle_path, "tensorrt", CLIP)
    gpu.tensorrt.plugin_libraries.clear()
    gpu.tensorrt.plugins.clear()
    with talksplat.load(bundle_path, "auto", 1) as avatar:
        assert avatar.backend == "onnxruntime-cpu"


def test_onnxruntime_closes_the_device_whatever_goes_wrong(
    gpu: GpuMachine, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu.onnxruntime, "preload_dlls", interrupt)
    with pytest.raises(KeyboardInterrupt) as raised:
        talksplat.load(bundle_path, "onnxruntime-cuda", 1)
    assert raised and not gpu.driver._contexts


def test_sizes_that_tensorrt_cannot_infer_are_a_backend_error(
    gpu: GpuMachine, bundle_path: Path
) -> None:
    with talksplat.load(bundle_path, "tensorrt-rtx", 1) as avatar:
        before = gpu.driver.alive()
        gpu.rtx.cannot_infer = "a reshape does not add up"
        with pytest.raises(BackendError, match="cannot be inferred: a reshape does not add up"):
            avatar.session()
        assert gpu.driver.alive() == before
        gpu.rtx.cannot_infer = None
        avatar.session().close()


def test_a_tensor_that_onnxruntime_cannot_bind_is_a_backend_error(
    gpu: GpuMachine, bundle_path: Path
) -> None:
    with talksplat.load(bundle_path, "onnxruntime-cuda", 1) as avatar:
        gpu.onnxruntime.refuses_binding = "invalid device id"
        with pytest.raises(BackendError, match=r"cannot bind '\w+' of .*onnx: invalid device id"):
            avatar.session()
        gpu.onnxruntime.refuses_binding = None
        avatar.session().close()


def test_a_refused_cache_of_compiled_kernels_is_an_error(
    gpu: GpuMachine, bundle_path: Path
) -> None:
    with talksplat.load(bundle_path, "tensorrt-rtx", 1) as avatar:
        gpu.rtx.refuses_kernels = True
        with pytest.raises(BackendError, match="its cache of compiled kernels was refused"):
            avatar.session()


def test_a_refusal_quotes_nothing_that_was_said_of_something_else(
    gpu: GpuMachine, bundle_path: Path
) -> None:
    with talksplat.load(bundle_path, "tensorrt-rtx", 1) as avatar:
        frame = avatar._family.frame  # type: ignore[attr-defined]
        one, other, *_ = frame.plan.graphs.values()
        one._log.logger.log(1, "of the refiner")
        assert "it did not say why" in str(other.refusal("it was not run"))
        assert "(of the refiner)" in str(one.refusal("it was not run"))
        assert "it did not say why" in str(one.refusal("it was not run"))


def test_doctor_goes_on_when_the_user_got_something_wrong(
    gpu: GpuMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALKSPLAT_ENGINES", "/nowhere/typo")
    checks = found_by_doctor()
    assert checks["backend tensorrt"].status == "broken"
    assert "Correct TALKSPLAT_ENGINES" in checks["backend tensorrt"].fix
    assert "as said above" in checks["backend tensorrt-rtx"].found
    assert checks["backend onnxruntime-cuda"].status == "ok"
    assert list(checks)[-1] == "export extra"


def test_an_engine_for_another_device_is_built_again(
    install_driver: Install, put_in_place: Put, bundle_path: Path
) -> None:
    from tests.sdk.cuda.fake_driver import Gpu

    put_in_place(install_driver())
    talksplat.load(bundle_path, "tensorrt", 1).close()
    assert not built(bundle_path, "tensorrt")
    put_in_place(install_driver(gpus=(Gpu("Another GPU", (9, 0)),)))
    reasons = built(bundle_path, "tensorrt")
    assert len(reasons) == 4
    for reason in reasons:
        assert "device changed from 8.9 Imaginary GPU to 9.0 Another GPU" in reason


def test_a_stale_engine_is_built_again(
    gpu: GpuMachine, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = built(bundle_path, "tensorrt-rtx")
    assert len(before) == 5 and all("none was built yet" in reason for reason in before)
    gpu.rtx.version = "1.8.0.1"
    install_modules(gpu, monkeypatch)
    reasons = built(bundle_path, "tensorrt-rtx")
    assert len(reasons) == 5
    for reason in reasons:
        assert "TensorRT changed from 1.7.1.116 to 1.8.0.1" in reason


def test_a_damaged_engine_is_built_again(gpu: GpuMachine, bundle_path: Path) -> None:
    expected = frames_of(bundle_path, "tensorrt", CLIP)
    for engine in EngineCache().folder.glob("*.engine"):
        data = bytearray(engine.read_bytes())
        data[len(data) // 2] ^= 1
        engine.write_bytes(data)
    reasons = built(bundle_path, "tensorrt")
    assert len(reasons) == 4 and all("damaged" in reason for reason in reasons)
    found = frames_of(bundle_path, "tensorrt", CLIP)
    np.testing.assert_array_equal(found[3].image, expected[3].image)


def built(path: Path, backend: str, precision: Any = "fp32") -> list[str]:
    """Why engines were built when an avatar was loaded, one reason an engine."""
    told: list[str] = []

    def progress(what: str, done: int, total: int) -> None:
        if what not in told:
            told.append(what)

    with talksplat.load(path, backend, 1, precision=precision, progress=progress) as avatar:
        avatar.session().close()
    return told


def test_an_engine_that_tensorrt_refuses_is_an_error_that_says_why(
    gpu: GpuMachine, bundle_path: Path
) -> None:
    from tests.sdk.backends.fake_tensorrt import with_header

    bundle, flavour = Bundle.open(bundle_path), open_flavour("tensorrt-rtx")
    file, spec = bundle.graph_file("refiner"), bundle.manifest.graphs["refiner"]
    source = graph_source(file, spec, {}, "fp32")
    with open_device() as device:
        engine = open_workshop(flavour, device).obtain(source).data
        TensorRtGraph(flavour, device, "refiner", engine).close()
        with pytest.raises(BackendError, match=r"'refiner': the engine was refused .*UNSUPPORTED"):
            turing = with_header(engine, capabilities=[75])
            TensorRtGraph(flavour, device, "refiner", turing)
        with pytest.raises(BackendError, match=r"MALFORMED_ENGINE.*talksplat build"):
            TensorRtGraph(flavour, device, "refiner", engine[: len(engine) // 2][1:])


def test_what_tensorrt_refuses_to_run_is_an_error_that_says_why(
    gpu: GpuMachine, bundle_path: Path
) -> None:
    with talksplat.load(bundle_path, "tensorrt", 1) as avatar:
        gpu.tensorrt.refuses = "no tactic left"
        with pytest.raises(BackendError, match=r"was not run \(no tactic left\)"):
            avatar.session()
        gpu.tensorrt.refuses = None
        avatar.session().close()


@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_out_of_memory_when_loading(
    install_driver: Install, put_in_place: Put, bundle_path: Path, backend: str
) -> None:
    from tests.sdk.cuda.fake_driver import Gpu

    driver = install_driver(gpus=(Gpu(memory=2_000),))
    put_in_place(driver)
    with pytest.raises(BackendError, match=r"out of memory: [\d,]+ bytes .* of 2,000 are free"):
        talksplat.load(bundle_path, backend, 1)
    assert not driver.alive() and not driver.leaks


@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_out_of_memory_for_one_more_session(
    install_driver: Install, put_in_place: Put, bundle_path: Path, backend: str
) -> None:
    from tests.sdk.cuda.fake_driver import Gpu

    driver = install_driver()
    put_in_place(driver)
    with talksplat.load(bundle_path, backend, 1) as avatar, open_device() as device:
        loaded = device.free_memory()
        with avatar.session():
            one_session = loaded - device.free_memory()
    enough_for_one = device.total_memory - loaded + int(1.5 * one_session)
    driver = install_driver(gpus=(Gpu(memory=enough_for_one),))
    put_in_place(driver)
    with talksplat.load(bundle_path, backend, 1) as avatar, avatar.session() as session:
        before = driver.alive()
        with pytest.raises(BackendError, match="out of memory"):
            avatar.session()
        assert driver.alive() == before
        # The session that was there goes on, and there is room for another when it is closed.
        assert len(list(speak(session, CLIP))) == 6
        session.close()
        avatar.session().close()


def test_overflow_of_the_workspace_of_our_kernels(
    gpu: GpuMachine, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from talksplat.backends import gpu_frame

    crowded = partial(gpu_frame.CudaRasterizer, tile_entries=8)
    monkeypatch.setattr(gpu_frame, "CudaRasterizer", crowded)
    for backend in ("tensorrt-rtx", "onnxruntime-cuda"):
        with (
            talksplat.load(bundle_path, backend, 1) as avatar,
            pytest.raises(BackendError, match=r"^\d+ pairs .* there is room for 8;"),
        ):
            avatar.session()


def test_overflow_of_the_workspace_of_the_plugin(gpu: GpuMachine, bundle_path: Path) -> None:
    with (
        talksplat.load(bundle_path, "tensorrt", 1) as avatar,
        avatar.session() as session,
    ):
        session.push(CLIP)
        session.end()
        frames = session.frames()
        next(frames)
        # The second of two rasterizations, in a frame that is replayed.
        gpu.tensorrt.statuses = np.array([[0, 10, 20, 0], [0, 70_000, 65_536, 0]], np.int32)
        with pytest.raises(BackendError, match=r"^70,000 pairs .* there is room for 65,536"):
            next(frames)
        gpu.tensorrt.statuses = None
        assert len(list(speak(session, CLIP))) == 6


@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_gaussians_that_are_not_finite(
    gpu: GpuMachine, family_bundles: dict[str, Path], backend: str
) -> None:
    path = family_bundles["talkinggaussian"]
    program = families.frame_program(Bundle.open(path))
    inputs = {
        name: np.zeros(tuple(map(int, tensor.shape)), tensor.dtype)
        for name, tensor in program.inputs.items()
    }
    inputs["viewmats"][0] = np.diag([1, -1, -1, 1])
    inputs["viewmats"][0, 2, 3] = 0.7
    with talksplat.load(path, backend, 1) as avatar:
        frame = avatar._family.frame  # type: ignore[attr-defined]
        assert isinstance(frame, GpuFrame)
        with frame.runner() as runner:
            good = runner.run(inputs, Timings())
            bad = {**inputs, "audio_window": inputs["audio_window"] * np.float32(np.nan)}
            if backend == "tensorrt":  # its stand-in rasterizes on the CPU, which reports no bits
                gpu.tensorrt.statuses = np.array([[1, 0, 0, 0]] * 2, np.int32)
                bad = inputs
            with pytest.raises(InputError, match=r"must be finite.* found otherwise in means"):
                runner.run(bad, Timings())
            gpu.tensorrt.statuses = None
            np.testing.assert_array_equal(runner.run(inputs, Timings()).image, good.image)


@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_a_device_lost_in_mid_session_ends_it_and_nothing_else(
    gpu: GpuMachine, bundle_path: Path, backend: str
) -> None:
    expected = frames_of(bundle_path, backend, CLIP)
    avatar = talksplat.load(bundle_path, backend, 1)
    session, neighbour = avatar.session(), avatar.session()
    session.push(CLIP)
    session.end()
    frames = session.frames()
    np.testing.assert_array_equal(next(frames).image, expected[0].image)
    gpu.driver.lose_device("CUDA_ERROR_ILLEGAL_ADDRESS")
    with pytest.raises(DeviceLostError, match=r"CUDA_ERROR_ILLEGAL_ADDRESS.*load it again"):
        next(frames)
    with pytest.raises(DeviceLostError):
        next(session.frames())
    neighbour.push(CLIP)
    neighbour.end()
    with pytest.raises(DeviceLostError, match="lost"):
        next(neighbour.frames())
    with pytest.raises(DeviceLostError, match="lost"):
        avatar.session()
    # Nothing but the CPU can be used until all that was on the device is closed.
    with pytest.raises(DeviceLostError, match="not closed yet"):
        talksplat.load(bundle_path, backend, 1)
    assert frames_of(bundle_path, "onnxruntime-cpu", CLIP)
    session.close()
    neighbour.close()
    avatar.close()
    for found, frame in zip(frames_of(bundle_path, backend, CLIP), expected, strict=True):
        np.testing.assert_array_equal(found.image, frame.image)


@pytest.mark.parametrize("backend", GPU_BACKENDS)
@pytest.mark.parametrize("whole", [False, True], ids=["sessions first", "avatar only"])
def test_after_a_loss_everything_closes_whatever_the_driver_says_to_that(
    gpu: GpuMachine, bundle_path: Path, backend: str, whole: bool
) -> None:
    avatar = talksplat.load(bundle_path, backend, 1)
    sessions = [avatar.session() for _ in range(2)]
    gpu.driver.lose_device("CUDA_ERROR_LAUNCH_FAILED")
    sessions[0].push(CLIP)
    sessions[0].end()
    with pytest.raises(DeviceLostError):
        next(sessions[0].frames())
    if not whole:
        for session in sessions:
            session.close()
    avatar.close()
    assert frames_of(bundle_path, backend, CLIP)


def test_a_loss_that_shows_only_when_something_is_closed(
    gpu: GpuMachine, bundle_path: Path
) -> None:
    avatar = talksplat.load(bundle_path, "tensorrt-rtx", 1)
    session = avatar.session()
    gpu.driver._contexts[0].lost = "CUDA_ERROR_ECC_UNCORRECTABLE"
    session.close()
    avatar.close()
    assert frames_of(bundle_path, "tensorrt-rtx", CLIP)


def test_all_sessions_are_closed_though_one_cannot_be(
    gpu: GpuMachine, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    avatar = talksplat.load(bundle_path, "tensorrt-rtx", 1)
    sessions = [avatar.session() for _ in range(3)]

    def fail() -> None:
        raise BackendError("cannot be closed")

    for session in sessions:
        audio = session._stream._audio
        close = audio.close
        monkeypatch.setattr(audio, "close", lambda close=close: (close(), fail()))
    with pytest.raises(BackendError, match="cannot be closed"):
        avatar.close()
    assert not gpu.driver.alive() and not gpu.driver._contexts


def test_a_device_lost_while_a_session_is_opened(gpu: GpuMachine, bundle_path: Path) -> None:
    avatar = talksplat.load(bundle_path, "tensorrt-rtx", 1)
    gpu.driver.lose_device("CUDA_ERROR_ECC_UNCORRECTABLE")
    with pytest.raises(DeviceLostError, match="CUDA_ERROR_ECC_UNCORRECTABLE"):
        avatar.session()
    avatar.close()
    talksplat.load(bundle_path, "tensorrt-rtx", 1).close()


def test_what_loads_after_a_failed_load_finds_the_device_free(
    gpu: GpuMachine, own_bundle: Path
) -> None:
    (own_bundle / "refiner.onnx").unlink()
    for backend in GPU_BACKENDS:
        with pytest.raises(talksplat.TalksplatError):
            talksplat.load(own_bundle, backend, 1)
        assert not gpu.driver.alive() and not gpu.driver._contexts


def test_another_precision_than_a_backend_has(gpu: GpuMachine, bundle_path: Path) -> None:
    for backend in ("onnxruntime-cuda", "onnxruntime-cpu"):
        with pytest.raises(BackendError, match="computes in fp32, asked for was fp16"):
            talksplat.load(bundle_path, backend, 1, precision="fp16")
    with pytest.raises(InputError, match="precision must be 'fp32' or 'fp16', found 'int8'"):
        talksplat.load(bundle_path, "tensorrt", 1, precision="int8")  # type: ignore[arg-type]


def test_the_real_tensorrt_rtx_says_why_it_refuses_an_engine(install_driver: Install) -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the real tensorrt_rtx: dev extra")
    install_driver()
    flavour = open_flavour("tensorrt-rtx")
    with open_device() as device, pytest.raises(BackendError, match="MAGIC_TAG"):
        TensorRtGraph(flavour, device, "motion", b"no engine" * 100)
