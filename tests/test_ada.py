"""The shipped avatar, the whole way: checkpoint → bundle → frames → video."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

import talksplat
from talksplat.cli import main
from talksplat_export.export import export_checkpoint

ROOT = Path(__file__).parent.parent
CHECKPOINT = ROOT / "samples/avatars/ada.pt"
SPEECH = ROOT / "samples/speech/hello.wav"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "ada.avatar"
    export_checkpoint(CHECKPOINT, path)
    return path


@pytest.fixture(scope="module")
def avatar(bundle: Path) -> talksplat.Avatar:
    return talksplat.load(bundle)


def test_the_bundle_draws_what_the_checkpoint_draws(avatar: talksplat.Avatar) -> None:
    parity = avatar.manifest.parity
    assert parity is not None
    assert parity.frames_psnr_db is None or parity.frames_psnr_db >= 50


@pytest.mark.parametrize("chunk", [1, 160, 640, 4000, 16000])
def test_streamed_frames_are_those_of_offline(avatar: talksplat.Avatar, chunk: int) -> None:
    pcm = talksplat.read_audio(SPEECH)[: 640 * 12 + 100]

    def frames(size: int) -> list[np.ndarray]:
        images = []
        with avatar.session() as session:
            for start in range(0, len(pcm), size):
                session.push(pcm[start : start + size])
                images += [frame.image for frame in session.frames()]
            session.end()
            images += [frame.image for frame in session.frames()]
        return images

    offline = frames(len(pcm))
    streamed = frames(chunk)
    assert len(offline) == len(streamed) == 13
    for one, other in zip(offline, streamed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_mouth_opens_with_the_speech(avatar: talksplat.Avatar) -> None:
    def frames(pcm: np.ndarray) -> np.ndarray:
        with avatar.session() as session:
            session.push(pcm)
            session.end()
            return np.stack([frame.image for frame in session.frames()]).astype(int)

    pcm = talksplat.read_audio(SPEECH)
    speaking, silent = frames(pcm), frames(np.zeros_like(pcm))
    # Same poses and blinks: whatever differs, the speech did, and it did it below the nose.
    change = np.abs(speaking - silent).mean(axis=(0, 3))
    assert change[300:420, 180:340].mean() > 20 * change[60:200].mean()
    assert np.abs(speaking - silent).max() > 60


def test_run_writes_a_video_with_its_sound(bundle: Path, tmp_path: Path) -> None:
    video = tmp_path / "ada.mp4"
    assert main(["run", str(bundle), str(SPEECH), "-o", str(video)]) == 0
    with av.open(video) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        assert (picture.codec_context.name, sound.codec_context.name) == ("h264", "aac")
        assert (picture.codec_context.width, picture.codec_context.height) == (512, 512)
        assert picture.average_rate == 25
        lengths = [float(stream.duration * stream.time_base) for stream in (picture, sound)]
    frames = -(-len(talksplat.read_audio(SPEECH)) // 640)
    assert abs(lengths[0] - frames / 25) < 1e-6
    assert abs(lengths[0] - lengths[1]) <= 1 / 25
