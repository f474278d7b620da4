"""Sessions on a device: frames left there, a device that is lost, and what is closed when.

The device is an imaginary one: a backend on the CPU that hands out arrays as a GPU would.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic_bundle import HEIGHT, WIDTH, speech_like

import talksplat
from talksplat.backends import Array, Choice, FrameMemory, FrameRunner, Picture
from talksplat.backends.onnxruntime_cpu import OnnxRuntimeCpu
from talksplat.backends.split_frame import SplitFrame
from talksplat.bundle import Bundle
from talksplat.errors import BackendError, BundleError, DeviceLostError, InputError
from talksplat.frame_program import FrameProgram
from talksplat.session import Frame, Session
from talksplat.speech import speak
from talksplat.timings import Timings

CLIP = speech_like(12 * 640)


class Device:
    """Where the frames of :class:`ImaginaryGpu` are; breaks when ``frames_left`` are made."""

    def __init__(self) -> None:
        self.frames_left = 10_000
        self.lost = False
        self.open_runners = 0
        self.closed = 0

    def check(self) -> None:
        if self.lost:
            raise DeviceLostError("The imaginary GPU was lost (a test); load the avatar again.")


class ArrayOnDevice:
    def __init__(self, array: NDArray[Any], device: Device) -> None:
        self.array, self.device = array, device
        self.shape, self.dtype = array.shape, array.dtype

    def numpy(self) -> NDArray[Any]:
        self.device.check()
        return self.array.copy()


class ImaginaryRunner:
    def __init__(self, runner: FrameRunner, device: Device, memory: FrameMemory) -> None:
        self._runner, self._device, self._memory = runner, device, memory
        self._closed = False
        device.open_runners += 1

    def run(self, inputs: Mapping[str, Array], timings: Timings) -> Picture:
        assert not self._closed
        self._device.lost |= self._device.frames_left == 0
        self._device.check()
        self._device.frames_left -= 1
        picture = self._runner.run(inputs, timings)
        if self._memory == "host":
            return picture
        return Picture(
            ArrayOnDevice(picture.image, self._device), ArrayOnDevice(picture.alpha, self._device)
        )

    def close(self) -> None:
        self._device.open_runners -= not self._closed
        self._closed = True
        self._runner.close()


class ImaginaryEngine:
    def __init__(self, engine: SplitFrame, device: Device) -> None:
        self._engine, self._device = engine, device

    def runner(self, memory: FrameMemory = "host") -> ImaginaryRunner:
        self._device.check()
        return ImaginaryRunner(self._engine.runner(), self._device, memory)


class ImaginaryGpu(OnnxRuntimeCpu):
    name = "imaginary"

    def __init__(self, device: Device) -> None:
        super().__init__(threads=1)
        self._device = device

    def load_frame(self, bundle: Bundle, program: FrameProgram) -> ImaginaryEngine:
        return ImaginaryEngine(super().load_frame(bundle, program), self._device)

    def close(self) -> None:
        assert self._device.open_runners == 0, "runners are closed first"
        self._device.closed += 1


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def on_device(bundle_path: Path, device: Device) -> talksplat.Avatar:
    bundle = Bundle.open(bundle_path)
    return talksplat.Avatar(bundle, Choice(ImaginaryGpu(device), "asked for"), 1)


@pytest.fixture(scope="module")
def offline(avatar: talksplat.Avatar) -> list[Frame]:
    with avatar.session() as session:
        return list(speak(session, CLIP))


# Frames.


@pytest.mark.parametrize("memory", ["host", "device"])
def test_frames_are_the_same_wherever_they_are_left(
    on_device: talksplat.Avatar, offline: list[Frame], memory: FrameMemory
) -> None:
    with on_device.session(frames=memory) as session:
        frames = list(speak(session, CLIP))
    for found, expected in zip(frames, offline, strict=True):
        image, alpha = found.image, found.alpha
        if memory == "device":
            assert isinstance(image, ArrayOnDevice) and isinstance(alpha, ArrayOnDevice)
            image, alpha = image.numpy(), alpha.numpy()
        assert image.shape == (HEIGHT, WIDTH, 3) and alpha.shape == (HEIGHT, WIDTH)
        np.testing.assert_array_equal(image, expected.image)
        np.testing.assert_array_equal(alpha, expected.alpha)
        assert (found.index, found.pts) == (expected.index, expected.pts)


def test_a_frame_shown_again_is_the_same_array(on_device: talksplat.Avatar) -> None:
    with on_device.session(fps=50, frames="device") as session:
        frames = list(speak(session, CLIP))
    for first, again in zip(frames[::2], frames[1::2], strict=True):
        assert first.image is again.image and first.alpha is again.alpha
    assert len({id(frame.image) for frame in frames}) == len(frames) // 2


def test_frames_outlive_session_and_avatar(on_device: talksplat.Avatar) -> None:
    with on_device, on_device.session(frames="device") as session:
        frames = list(speak(session, CLIP))
    assert len({frame.image.numpy().tobytes() for frame in frames}) == len(frames)


@pytest.mark.parametrize("memory", ["gpu", "", None, 1])
def test_other_places_for_frames_are_refused(avatar: talksplat.Avatar, memory: Any) -> None:
    with pytest.raises(InputError, match="frames must be 'host' or 'device'"):
        avatar.session(frames=memory)


# A device that is lost.


def uses(session: Session) -> list[Any]:
    return [
        lambda: session.push(CLIP),
        lambda: list(session.frames()),
        session.end,
        session.interrupt,
    ]


@pytest.mark.parametrize("frames_before", [0, 1, 7])
def test_a_session_whose_device_is_lost_says_so_until_it_is_closed(
    on_device: talksplat.Avatar, device: Device, offline: list[Frame], frames_before: int
) -> None:
    session = on_device.session()
    device.frames_left = frames_before
    session.push(CLIP)
    session.end()
    frames = session.frames()
    for expected in offline[:frames_before]:
        np.testing.assert_array_equal(next(frames).image, expected.image)
    with pytest.raises(DeviceLostError, match="imaginary GPU was lost") as first:
        next(frames)
    assert next(frames, None) is None, "an iterator in progress ends"
    for use in uses(session):
        with pytest.raises(DeviceLostError) as again:
            use()
        assert str(again.value) == str(first.value)
    session.close()
    session.close()
    for use in uses(session):
        with pytest.raises(InputError, match="closed"):
            use()
    assert device.open_runners == 0


def test_after_a_lost_device_the_avatar_is_loaded_again(
    on_device: talksplat.Avatar, device: Device, bundle_path: Path, offline: list[Frame]
) -> None:
    lost, other = on_device.session(), on_device.session()
    device.frames_left = 0
    for session in (lost, other):  # one device: whoever comes next learns of it too
        session.push(CLIP)
        session.end()
        with pytest.raises(DeviceLostError):
            list(session.frames())
    with pytest.raises(DeviceLostError, match="load the avatar again"):
        on_device.session()
    on_device.close()
    assert device.closed == 1 and device.open_runners == 0
    choice = Choice(ImaginaryGpu(Device()), "asked for")
    with (
        talksplat.Avatar(Bundle.open(bundle_path), choice, 1) as avatar,
        avatar.session() as session,
    ):
        for found, expected in zip(speak(session, CLIP), offline, strict=True):
            np.testing.assert_array_equal(found.image, expected.image)


def test_a_device_that_is_lost_while_a_session_is_made(
    on_device: talksplat.Avatar, device: Device
) -> None:
    device.frames_left = 0  # the frame of silence is the first
    with pytest.raises(DeviceLostError):
        on_device.session()
    assert device.open_runners == 0, "nothing of the session is left"
    on_device.close()


@pytest.mark.parametrize("stage", ["frame", "audio"])
def test_a_frame_that_fails_ends_its_utterance_not_the_session(
    avatar: talksplat.Avatar, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Else what was half done would be missing in the frames that follow."""
    still = avatar._family.scene.viewmats.rows[:1]
    clip = speech_like(24 * 640)
    blinks = avatar._family.scene.upper_face.rows[:1]
    with avatar.session(pose=still, upper_face=blinks) as session:
        expected = list(speak(session, clip))
    with avatar.session(pose=still, upper_face=blinks) as session:
        stream = session._stream
        runner = stream._frame if stage == "frame" else stream._to_expression
        session.push(clip)
        session.end()
        frames = session.frames()
        shown = [next(frames) for _ in range(4)]
        with monkeypatch.context() as patch:
            patch.setattr(runner, "run", _fail)
            with pytest.raises(BackendError, match="failed once"):
                list(frames)
        assert list(session.frames()) == []
        after = list(speak(session, clip))
    made = after[0].index
    assert len(shown) <= made < len(clip) // 640
    assert [frame.index for frame in after] == list(range(made, made + len(expected)))
    for found, frame in zip(after, expected, strict=True):
        np.testing.assert_array_equal(found.image, frame.image)


def _fail(*arguments: object) -> None:
    raise BackendError("failed once")


# What is closed when.


def test_closing_an_avatar_closes_its_sessions(on_device: talksplat.Avatar, device: Device) -> None:
    sessions = [on_device.session(frames="device") for _ in range(3)]
    sessions[0].close()
    on_device.close()
    on_device.close()
    assert device.closed == 1
    for session in sessions:
        with pytest.raises(InputError, match="session is closed"):
            session.push(CLIP)
    with pytest.raises(InputError, match="avatar is closed"):
        on_device.session()


def test_an_avatar_does_not_keep_sessions_alive(
    on_device: talksplat.Avatar, device: Device
) -> None:
    on_device.session().close()
    gc.collect()
    assert len(on_device._sessions) == 0


def test_a_session_keeps_working_when_nobody_holds_its_avatar(
    bundle_path: Path, offline: list[Frame]
) -> None:
    choice = Choice(ImaginaryGpu(Device()), "asked for")
    session = talksplat.Avatar(Bundle.open(bundle_path), choice, 1).session()
    gc.collect()
    with session:
        for found, expected in zip(speak(session, CLIP), offline, strict=True):
            np.testing.assert_array_equal(found.image, expected.image)


def test_a_backend_is_closed_when_an_avatar_cannot_be_loaded(
    family_bundles: dict[str, Path], device: Device
) -> None:
    bundle = Bundle.open(family_bundles["sdtalk"])
    del bundle.manifest.graphs["refiner"]
    with pytest.raises(BundleError, match="needs a graph 'refiner'"):
        talksplat.Avatar(bundle, Choice(ImaginaryGpu(device), "asked for"), 1)
    assert device.closed == 1
