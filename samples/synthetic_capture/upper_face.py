"""Brows, lids and cheeks as facial action units, and the blendshapes they mean.

The upper face is not heard, so it is a track of its own: action units 1, 4, 5, 6, 7 and 45 as
OpenFace measures them (T. Baltrušaitis et al., "OpenFace 2.0", 2018), the ones that
TalkingGaussian reads from `au.csv`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talksplat_export.heads.visemes import expression

from .mouth import frame_count, frame_times
from .speech import Speech

ACTION_UNITS = (1, 4, 5, 6, 7, 45)
"""Inner brow raiser, brow lowerer, upper lid raiser, cheek raiser, lid tightener, blink."""

INTENSITY_FULL = np.array([5.0, 5.0, 5.0, 5.0, 5.0, 2.0], np.float32)
"""The intensity that counts as 1: OpenFace's scale ends at 5, a full blink reads about 2."""

# Blendshapes of a fully active unit.
_BLENDSHAPES: dict[int, dict[str, float]] = {
    1: {"browInnerUp": 1.0, "browOuterUpLeft": 0.65, "browOuterUpRight": 0.55},
    4: {"browDown": 1.0},
    5: {"eyeWide": 1.0},
    6: {"cheekSquint": 1.0},
    7: {"eyeSquint": 1.0},
    45: {"eyeBlink": 1.0},
}

_BLINK_EVERY_S = (2.2, 5.5)
_BLINK_LASTS_S = (0.16, 0.25)
_BLINK_CLOSING_SHARE = 0.4  # lids fall faster than they rise


@dataclass(frozen=True)
class UpperFace:
    """``activation`` [T,6] in 0..1, columns as ``ACTION_UNITS``."""

    activation: NDArray[np.float32]

    @property
    def intensities(self) -> NDArray[np.float32]:
        """OpenFace intensities, [T,6]: 0..5, blink 0..2."""
        return self.activation * INTENSITY_FULL

    @property
    def weights(self) -> NDArray[np.float32]:
        """ARKit weights [T,52] in 0..1; only those of brows, lids and cheeks are not zero."""
        return self.activation @ np.stack([expression(_BLENDSHAPES[u]) for u in ACTION_UNITS])


def upper_face(speech: Speech, seed: int) -> UpperFace:
    """Blinks about every four seconds, brows that lift with stress and questions, quiet lids."""
    random = np.random.default_rng([seed, 45])
    times = frame_times(frame_count(len(speech.pcm)))
    blink = _blinks(times, random)
    lift = _brow_lift(speech, times, random)
    frown = 0.22 * np.clip(drift(times, random, (0.07, 0.25)), 0.0, 1.0)
    smile = 0.06 + 0.2 * np.clip(drift(times, random, (0.05, 0.2)), 0.0, 1.0)
    squint = 0.05 + 0.18 * np.clip(drift(times, random, (0.1, 0.4)), 0.0, 1.0)
    wide = 0.35 * lift * (1.0 - blink)
    activation = np.stack([lift, frown * (1.0 - lift), wide, smile, squint, blink], axis=1)
    return UpperFace(np.clip(activation, 0.0, 1.0).astype(np.float32))


def drift(
    times: NDArray[np.float64], random: np.random.Generator, hertz: tuple[float, float]
) -> NDArray[np.float64]:
    """Smooth noise of unit-like size: four sines with random frequency and phase, [T]."""
    frequencies = random.uniform(*hertz, size=4)
    phases = random.uniform(0.0, 2 * np.pi, size=4)
    waves = np.sin(2 * np.pi * frequencies * times[:, None] + phases)
    return np.asarray(waves.sum(axis=1) / 2.0)


def bumps(
    times: NDArray[np.float64], centres: Iterable[float], width_s: float
) -> NDArray[np.float64]:
    """Sum of Gaussian bumps of height one, [T]."""
    total = np.zeros_like(times)
    for centre in centres:
        total += np.exp(-(((times - centre) / width_s) ** 2))
    return total


def _blinks(times: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    closed = np.zeros_like(times)
    start = random.uniform(0.5, 2.0)
    while len(times) and start < times[-1]:
        lasts = random.uniform(*_BLINK_LASTS_S)
        phase = (times - start) / lasts
        falling = np.clip(phase / _BLINK_CLOSING_SHARE, 0.0, 1.0)
        rising = np.clip((1.0 - phase) / (1.0 - _BLINK_CLOSING_SHARE), 0.0, 1.0)
        height = np.minimum(falling, rising)
        closed = np.maximum(closed, height * height * (3.0 - 2.0 * height))
        start += lasts + random.uniform(*_BLINK_EVERY_S)
    # Frames are 40 ms apart and may straddle the moment of closure: let it last a little.
    return np.asarray(np.clip(1.25 * closed, 0.0, 1.0))


def _brow_lift(
    speech: Speech, times: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.float64]:
    stressed = [p.start_s for p in speech.phonemes if p.stress == 2]
    accents = [start for start in stressed if random.uniform() < 0.3]
    lift = 0.45 * bumps(times, accents, 0.16)
    if speech.text.rstrip().endswith("?") and stressed:
        lift += 0.5 * bumps(times, [stressed[-1] + 0.1], 0.35)
    return np.asarray(np.clip(lift + 0.08 * drift(times, random, (0.05, 0.3)), 0.0, 1.0))
