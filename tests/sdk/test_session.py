"""Sessions: the same frames however audio is cut, exact time, clean interrupts."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from synthetic_bundle import BLOCK_FRAMES, HEIGHT, RIGHT_SAMPLES, WIDTH, speech_like

import talksplat
from talksplat.errors import BackendError, InputError
from talksplat.session import Frame, Session
from talksplat.speech import frame_count, speak
from talksplat.video import encode_png

Samples = NDArray[np.float32]

FRAME = 640
CLIP = speech_like(31 * FRAME + 100)


def stream(session: Session, pcm: Samples, chunk: int) -> list[Frame]:
    frames = []
    for start in range(0, len(pcm), chunk):
        session.push(pcm[start : start + chunk])
        frames += session.frames()
    session.end()
    return [*frames, *session.frames()]


def assert_same(found: list[Frame], expected: list[Frame]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.index, one.pts) == (other.index, other.pts)
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.alpha, other.alpha)
        np.testing.assert_array_equal(one.audio, other.audio)


@pytest.fixture(scope="module")
def offline(avatar: talksplat.Avatar) -> list[Frame]:
    with avatar.session() as session:
        return list(speak(session, CLIP))


def test_offline_gives_every_frame_with_its_sound(offline: list[Frame]) -> None:
    assert len(offline) == 32 == frame_count(len(CLIP), 25)
    assert [frame.pts for frame in offline] == [FRAME * index for index in range(32)]
    sound = np.concatenate([frame.audio for frame in offline])
    np.testing.assert_array_equal(sound[: len(CLIP)], CLIP)
    assert not sound[len(CLIP) :].any()
    for frame in offline:
        assert frame.image.shape == (HEIGHT, WIDTH, 3) and frame.image.dtype == np.uint8
        assert frame.alpha.shape == (HEIGHT, WIDTH)
        assert 0 <= frame.alpha.min() < frame.alpha.max() <= 1
    images = {frame.image.tobytes() for frame in offline}
    assert len(images) == 32, "every frame moves"


@pytest.mark.parametrize("chunk", [1, 160, 640, 4000, 16000])
def test_streaming_equals_offline_bit_for_bit(
    avatar: talksplat.Avatar, offline: list[Frame], chunk: int
) -> None:
    with avatar.session() as session:
        assert_same(stream(session, CLIP, chunk), offline)


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(chunks=st.lists(st.integers(0, 3000), min_size=1, max_size=30), take=st.lists(st.booleans()))
def test_any_cutting_and_any_taking_gives_the_same_frames(
    avatar: talksplat.Avatar, offline: list[Frame], chunks: list[int], take: list[bool]
) -> None:
    frames = []
    with avatar.session() as session:
        position = 0
        for number, chunk in enumerate(chunks):
            session.push(CLIP[position : position + chunk])
            position += chunk
            if number < len(take) and take[number]:
                frames += session.frames()
        session.push(CLIP[position:])
        session.end()
        frames += session.frames()
    assert_same(frames, offline)


@pytest.mark.parametrize("samples", [1, 160, 639, 640, 641, 2 * 640, 3 * 640, 5000])
def test_short_clips_stream_as_they_run_offline(avatar: talksplat.Avatar, samples: int) -> None:
    pcm = CLIP[:samples]
    with avatar.session() as one, avatar.session() as other:
        expected = list(speak(one, pcm))
        assert len(expected) == -(-samples // FRAME)
        assert_same(stream(other, pcm, 300), expected)


def test_every_sample_around_a_frame_matters(
    avatar: talksplat.Avatar, offline: list[Frame]
) -> None:
    """The windows do reach as far as the contract says: change audio, see which frames move."""
    changed = CLIP.copy()
    changed[16 * FRAME : 17 * FRAME] *= -1
    with avatar.session() as session:
        frames = list(speak(session, changed))
    moved = [
        index
        for index, (one, other) in enumerate(zip(frames, offline, strict=True))
        if (one.image != other.image).any()
    ]
    # Frame i hears tokens 2(i-4)-8 … 2(i+3)+7 of 50 per second, each from 160 samples before its
    # start to 480 after: from 8.25 frames before its start to 7.25 after it.
    assert moved[0] == 16 - 7 and moved[-1] == 16 + 9


def test_frames_come_as_soon_as_their_audio_is_there(avatar: talksplat.Avatar) -> None:
    with avatar.session() as session:
        # Frame 0 hears token 13, of frame 6, in block 6 // B.
        needed = (6 // BLOCK_FRAMES + 1) * BLOCK_FRAMES * FRAME + RIGHT_SAMPLES
        assert session.first_frame_samples == needed
        session.push(np.zeros(needed - 1, np.float32))
        assert list(session.frames()) == []
        session.push(np.zeros(1, np.float32))
        assert [frame.index for frame in session.frames()] == list(range(BLOCK_FRAMES))
        pushed = needed
        for _ in range(20):
            session.push(np.zeros(FRAME, np.float32))
            pushed += FRAME
            list(session.frames())
            behind = pushed - session._next * FRAME
            assert behind <= session.look_ahead_samples + FRAME


def test_timings_name_every_stage(offline: list[Frame]) -> None:
    stages = {name for frame in offline for name in frame.timings}
    assert stages == {
        "audio_encoder", "audio_to_motion", "pncc", "motion_encoder", "motion", "rasterize",
        "refiner", "output",
    }  # fmt: skip
    assert all(frame.timings.total > 0 for frame in offline)


def test_int16_is_the_same_sound(avatar: talksplat.Avatar) -> None:
    integers = (CLIP * 32767).astype(np.int16)
    floats = integers.astype(np.float32) / np.float32(32768)
    with avatar.session() as one, avatar.session() as other:
        assert_same(list(speak(one, integers)), list(speak(other, floats)))


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 3), np.float32),
        np.zeros(3, np.int64),
        np.array([0, np.nan], np.float32),
        np.array([np.inf], np.float32),
        np.array(["a"]),
    ],
)
def test_push_refuses_what_is_no_sound(avatar: talksplat.Avatar, bad: NDArray[np.generic]) -> None:
    with avatar.session() as session, pytest.raises(InputError, match="push expects"):
        session.push(bad)


def test_interrupt_leaves_nothing_of_the_old_utterance(
    avatar: talksplat.Avatar, offline: list[Frame]
) -> None:
    with avatar.session() as session:
        session.push(CLIP)
        frames = session.frames()
        shown = [next(frames) for _ in range(5)]
        session.interrupt()
        assert next(frames, None) is None, "an iterator in progress stops too"
        assert list(session.frames()) == []
        second = speech_like(20 * FRAME, seed=1)
        after = list(speak(session, second))
    assert_same(shown, offline[:5])
    assert [frame.index for frame in after] == list(range(5, 25))
    assert [frame.pts for frame in after] == [FRAME * index for index in range(5, 25)]
    np.testing.assert_array_equal(np.concatenate([frame.audio for frame in after]), second)


def test_an_utterance_after_an_interrupt_is_as_in_a_fresh_session(
    avatar: talksplat.Avatar,
) -> None:
    # With one pose throughout, nothing but the audio tells the frames apart.
    still = avatar._family.scene.viewmats.rows[:1]
    period = 2 * (len(avatar._family.scene.upper_face.rows) - 1)
    with avatar.session(pose=still) as fresh:
        expected = list(speak(fresh, CLIP))
    with avatar.session(pose=still) as session:
        session.push(speech_like(40 * FRAME, seed=2))
        frames = session.frames()
        for _ in range(period):
            next(frames)
        session.interrupt()
        found = list(speak(session, CLIP))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_utterances_follow_each_other(avatar: talksplat.Avatar) -> None:
    with avatar.session() as session:
        first = list(speak(session, CLIP[: 3 * FRAME]))
        second = list(speak(session, CLIP[: 4 * FRAME]))
    assert [frame.index for frame in [*first, *second]] == list(range(7))
    assert second[0].pts == 3 * FRAME


def test_pushing_before_the_ended_utterance_was_taken_is_refused(
    avatar: talksplat.Avatar,
) -> None:
    with avatar.session() as session:
        session.push(CLIP)
        session.end()
        with pytest.raises(InputError, match="interrupt"):
            session.push(CLIP)
        session.interrupt()
        session.push(CLIP)


def test_nothing_pushed_is_nothing_shown(avatar: talksplat.Avatar) -> None:
    with avatar.session() as session:
        assert list(session.frames()) == []
        session.push(np.zeros(0, np.float32))
        session.end()
        assert list(session.frames()) == []


def test_a_closed_session_says_so(avatar: talksplat.Avatar) -> None:
    session = avatar.session()
    session.close()
    session.close()
    for use in (
        lambda: session.push(CLIP),
        lambda: list(session.frames()),
        session.end,
        session.interrupt,
    ):
        with pytest.raises(InputError, match="closed"):
            use()


@pytest.mark.parametrize("fps", [1, 10, 24, 30, 50, 60])
def test_other_frame_rates_repeat_or_leave_out_frames(avatar: talksplat.Avatar, fps: int) -> None:
    still = avatar._family.scene.viewmats.rows[:1]
    with avatar.session(pose=still) as session:
        at_25 = list(speak(session, CLIP))
    with avatar.session(fps=fps, pose=still) as session:
        frames = stream(session, CLIP, 640)
    assert len(frames) == frame_count(len(CLIP), fps)
    assert [frame.pts for frame in frames] == [k * 16000 // fps for k in range(len(frames))]
    sound = np.concatenate([frame.audio for frame in frames])
    np.testing.assert_array_equal(sound[: len(CLIP)], CLIP)
    for k, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, at_25[k * 25 // fps].image)


def test_rates_out_of_range(avatar: talksplat.Avatar) -> None:
    for fps in (0, -25, 1000):
        with pytest.raises(InputError, match="fps"):
            avatar.session(fps=fps)
    with pytest.raises(InputError, match="look_ahead"):
        avatar.session(look_ahead="none")


def test_pose_moves_the_camera_and_background_is_seen(
    avatar: talksplat.Avatar, offline: list[Frame], tmp_path: Path
) -> None:
    away = np.diag([1.0, -1.0, -1.0, 1.0])[None].copy()
    away[0, 2, 3] = -5.0  # everything is behind the camera
    plate = np.random.default_rng(0).integers(0, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    picture = tmp_path / "plate.png"
    picture.write_bytes(encode_png(plate))
    with (
        avatar.session(pose=away, background=plate) as one,
        avatar.session(pose=away, background=picture) as other,
    ):
        (frame,) = speak(one, CLIP[:FRAME])
        (same,) = speak(other, CLIP[:FRAME])
    assert not frame.alpha.any()
    # The synthetic refiner brightens by 1.1; truncation may cost one step.
    expected = np.clip(plate * 1.1, 0, 255)
    assert np.abs(frame.image - expected).max() <= 1.01
    np.testing.assert_array_equal(frame.image, same.image)
    with pytest.raises(InputError, match="background"):
        avatar.session(background=plate[:-1])


def test_sessions_do_not_disturb_each_other(avatar: talksplat.Avatar, offline: list[Frame]) -> None:
    results: dict[int, list[Frame]] = {}

    def work(number: int) -> None:
        with avatar.session() as session:
            results[number] = stream(session, CLIP, 640)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(3):
        assert_same(results[number], offline)


def test_frames_keep_their_pixels_after_later_frames(
    avatar: talksplat.Avatar, offline: list[Frame]
) -> None:
    with avatar.session() as session:
        frames = []
        copies = []
        for frame in speak(session, CLIP):
            frames.append(frame)
            copies.append((frame.image.copy(), frame.alpha.copy()))
    for frame, (image, alpha) in zip(frames, copies, strict=True):
        np.testing.assert_array_equal(frame.image, image)
        np.testing.assert_array_equal(frame.alpha, alpha)


def test_memory_stays_bounded_over_a_long_stream(avatar: talksplat.Avatar) -> None:
    with avatar.session() as session:
        for _ in range(1500):
            session.push(CLIP[:FRAME])
            list(session.frames())
        assert session._pcm.end - session._pcm.start < 20 * FRAME


def test_threads_do_not_change_the_picture(bundle_path: Path, offline: list[Frame]) -> None:
    with talksplat.load(bundle_path, threads=1).session() as session:
        found = list(speak(session, CLIP))
    for one, other in zip(found, offline, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_backends_that_are_not_there_say_what_to_do(bundle_path: Path) -> None:
    for name in ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda"):
        with pytest.raises(BackendError, match="onnxruntime-cpu"):
            talksplat.load(bundle_path, backend=name)
    with pytest.raises(BackendError, match="Unknown backend"):
        talksplat.load(bundle_path, backend="magic")
    with pytest.raises(InputError, match="threads"):
        talksplat.load(bundle_path, threads=0)
