"""Speech in: any sound file that libsndfile reads, as 16 kHz mono float32."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from talksplat.errors import AudioError

SAMPLE_RATE = 16000
MAX_SECONDS = 2 * 3600
_RATES = (1000, 768_000)
_BLOCK = 65536

FloatArray = NDArray[np.float32]


def read_audio(path: str | Path) -> FloatArray:
    """Read a sound file (WAV, FLAC, OGG, MP3, ...; any sample format, rate and channel count).

    Channels are averaged, the result is resampled with FFmpeg's resampler, and peaks beyond ±1
    (float files may have them) are clipped as a player does.

    Returns:
        [S] float32 in -1..1 at 16 kHz, S at least 1.

    Raises:
        AudioError: no such file, not audio, empty, NaN or infinite samples, or too long.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioError(f"Expected a sound file at {path}, found nothing there to read.")
    try:
        with soundfile.SoundFile(path) as sound:
            if not _RATES[0] <= sound.samplerate <= _RATES[1]:
                raise AudioError(
                    f"{path} has a sample rate of {sound.samplerate} Hz; expected "
                    f"{_RATES[0]} to {_RATES[1]}."
                )
            mono = list(_mono_blocks(sound, path))
            rate = sound.samplerate
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        raise AudioError(
            f"{path} is not a sound file that can be read: {error}. Convert it to WAV."
        ) from error
    samples = np.concatenate(mono) if mono else np.zeros(0, np.float32)
    if not samples.size:
        raise AudioError(f"{path} holds no samples; expected at least one.")
    return resample(samples, rate).clip(-1.0, 1.0)


def resample(samples: FloatArray, rate: int) -> FloatArray:
    """Resample mono float32 from ``rate`` to 16 kHz; S samples become ceil(S · 16000 / rate)."""
    if rate == SAMPLE_RATE:
        return samples
    resampler = AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    pieces = []
    for start in range(0, len(samples), _BLOCK):
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[None, start : start + _BLOCK]), format="flt", layout="mono"
        )
        frame.sample_rate = rate
        frame.time_base = Fraction(1, rate)
        frame.pts = start
        pieces += resampler.resample(frame)
    pieces += resampler.resample(None)
    resampled = [piece.to_ndarray()[0, : piece.samples] for piece in pieces if piece.samples]
    length = -(-len(samples) * SAMPLE_RATE // rate)
    result = np.zeros(length, np.float32)
    found = np.concatenate([*resampled, np.zeros(0, np.float32)])[:length]
    result[: len(found)] = found
    return result


def _mono_blocks(sound: soundfile.SoundFile, path: Path) -> Iterator[FloatArray]:
    """Blocks of the mean over channels; never trusts the header's length."""
    total = 0
    while True:
        block = sound.read(_BLOCK, dtype="float32", always_2d=True)
        if not len(block):
            return
        mono = block.mean(axis=1, dtype=np.float32)
        if not np.isfinite(mono).all():
            seconds = (total + int(np.argmin(np.isfinite(mono)))) / sound.samplerate
            raise AudioError(
                f"{path} holds NaN or infinity at {seconds:.3f} s; expected finite samples."
            )
        total += len(mono)
        if total > MAX_SECONDS * sound.samplerate:
            raise AudioError(
                f"{path} is longer than {MAX_SECONDS / 3600:.0f} hours; cut it into parts."
            )
        yield mono
