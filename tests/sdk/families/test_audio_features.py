"""Windows over audio: placed at absolute frame numbers, zero beyond both ends of a clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic_bundle import BLOCKS, speech_like, synthetic_manifest

from talksplat.families.audio_features import EncodedFeatures
from talksplat.manifest import AudioContract, GraphSpec, WindowContract
from talksplat.ring import Ring
from talksplat.timings import Timings

Array = NDArray[np.float32]

WINDOWS = {
    "deepspeech": WindowContract(4, 3, 16, 8),
    "hubert": WindowContract(4, 3, 2, 0),
    "sdtalk": WindowContract(0, 0, 16, 8),
    "wide": WindowContract(1, 6, 5, 1),
}


class MeanEncoder:
    """An engine whose token t is (mean, first sample) of its own 320 samples: easy to foresee."""

    spec: GraphSpec

    def runner(self) -> MeanEncoder:
        return self

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, Array]:
        pcm = np.asarray(inputs["pcm"], np.float32)[0]
        # Blocks reach 800 samples beyond their own, tokens 2: the outer 160 samples are not used.
        tokens = pcm[160:-160].reshape(-1, 320)
        return {"features": np.stack([tokens.mean(axis=1), tokens[:, 0]], axis=1)[None]}

    def close(self) -> None:
        pass

    def __enter__(self) -> MeanEncoder:
        return self

    def __exit__(self, *error: object) -> None:
        pass


AUDIO: AudioContract = replace(synthetic_manifest().audio, feature_size=2)


def expected_window(pcm: Array, frames: int, frame: int, window: WindowContract) -> Array:
    """From the definition: token by token."""
    padded = np.pad(pcm, (0, frames * 640 - len(pcm)))
    own = padded.reshape(-1, 320)
    tokens = np.stack([own.mean(axis=1), own[:, 0]], axis=1)
    heard = np.zeros((window.frames, window.tokens, 2), np.float32)
    for row in range(window.frames):
        position = frame - window.frames_before + row
        if not 0 <= position < frames:
            continue
        for column in range(window.tokens):
            token = 2 * position - window.tokens_before + column
            if 0 <= token < len(tokens):
                heard[row, column] = tokens[token]
    return heard


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("samples", [1, 640, 4000, 12 * 640, 12 * 640 + 1])
def test_every_window_of_a_clip(name: str, samples: int) -> None:
    window, pcm = WINDOWS[name], speech_like(samples)
    audio = EncodedFeatures(MeanEncoder(), AUDIO, BLOCKS, window)
    ring = Ring(())
    audio.reset(ring)
    ring.append(pcm)
    frames = -(-samples // 640)
    for frame in range(frames):
        audio.listen(frame, frames, Timings())
        found = audio.window(frame)
        expected = expected_window(pcm, frames, frame, window)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)
        audio.forget(frame + 1)


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_needs_no_more_than_it_says(name: str) -> None:
    """A window is final as soon as the samples it asks for are there."""
    window, pcm = WINDOWS[name], speech_like(40 * 640)
    for frame in (0, 1, 2, 5, 11):
        audio = EncodedFeatures(MeanEncoder(), AUDIO, BLOCKS, window)
        ring = Ring(())
        audio.reset(ring)
        ring.append(pcm[: audio.samples_needed(frame)])
        for before in range(frame + 1):
            audio.listen(before, None, Timings())
        expected = expected_window(pcm, 40, frame, window)
        np.testing.assert_allclose(audio.window(frame), expected, rtol=0, atol=1e-7)
        assert audio.samples_needed(frame) - (frame + 1) * 640 <= audio.look_ahead_samples


def test_what_later_frames_need_further_on_is_encoded_too() -> None:
    near = EncodedFeatures(MeanEncoder(), AUDIO, BLOCKS, WINDOWS["hubert"])
    far = EncodedFeatures(MeanEncoder(), AUDIO, BLOCKS, WINDOWS["hubert"], frames_after=9)
    assert far.samples_needed(0) == 12 * 640 + 800  # frame 9 is in the fourth block of three
    assert near.samples_needed(0) == 6 * 640 + 800  # frame 3 is in the second


def test_memory_is_bounded() -> None:
    audio = EncodedFeatures(MeanEncoder(), AUDIO, BLOCKS, WINDOWS["deepspeech"])
    ring = Ring(())
    audio.reset(ring)
    for frame in range(300):
        ring.append(np.zeros(640, np.float32))
        if ring.end >= audio.samples_needed(frame - 15 if frame > 15 else 0):
            audio.listen(max(frame - 15, 0), None, Timings())
            audio.forget(max(frame - 15, 0) + 1)
            ring.forget(audio.oldest_sample())
    assert ring.end - ring.start < 30 * 640
    assert audio._tokens.end - audio._tokens.start < 60
