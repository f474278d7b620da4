"""Phonemes to mouth shapes: dominance functions with hard contacts.

Every phoneme asks for the shape of its viseme with a dominance that rises before it is heard and
falls after (M. Cohen, D. Massaro, "Modeling Coarticulation in Synthetic Visual Speech", 1993).
Contacts are no matter of degree: lips meet at p, b, m and the lower lip meets the teeth at f, v,
so those blend over the mixture instead of joining it.

The result depends on phonemes and loudness alone: the same speech always gives the same mouth.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talksplat_export.heads.blendshapes import ARKIT_INDEX, ARKIT_NAMES
from talksplat_export.heads.visemes import VISEMES, viseme_expression

from .speech import SAMPLE_RATE, Phoneme, Speech

FRAMES_PER_SECOND = 25
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAMES_PER_SECOND

# What IPA letters ask of the mouth, as a mixture of visemes. Letters that leave the mouth to their
# neighbours (h, glottal stop) are absent on purpose.
_LETTERS: dict[str, dict[str, float]] = {
    "pbm": {"PP": 1.0},
    "fv": {"FF": 1.0},
    "θð": {"TH": 1.0},
    "tdɾ": {"DD": 1.0},
    "kɡgŋxç": {"kk": 1.0},
    "szʂʐ": {"SS": 1.0},
    "ʃʒ": {"CH": 1.0},
    "nlɫɲ": {"nn": 1.0},
    "ɹrɻʀʁ": {"RR": 1.0},
    "ɚɝ": {"RR": 0.6, "E": 0.35},
    "j": {"I": 0.8},
    "w": {"U": 1.0},
    "ʍ": {"U": 1.0},
    "aɑ": {"aa": 1.0},
    "æ": {"aa": 0.7, "E": 0.35},
    "ʌɐ": {"aa": 0.75},
    "ɛe": {"E": 1.0},
    "ə": {"aa": 0.2, "E": 0.3},
    "ɜɘ": {"E": 0.5, "RR": 0.25},
    "iy": {"I": 1.0},
    "ɪᵻ": {"I": 0.75},
    "ɔɒo": {"O": 1.0},
    "ɵ": {"O": 0.6, "E": 0.3},
    "u": {"U": 1.0},
    "ʊ": {"U": 0.75},
}
_MIXTURES = {letter: mixture for letters, mixture in _LETTERS.items() for letter in letters}
_VOWELS = frozenset("aɑæʌɐɛeəɜɘiyɪᵻɔɒoɵuʊɚɝ")
_LONG = "ː"


@dataclass(frozen=True)
class _Articulation:
    """How strongly and how far around itself a sound holds the mouth (seconds)."""

    dominance: float
    before_s: float
    after_s: float


_VOWEL = _Articulation(1.0, 0.065, 0.060)
_ROUNDED = _Articulation(1.3, 0.110, 0.065)  # rounding is prepared early
_LIPS_FREE = _Articulation(0.35, 0.045, 0.045)  # made by the tongue behind whatever lips there are
_SIBILANT = _Articulation(1.2, 0.055, 0.050)  # needs the teeth together
_PAUSE = _Articulation(0.5, 0.090, 0.120)

_ARTICULATIONS = {
    "sil": _PAUSE,
    "TH": _Articulation(0.8, 0.050, 0.045),
    "DD": _LIPS_FREE,
    "kk": _LIPS_FREE,
    "nn": _LIPS_FREE,
    "SS": _SIBILANT,
    "CH": _Articulation(1.4, 0.080, 0.060),
    "RR": _Articulation(0.7, 0.070, 0.055),
    "O": _ROUNDED,
    "U": _ROUNDED,
}
# Contacts: seconds to close, seconds to part.
_CONTACTS = {"PP": (0.075, 0.060), "FF": (0.070, 0.060)}
# One frame is 40 ms: a contact lasting a little longer is seen in at least one frame.
_SHORTEST_CONTACT_S = 0.046

# Shapes that follow the loudness of the voice.
_OPENING = (
    "jawOpen",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
)
_LOUDNESS_WINDOW_S = 0.08
_LOUDNESS_REFERENCE_DB = -16.0
_LOUDNESS_PER_DB = 0.025
_LOUDNESS_RANGE = (0.75, 1.2)

# No face is symmetric: the left corner leads by a little.
_ASYMMETRY = 0.04


@dataclass(frozen=True)
class _Sound:
    """A stretch of one IPA letter; ``strength`` scales how far its shape is carried out."""

    mixture: dict[str, float]
    start_s: float
    end_s: float
    strength: float

    @property
    def viseme(self) -> str:
        return max(self.mixture, key=lambda name: self.mixture[name])


def frame_count(samples: int) -> int:
    """Frames of a clip: ceil(samples / 640)."""
    return -(-samples // SAMPLES_PER_FRAME)


def frame_times(frames: int) -> NDArray[np.float64]:
    """The middle of every frame in seconds, [T]."""
    return (np.arange(frames) + 0.5) / FRAMES_PER_SECOND


def mouth_weights(speech: Speech) -> NDArray[np.float32]:
    """ARKit weights [T,52] in 0..1 at 25 fps; only those of jaw, mouth and tongue are not zero."""
    times = frame_times(frame_count(len(speech.pcm)))
    shapes = {name: viseme_expression(name).astype(np.float64) for name in VISEMES}
    sounds = list(_sounds(speech.phonemes))
    weights = _coarticulated(sounds, shapes, times)
    opening = [ARKIT_INDEX[name] for name in _OPENING]
    weights[:, opening] *= _loudness(speech.pcm, times)[:, None]
    weights = _with_contacts(weights, sounds, shapes, times)
    sides = [name.endswith("Left") * 1.0 - name.endswith("Right") * 1.0 for name in ARKIT_NAMES]
    weights *= 1.0 + _ASYMMETRY * np.array(sides)
    return np.clip(weights, 0.0, 1.0).astype(np.float32)


def _sounds(phonemes: Iterable[Phoneme]) -> Iterable[_Sound]:
    for phoneme in phonemes:
        if not phoneme.symbol:
            yield _Sound({"sil": 1.0}, phoneme.start_s, phoneme.end_s, 1.0)
            continue
        letters = _letters(phoneme.symbol)
        total = sum(share for _, share in letters)
        start = phoneme.start_s
        for letter, share in letters:
            end = start + (phoneme.end_s - phoneme.start_s) * share / total
            if letter in _MIXTURES:
                vowel_strength = (0.85, 0.95, 1.05)[phoneme.stress]
                strength = vowel_strength if letter in _VOWELS else 1.0
                yield _Sound(_MIXTURES[letter], start, end, strength)
            start = end


def _letters(symbol: str) -> list[tuple[str, float]]:
    """IPA letters with their share of the phoneme's time; marks lengthen or are dropped."""
    letters: list[tuple[str, float]] = []
    for character in unicodedata.normalize("NFD", symbol):
        if character == _LONG and letters:
            letters[-1] = (letters[-1][0], letters[-1][1] * 1.5)
        elif character in _MIXTURES or unicodedata.category(character) == "Ll":
            # The first part of a diphthong is held longer than the glide after it.
            letters.append((character, 1.0 if letters else 1.3))
    return letters


def _coarticulated(
    sounds: list[_Sound], shapes: dict[str, NDArray[np.float64]], times: NDArray[np.float64]
) -> NDArray[np.float64]:
    total = np.full((len(times), 1), 1e-9)
    weighted = np.zeros((len(times), len(shapes["sil"])))
    for sound in sounds:
        if sound.viseme in _CONTACTS:
            continue
        articulation = _ARTICULATIONS.get(sound.viseme, _VOWEL)
        before = np.maximum(sound.start_s - times, 0.0) / articulation.before_s
        after = np.maximum(times - sound.end_s, 0.0) / articulation.after_s
        dominance = articulation.dominance * np.exp(-((before + after) ** 2))[:, None]
        shape = sum(share * shapes[viseme] for viseme, share in sound.mixture.items())
        total += dominance
        weighted += dominance * shape * sound.strength
    return np.asarray(weighted / total)


def _with_contacts(
    weights: NDArray[np.float64],
    sounds: list[_Sound],
    shapes: dict[str, NDArray[np.float64]],
    times: NDArray[np.float64],
) -> NDArray[np.float64]:
    for sound in sounds:
        if sound.viseme not in _CONTACTS:
            continue
        closing_s, parting_s = _CONTACTS[sound.viseme]
        missing = max(0.0, _SHORTEST_CONTACT_S - (sound.end_s - sound.start_s))
        start, end = sound.start_s - missing / 2, sound.end_s + missing / 2
        away = np.maximum((start - times) / closing_s, (times - end) / parting_s)
        nearness = np.clip(1.0 - away, 0.0, 1.0)
        contact = (nearness * nearness * (3.0 - 2.0 * nearness))[:, None]
        weights = weights * (1.0 - contact) + shapes[sound.viseme] * contact
    return weights


def _loudness(pcm: NDArray[np.float32], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """A factor around 1 from the level around each time, [T]."""
    window = np.hanning(round(_LOUDNESS_WINDOW_S * SAMPLE_RATE))
    half = len(window) // 2
    power = np.pad(pcm.astype(np.float64) ** 2, (half, half + len(window)))
    centres = np.round(times * SAMPLE_RATE).astype(int)
    mean = np.array([power[c : c + len(window)] @ window for c in centres]) / window.sum()
    level_db = 10 * np.log10(mean + 1e-8)
    factor = 1.0 + _LOUDNESS_PER_DB * (level_db - _LOUDNESS_REFERENCE_DB)
    return np.asarray(np.clip(factor, *_LOUDNESS_RANGE))
