"""What is said in a capture: sentences that fill the time asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .corpus import lines
from .mouth import SAMPLES_PER_FRAME
from .speech import SAMPLE_RATE, Phoneme, Speech, Voice, join, synthesize

_SILENCE_S = 0.8  # a shorter rest at the end counts as filled
_SENTENCE_S = 2.6  # a longer one has room for another sentence


def spoken(voice: Voice, seconds: float, *, held_out: bool, seed: int) -> Speech:
    """Training or held-out sentences, as many as fit, then silence up to exactly ``seconds``.

    ``seconds`` is rounded down to whole frames. A sentence that would leave an awkward rest is
    passed over for a later one; one is cut off only where the time is too short for any.
    """
    samples = int(seconds * SAMPLE_RATE) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
    parts: list[Speech] = []
    rest = samples
    shortest: Speech | None = None
    for line in lines(voice, held_out=held_out, seed=seed):
        speech = synthesize(line.text, voice)
        left_s = (rest - len(speech.pcm)) / SAMPLE_RATE
        if 0 <= left_s <= _SILENCE_S or left_s >= _SENTENCE_S:
            parts.append(speech)
            rest -= len(speech.pcm)
        elif shortest is None or len(speech.pcm) < len(shortest.pcm):
            shortest = speech
        if rest <= _SILENCE_S * SAMPLE_RATE:
            break
    if not parts and shortest is not None:
        parts = [shortest]
    return _with_length(join(parts), samples)


def _with_length(speech: Speech, samples: int) -> Speech:
    end_s = samples / SAMPLE_RATE
    pcm = np.zeros(samples, np.float32)
    kept = speech.pcm[:samples]
    pcm[: len(kept)] = kept
    phonemes = [replace(p, end_s=min(p.end_s, end_s)) for p in speech.phonemes if p.start_s < end_s]
    if phonemes[-1].end_s < end_s:
        phonemes.append(Phoneme("", phonemes[-1].end_s, end_s))
    return replace(speech, pcm=pcm, phonemes=tuple(phonemes))
