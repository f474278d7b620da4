"""Any sound file becomes 16 kHz mono; anything else becomes an AudioError."""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from talksplat import audio
from talksplat.audio import read_audio, resample
from talksplat.errors import AudioError

FloatArray = NDArray[np.float64]


def tone(rate: int, seconds: float = 0.5) -> FloatArray:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_every_rate_gives_the_same_tone_at_the_same_time(rate: int) -> None:
    heard = resample(tone(rate).astype(np.float32), rate)
    expected = tone(16000)
    assert abs(len(heard) - len(expected)) <= 1
    # The resampler's window reaches over the ends, where the tone begins and stops.
    inner = slice(200, len(heard) - 200)
    assert np.abs(heard[inner] - expected[: len(heard)][inner]).max() < 1e-4


@pytest.mark.parametrize("seconds", [0.01, 1.0, 5.0])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_resampled_length_is_exact(rate: int, seconds: float) -> None:
    samples = round(rate * seconds)
    heard = resample(np.zeros(samples, np.float32), rate)
    assert len(heard) == -(-samples * 16000 // rate)


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        (".wav", "PCM_U8", 2 / 256),
        (".wav", "PCM_16", 1e-4),
        (".wav", "PCM_24", 1e-6),
        (".wav", "PCM_32", 1e-6),
        (".wav", "FLOAT", 1e-6),
        (".wav", "DOUBLE", 1e-6),
        (".flac", "PCM_16", 1e-4),
        (".ogg", "VORBIS", 0.05),
    ],
)
def test_every_sample_format(tmp_path: Path, suffix: str, subtype: str, tolerance: float) -> None:
    path = tmp_path / f"tone{suffix}"
    soundfile.write(path, tone(16000), 16000, subtype=subtype)
    heard = read_audio(path)
    assert heard.dtype == np.float32
    assert np.abs(heard - tone(16000)).max() < tolerance


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "seven.wav"
    channels = np.arange(7) * 0.1 * np.ones((800, 1))
    soundfile.write(path, channels, 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path), 0.3, atol=1e-6)


def test_seven_channels_at_96_khz(tmp_path: Path) -> None:
    path = tmp_path / "seven.wav"
    soundfile.write(path, np.repeat(tone(96000)[:, None], 7, axis=1), 96000, subtype="PCM_24")
    assert len(read_audio(path)) == 8000


def test_a_hundredth_of_a_second_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "short.wav"
    soundfile.write(path, tone(16000, 0.01), 16000)
    assert len(read_audio(path)) == 160


def test_loud_float_files_are_clipped(tmp_path: Path) -> None:
    path = tmp_path / "loud.wav"
    soundfile.write(path, 4 * tone(16000), 16000, subtype="FLOAT")
    assert np.abs(read_audio(path)).max() == 1.0


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="found nothing"):
        read_audio(tmp_path / "none.wav")
    with pytest.raises(AudioError):
        read_audio(tmp_path)


def test_empty_wav(tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.zeros(0), 16000)
    with pytest.raises(AudioError, match="no samples"):
        read_audio(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_named_with_their_time(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "bad.wav"
    samples = tone(16000)
    samples[4000] = bad
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"0\.250 s"):
        read_audio(path)


@pytest.mark.parametrize("name", ["speech.wav", "speech.raw", "speech.mp3", "speech"])
@pytest.mark.parametrize(
    "data", [b"", b"RIFF", b"not audio at all" * 100, pickle.dumps({"a": 1}), bytes(4096)]
)
def test_what_is_not_audio(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(AudioError):
        read_audio(path)


def test_absurd_duration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "MAX_SECONDS", 1)
    path = tmp_path / "long.wav"
    soundfile.write(path, tone(16000, 10.0), 16000)
    with pytest.raises(AudioError, match="longer than"):
        read_audio(path)


@pytest.mark.parametrize("rate", [1, 999, 10**6])
def test_absurd_rates(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "rate.wav"
    soundfile.write(path, np.zeros(100), rate)
    with pytest.raises(AudioError, match="sample rate"):
        read_audio(path)


def test_a_header_that_claims_hours_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "claims.wav"
    soundfile.write(path, tone(16000, 0.1), 16000)
    data = bytearray(path.read_bytes())
    data[40:44] = (2**31).to_bytes(4, "little")  # size of the data chunk
    path.write_bytes(data)
    assert len(read_audio(path)) == 1600


def sound_bytes(container: str) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, np.stack([tone(22050, 0.1)] * 2, axis=1), 22050, format=container)
    return stream.getvalue()


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    container=st.sampled_from(["WAV", "FLAC", "OGG"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4),
    cut=st.sampled_from([0, 0, 1, 100, 3000]),
)
def test_any_change_of_a_sound_file(
    tmp_path: Path, container: str, changes: list[tuple[float, int]], cut: int
) -> None:
    data = bytearray(sound_bytes(container))
    for position, value in changes:
        data[int(position**4 * len(data))] = value  # headers lie at the front
    path = tmp_path / f"fuzz.{container.lower()}"
    path.write_bytes(data[: len(data) - cut])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            heard = read_audio(path)
        except AudioError as error:
            assert str(error)
        else:
            assert len(heard) and np.isfinite(heard).all()
            assert np.abs(heard).max() <= 1
