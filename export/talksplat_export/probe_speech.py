"""A second of sound that resembles speech, to measure parity on where no recording is given."""

from __future__ import annotations

import numpy as np

from talksplat_export.audio_encoders.log_mel import SAMPLE_RATE
from talksplat_export.families.base import FloatArray

# First two resonances of five vowels, hertz (Peterson and Barney, 1952, men).
_VOWELS = ((730, 1090), (270, 2290), (300, 870), (530, 1840), (570, 840))
_PITCH = 120.0


def probe_speech(seconds: float = 1.0) -> FloatArray:
    """Vowels between pauses: harmonics of a falling voice under two resonances, 16 kHz."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = _PITCH * (1 - 0.2 * time / max(seconds, 1e-9))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    syllable = (time * 5).astype(int) % len(_VOWELS)
    resonances = np.array(_VOWELS, np.float64)[syllable]
    voice = np.zeros_like(time)
    for harmonic in range(1, 30):
        distance = (harmonic * pitch[:, None] - resonances) / 120.0
        voice += (1 / (1 + distance**2)).sum(axis=1) / harmonic**0.5 * np.sin(harmonic * phase)
    voice *= np.clip(np.sin(np.pi * ((time * 5) % 1)), 0.0, None) ** 0.5
    speech: FloatArray = (0.3 * voice / np.abs(voice).max(initial=1e-9)).astype(np.float32)
    return speech
