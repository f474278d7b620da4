"""Frames of the GPU backends: those of the CPU, recorded or not, however audio is cut."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic_bundle import HEIGHT, WIDTH, speech_like
from synthetic_families import VARIANTS
from tests.sdk.backends.conftest import GpuMachine, frames_of

import talksplat
from talksplat import Avatar, Frame, Session, families
from talksplat.backends.gpu_call import GpuCall, InputBlock
from talksplat.backends.gpu_frame import GpuFrame, GpuFrameRunner
from talksplat.bundle import Bundle
from talksplat.engines.cache import EngineCache
from talksplat.errors import BackendError, OutputError
from talksplat.frame_program import FrameProgram
from talksplat.speech import speak
from talksplat.timings import Timings

FAMILIES = ("d3talker", *VARIANTS)
CAPTURING = ("tensorrt", "tensorrt-rtx")
GPU_BACKENDS = (*CAPTURING, "onnxruntime-cuda")
FRAMES = 8
CLIP = speech_like(640 * FRAMES - 40)


def images(frames: list[Frame]) -> NDArray[np.uint8]:
    return np.stack([frame.image for frame in frames])


def alphas(frames: list[Frame]) -> NDArray[np.float32]:
    return np.stack([frame.alpha for frame in frames])


def psnr(found: NDArray[Any], expected: NDArray[Any], peak: float) -> float:
    error = np.mean((found.astype(np.float64) - expected.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))


def assert_same(found: list[Frame], expected: list[Frame]) -> None:
    np.testing.assert_array_equal(images(found), images(expected))
    np.testing.assert_array_equal(alphas(found), alphas(expected))


def inputs_of(program: FrameProgram, seed: int) -> dict[str, NDArray[Any]]:
    """Something for every input, with a camera that looks at the head."""
    rng = np.random.default_rng(seed)
    inputs: dict[str, NDArray[Any]] = {}
    for name, tensor in program.inputs.items():
        shape = tuple(int(size) for size in tensor.shape)
        if tensor.dtype == "uint8":
            inputs[name] = rng.integers(0, 256, shape, dtype=np.uint8)
        else:
            inputs[name] = rng.uniform(-1, 1, shape).astype(np.float32)
    viewmat = np.diag([1, -1, -1, 1]).astype(np.float32)
    viewmat[2, 3] = 0.7
    inputs["viewmats"] = viewmat[None]
    return inputs


def only_frame(avatar: Avatar) -> GpuFrame:
    """What makes the frames of an avatar."""
    frame = avatar._family.frame  # type: ignore[attr-defined]
    assert isinstance(frame, GpuFrame)
    return frame


@pytest.fixture(scope="module")
def on_the_cpu(all_bundles: dict[str, Path]) -> dict[str, list[Frame]]:
    return {name: frames_of(path, "onnxruntime-cpu", CLIP) for name, path in all_bundles.items()}


@pytest.fixture
def runner_of(
    gpu: GpuMachine, all_bundles: dict[str, Path]
) -> Iterator[Callable[[str, str], tuple[GpuFrameRunner, FrameProgram]]]:
    """Makes a runner of a family's frames on a backend; closed at the end."""
    opened: list[Avatar] = []

    def make(family: str, backend: str) -> tuple[GpuFrameRunner, FrameProgram]:
        avatar = talksplat.load(all_bundles[family], backend, 1)
        opened.append(avatar)
        program = families.frame_program(Bundle.open(all_bundles[family]))
        return only_frame(avatar).runner(), program

    yield make
    for avatar in opened:
        avatar.close()


@pytest.mark.parametrize("backend", GPU_BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_frames_are_those_of_the_cpu(
    gpu: GpuMachine,
    all_bundles: dict[str, Path],
    on_the_cpu: dict[str, list[Frame]],
    family: str,
    backend: str,
) -> None:
    expected = on_the_cpu[family]
    found = frames_of(all_bundles[family], backend, CLIP)
    # The rasterizer adds up in another order, so a byte in 60,000 falls on the other side.
    assert psnr(images(found), images(expected), 255) >= 90
    assert psnr(alphas(found), alphas(expected), 1) >= 90
    assert (images(found) == images(expected)).mean() > 0.9999


@pytest.mark.parametrize("backend", CAPTURING)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_replayed_frame_is_the_eager_one_bit_for_bit(
    runner_of: Callable[[str, str], tuple[GpuFrameRunner, FrameProgram]],
    family: str,
    backend: str,
) -> None:
    runner, program = runner_of(family, backend)
    inputs, others = inputs_of(program, 1), inputs_of(program, 2)
    with runner:
        assert not runner.captured
        eager = runner.run(inputs, Timings())
        assert runner.captured
        other = runner.run(others, Timings())
        replayed = runner.run(inputs, Timings())
    np.testing.assert_array_equal(replayed.image, eager.image)
    np.testing.assert_array_equal(replayed.alpha, eager.alpha)
    assert not np.array_equal(other.image, eager.image)


@pytest.mark.parametrize("backend", CAPTURING)
def test_a_frame_is_one_launch_and_allocates_nothing(
    gpu: GpuMachine,
    runner_of: Callable[[str, str], tuple[GpuFrameRunner, FrameProgram]],
    backend: str,
) -> None:
    runner, program = runner_of("sdtalk", backend)
    inputs = inputs_of(program, 1)
    with runner:
        runner.run(inputs, Timings())
        gpu.driver.calls.clear()
        runner.run(inputs, Timings())
        calls = dict(gpu.driver.calls)
    assert calls == {"cuGraphLaunch": 1, "cuStreamSynchronize": 1}


def test_frames_of_onnxruntime_are_not_recorded(
    runner_of: Callable[[str, str], tuple[GpuFrameRunner, FrameProgram]],
) -> None:
    runner, program = runner_of("sdtalk", "onnxruntime-cuda")
    with runner:
        runner.run(inputs_of(program, 1), Timings())
        assert not runner.captured


def test_engines_that_cannot_be_recorded_make_the_same_frames(
    gpu: GpuMachine, all_bundles: dict[str, Path]
) -> None:
    recorded = frames_of(all_bundles["instag"], "tensorrt-rtx", CLIP)
    gpu.rtx.capturable = False
    gpu.driver.calls.clear()
    assert_same(frames_of(all_bundles["instag"], "tensorrt-rtx", CLIP), recorded)
    assert gpu.driver.calls["cuStreamBeginCapture"] == 0


@pytest.mark.parametrize("backend", GPU_BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_streaming_is_offline_bit_for_bit(
    gpu: GpuMachine, all_bundles: dict[str, Path], family: str, backend: str
) -> None:
    with talksplat.load(all_bundles[family], backend, 1) as avatar:
        with avatar.session() as session:
            offline = list(speak(session, CLIP))
        for chunk in (97, 640, 1801):
            with avatar.session() as session:
                assert_same(stream(session, chunk), offline)


def stream(session: Session, chunk: int) -> list[Frame]:
    frames = []
    for start in range(0, len(CLIP), chunk):
        session.push(CLIP[start : start + chunk])
        frames += session.frames()
    session.end()
    return [*frames, *session.frames()]


@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_sessions_at_once_do_not_disturb_each_other(
    gpu: GpuMachine, all_bundles: dict[str, Path], backend: str
) -> None:
    speeches = [CLIP, speech_like(640 * FRAMES, seed=5), speech_like(640 * FRAMES, seed=6)]
    with talksplat.load(all_bundles["d3talker"], backend, 1) as avatar:
        alone = []
        for pcm in speeches:
            with avatar.session() as session:
                alone.append(list(speak(session, pcm)))
        together: list[list[Frame]] = [[] for _ in speeches]
        failures: list[BaseException] = []

        def run(number: int) -> None:
            try:
                with avatar.session() as session:
                    together[number] = list(speak(session, speeches[number]))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures
    for found, expected in zip(together, alone, strict=True):
        assert_same(found, expected)


def test_sessions_that_alternate_in_one_thread_do_not_disturb_each_other(
    gpu: GpuMachine, all_bundles: dict[str, Path], on_the_cpu: dict[str, list[Frame]]
) -> None:
    with talksplat.load(all_bundles["sdtalk"], "tensorrt", 1) as avatar:
        with avatar.session() as one, avatar.session() as other:
            other_speech = speech_like(640 * FRAMES, seed=5)
            mixed = list(zip(speak(one, CLIP), speak(other, other_speech), strict=True))
        with avatar.session() as alone:
            assert_same([frame for frame, _ in mixed], list(speak(alone, CLIP)))
    assert not np.array_equal(mixed[1][0].image, mixed[1][1].image)


@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_a_background_is_taken_up_when_it_changes_and_only_then(
    gpu: GpuMachine,
    runner_of: Callable[[str, str], tuple[GpuFrameRunner, FrameProgram]],
    backend: str,
) -> None:
    runner, program = runner_of("talkinggaussian", backend)
    inputs = inputs_of(program, 1)
    white = {**inputs, "background": np.full((HEIGHT, WIDTH, 3), 255, np.uint8)}
    with runner:
        first = runner.run(inputs, Timings())
        uploads = []
        for frame in (inputs, white, white, inputs):
            gpu.driver.calls.clear()
            found = runner.run(frame, Timings())
            # The small inputs' upload is a call where frames are not recorded.
            uploads.append(gpu.driver.calls["cuMemcpyHtoDAsync"] - (not runner.captured))
            same = np.array_equal(found.image, first.image)
            assert same == (frame is inputs)
    assert uploads == [0, 1, 0, 1]


@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_frames_on_the_device_are_those_on_the_host_and_stay(
    gpu: GpuMachine, all_bundles: dict[str, Path], backend: str
) -> None:
    path = all_bundles["d3talker"]
    on_the_host = frames_of(path, backend, CLIP)
    on_the_device = frames_of(path, backend, CLIP, frames="device")
    # Session and avatar are closed; the arrays are not.
    for found, expected in zip(on_the_device, on_the_host, strict=True):
        assert found.image.shape == (HEIGHT, WIDTH, 3) and found.alpha.shape == (HEIGHT, WIDTH)
        assert found.image.__dlpack_device__() == (2, 0)
        interface = found.image.__cuda_array_interface__
        assert interface["typestr"] == "|u1" and interface["stream"] is None
        np.testing.assert_array_equal(found.image.numpy(), expected.image)
        np.testing.assert_array_equal(found.alpha.numpy(), expected.alpha)
    assert gpu.driver.alive() == {"memory": FRAMES}
    on_the_device.clear()
    del found
    assert not gpu.driver.alive()


def test_constants_are_taken_up_once_for_all_sessions(
    gpu: GpuMachine, all_bundles: dict[str, Path]
) -> None:
    with talksplat.load(all_bundles["d3talker"], "tensorrt-rtx", 1) as avatar:
        constants = len(only_frame(avatar).constants)
        gpu.driver.calls.clear()
        with avatar.session():
            uploads = gpu.driver.calls["cuMemcpyHtoDAsync"]
    assert 0 < uploads < constants


def test_a_closed_avatar_leaves_nothing_on_the_device(
    gpu: GpuMachine, all_bundles: dict[str, Path]
) -> None:
    for backend in GPU_BACKENDS:
        avatar = talksplat.load(all_bundles["sdtalk"], backend, 1)
        session = avatar.session()
        assert gpu.driver.alive()
        avatar.close()
        avatar.close()
        session.close()
        assert not gpu.driver.alive()


@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_an_avatar_that_is_dropped_leaves_nothing_on_the_device(
    gpu: GpuMachine, all_bundles: dict[str, Path], backend: str
) -> None:
    avatar: Avatar | None = talksplat.load(all_bundles["d3talker"], backend, 1)
    assert avatar is not None
    session: Session | None = avatar.session()
    assert session is not None and gpu.driver.alive()
    avatar = session = None
    gc.collect()
    assert not gpu.driver.alive()


@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_inputs_that_do_not_fit_are_refused_and_the_runner_goes_on(
    runner_of: Callable[[str, str], tuple[GpuFrameRunner, FrameProgram]], backend: str
) -> None:
    runner, program = runner_of("sdtalk", backend)
    inputs = inputs_of(program, 1)
    wrong = inputs["eyes"].astype(np.float64)
    with runner:
        expected = runner.run(inputs, Timings())
        with pytest.raises(BackendError, match=r"'eyes' expects float32 \[1, 6\], found float64"):
            runner.run({**inputs, "eyes": wrong}, Timings())
        with pytest.raises(BackendError, match="Expected an input 'eyes', found none"):
            runner.run({name: inputs[name] for name in inputs if name != "eyes"}, Timings())
        found = runner.run(inputs, Timings())
    np.testing.assert_array_equal(found.image, expected.image)


@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_the_time_of_a_frame_is_counted_as_one_stage(
    gpu: GpuMachine, all_bundles: dict[str, Path], backend: str
) -> None:
    frames = frames_of(all_bundles["sdtalk"], backend, CLIP)
    assert all(frame.timings["frame"] > 0 for frame in frames)


@pytest.mark.parametrize("backend", CAPTURING)
def test_what_turns_out_not_to_be_recordable_is_said_and_makes_the_same_frames(
    gpu: GpuMachine,
    all_bundles: dict[str, Path],
    caplog: pytest.LogCaptureFixture,
    backend: str,
) -> None:
    recorded = frames_of(all_bundles["sdtalk"], backend, CLIP)
    assert not caplog.records
    gpu.tensorrt.refuses_capture = gpu.rtx.refuses_capture = True
    assert_same(frames_of(all_bundles["sdtalk"], backend, CLIP), recorded)
    assert "cannot be recorded" in caplog.text and "while the stream is captured" in caplog.text


def test_kernels_that_were_compiled_on_the_device_are_kept(
    gpu: GpuMachine, all_bundles: dict[str, Path]
) -> None:
    first = frames_of(all_bundles["sdtalk"], "tensorrt-rtx", CLIP)
    graphs = 3
    assert (len(kept_kernels()), gpu.rtx.kernels_found) == (graphs, 0)
    assert_same(frames_of(all_bundles["sdtalk"], "tensorrt-rtx", CLIP), first)
    assert gpu.rtx.kernels_found == graphs
    assert len(kept_kernels()) == graphs
    for file in kept_kernels():
        file.write_bytes(b"damaged")
    assert_same(frames_of(all_bundles["sdtalk"], "tensorrt-rtx", CLIP), first)
    assert gpu.rtx.kernels_found == graphs


def kept_kernels() -> list[Path]:
    cache = EngineCache()
    entries = [entry for entry in cache.entries() if entry.label.endswith(", kernels")]
    return [cache.folder / cache.file_of(entry) for entry in entries]


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(
    gpu: GpuMachine,
    all_bundles: dict[str, Path],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = frames_of(all_bundles["sdtalk"], "tensorrt-rtx", CLIP)

    def refuse(*arguments: Any) -> None:
        raise OutputError("the disk is full")

    EngineCache().clear()
    talksplat.load(all_bundles["sdtalk"], "tensorrt-rtx", 1).close()
    monkeypatch.setattr(EngineCache, "store", refuse)
    assert_same(frames_of(all_bundles["sdtalk"], "tensorrt-rtx", CLIP), first)
    assert "are not kept: the disk is full" in caplog.text


def test_frames_on_the_device_take_their_memory_from_dropped_ones(
    gpu: GpuMachine, all_bundles: dict[str, Path]
) -> None:
    with (
        talksplat.load(all_bundles["d3talker"], "tensorrt-rtx", 1) as avatar,
        avatar.session(frames="device") as session,
    ):
        session.push(CLIP)
        session.end()
        frames = session.frames()
        images = [next(frames).image.numpy() for _ in range(3)]
        gpu.driver.calls.clear()
        images += [frame.image.numpy() for frame in frames]
        assert not {"cuMemAlloc", "cuMemFree"} & set(gpu.driver.calls)
    expected = frames_of(all_bundles["d3talker"], "tensorrt-rtx", CLIP)
    for found, frame in zip(images, expected, strict=True):
        np.testing.assert_array_equal(found, frame.image)


def test_memory_is_given_to_another_frame_only_when_every_view_of_it_is_dropped(
    gpu: GpuMachine,
    all_bundles: dict[str, Path],
) -> None:
    avatar = talksplat.load(all_bundles["sdtalk"], "tensorrt-rtx", 1)
    program = families.frame_program(Bundle.open(all_bundles["sdtalk"]))
    runner = only_frame(avatar).runner("device")
    first = runner.run(inputs_of(program, 1), Timings())
    expected, capsule, alpha = first.image.numpy(), first.image.__dlpack__(), first.alpha
    pointer = first.image.pointer
    del first
    held = [runner.run(inputs_of(program, seed), Timings()) for seed in range(2, 6)]
    assert pointer not in {picture.image.pointer for picture in held}
    del alpha
    held.append(runner.run(inputs_of(program, 6), Timings()))
    assert pointer not in {picture.image.pointer for picture in held}
    del capsule
    again = runner.run(inputs_of(program, 1), Timings())
    assert again.image.pointer == pointer
    np.testing.assert_array_equal(again.image.numpy(), expected)
    # Those that are still held when runner and avatar are closed are freed when they are dropped.
    avatar.close()
    runner.close()
    held.append(again)
    assert gpu.driver.alive() == {"memory": len(held)}
    del again
    while held:
        assert gpu.driver.alive() == {"memory": len(held)}
        del held[-1]
    assert not gpu.driver._contexts


@pytest.mark.parametrize("backend", GPU_BACKENDS)
def test_work_of_others_on_the_default_stream_is_done_before_memory_is_used_again(
    gpu: GpuMachine, all_bundles: dict[str, Path], backend: str
) -> None:
    program = families.frame_program(Bundle.open(all_bundles["sdtalk"]))
    with (
        talksplat.load(all_bundles["sdtalk"], backend, 1) as avatar,
        only_frame(avatar).runner("device") as runner,
    ):
        first = runner.run(inputs_of(program, 1), Timings())
        expected, pointer = first.image.numpy(), first.image.pointer
        seen = []
        with only_frame(avatar).device.current():
            view = gpu.driver.view
            gpu.driver.enqueue(1, lambda: seen.append(view(pointer, expected.shape, "u1").copy()))
        del first
        assert runner.run(inputs_of(program, 2), Timings()).image.pointer == pointer
    np.testing.assert_array_equal(seen[0], expected)


@pytest.mark.parametrize("backend", GPU_BACKENDS)
@pytest.mark.parametrize("goes_on", [True, False])
def test_a_frame_that_was_interrupted_is_waited_for(
    gpu: GpuMachine,
    runner_of: Callable[[str, str], tuple[GpuFrameRunner, FrameProgram]],
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    goes_on: bool,
) -> None:
    def interrupt(call: GpuCall) -> None:
        raise KeyboardInterrupt

    runner, program = runner_of("sdtalk", backend)
    expected = runner.run(inputs_of(program, 1), Timings())
    with monkeypatch.context() as patch:
        patch.setattr(GpuCall, "finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            runner.run(inputs_of(program, 2), Timings())
    if goes_on:
        fill = InputBlock.fill

        def check(block: InputBlock, inputs: Any) -> None:
            with runner._device.current():
                assert not gpu.driver._copies_to_come()
            fill(block, inputs)

        monkeypatch.setattr(InputBlock, "fill", check)
        found = runner.run(inputs_of(program, 1), Timings())
        np.testing.assert_array_equal(found.image, expected.image)
    runner.close()
    assert not gpu.driver.freed_in_use
