"""Which sentences there are, which voices speak them, and what is held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .speech import Voice

AVATAR_VOICE = Voice("en-us+f2", rate=160)
"""The voice of the avatar's own recording."""

HELD_OUT_VOICE = Voice("en-gb-x-rp+m3", rate=165)
"""Never trained on: another accent, another speaker."""

TRAINING_VOICES = (
    AVATAR_VOICE,
    Voice("en-us"),
    Voice("en-us+Annie"),
    Voice("en-us+Michael"),
    Voice("en-us-nyc+m1"),
    Voice("en+f3"),
    Voice("en-gb-scotland+m7"),
    Voice("en-gb-x-gbclan+linda"),
    Voice("en-gb-x-gbcwmd+f1"),
    Voice("en-029+f4"),
    Voice("en-gb-x-rp+f5"),
    Voice("en+klatt2"),
)

_HELD_OUT_EVERY = 8  # one sentence in eight is never trained on


@dataclass(frozen=True)
class Line:
    """One sentence in the mouth of one voice; ``index`` is its place in the file."""

    index: int
    text: str
    voice: Voice


def sentences() -> list[str]:
    """The sentences of ``sentences.txt``, in order."""
    text = (Path(__file__).parent / "sentences.txt").read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


def is_held_out(index: int) -> bool:
    """Whether sentence ``index`` is kept away from every training."""
    return index % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1


def lines(voice: Voice, *, held_out: bool, seed: int) -> list[Line]:
    """Training or held-out sentences for one voice, shuffled by ``seed``."""
    chosen = [(i, text) for i, text in enumerate(sentences()) if is_held_out(i) == held_out]
    order = np.random.default_rng([seed, int(held_out)]).permutation(len(chosen))
    return [Line(index, text, voice) for index, text in (chosen[i] for i in order)]


def varied(voice: Voice, seed: int) -> Voice:
    """The same speaker on another day: rate ±20 %, pitch and its range a little off."""
    random = np.random.default_rng([seed, 3])
    return Voice(
        voice.name,
        rate=round(voice.rate * random.uniform(0.8, 1.2)),
        pitch=int(np.clip(voice.pitch + random.integers(-15, 16), 0, 100)),
        pitch_range=int(np.clip(voice.pitch_range + random.integers(-20, 21), 0, 100)),
    )
