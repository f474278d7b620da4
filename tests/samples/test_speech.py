"""Synthesis: timings that fit the samples, the same result every time, clear refusals."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from synthetic_capture.corpus import HELD_OUT_VOICE, TRAINING_VOICES, lines, sentences
from synthetic_capture.speech import SAMPLE_RATE, Speech, Voice, join, synthesize
from talksplat.errors import InputError

VOICE = Voice("en-us+f2", rate=160)


@pytest.fixture(scope="module")
def speech() -> Speech:
    return synthesize("Maybe Bob put 42 maps above the piano?", VOICE)


def test_phonemes_cover_the_audio_without_gaps(speech: Speech) -> None:
    assert speech.phonemes[0].start_s == 0.0
    assert speech.phonemes[-1].end_s == pytest.approx(speech.seconds, abs=1e-9)
    for before, after in zip(speech.phonemes, speech.phonemes[1:], strict=False):
        assert before.end_s == pytest.approx(after.start_s, abs=1e-9)
        assert before.end_s > before.start_s


def test_pauses_are_silent_and_vowels_are_loud(speech: Speech) -> None:
    def level(start_s: float, end_s: float) -> float:
        part = speech.pcm[round(start_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]
        return float(np.sqrt(np.mean(part**2)))

    assert speech.phonemes[0].symbol == speech.phonemes[-1].symbol == ""
    assert level(0.0, speech.phonemes[0].end_s - 0.01) < 1e-3
    stressed = [level(p.start_s, p.end_s) for p in speech.phonemes if p.stress == 2]
    assert len(stressed) >= 4 and min(stressed) > 0.05


def test_a_stop_owns_the_closure_before_its_burst(speech: Speech) -> None:
    after_vowels = [
        p
        for before, p in itertools.pairwise(speech.phonemes)
        if p.symbol in ("p", "t") and before.symbol in ("ʊ", "i", "æ", "ə")
    ]
    assert len(after_vowels) == 4
    for stop in after_vowels:
        # Resampling rings into the first samples of the closure.
        start = round(stop.start_s * SAMPLE_RATE) + 40
        assert np.abs(speech.pcm[start : start + 160]).max() < 0.02
        assert stop.end_s - stop.start_s > 0.055


def test_the_same_sentence_gives_the_same_samples_whatever_was_said_before(speech: Speech) -> None:
    synthesize("Something else entirely.", Voice("en+klatt2"))
    time.sleep(1.1)  # the library seeds itself with the second of the day
    again = synthesize(speech.text, VOICE)
    np.testing.assert_array_equal(again.pcm, speech.pcm)
    assert again.phonemes == speech.phonemes


def test_rate_and_pitch_are_heard(speech: Speech) -> None:
    slow = synthesize(speech.text, Voice(VOICE.name, rate=110))
    high = synthesize(speech.text, Voice(VOICE.name, rate=VOICE.rate, pitch=80))
    assert slow.seconds > 1.2 * speech.seconds
    assert high.seconds == pytest.approx(speech.seconds, rel=0.05)
    assert not np.array_equal(high.pcm[: len(speech.pcm)], speech.pcm[: len(high.pcm)])


def test_joined_speech_keeps_its_timings(speech: Speech) -> None:
    both = join([speech, speech])
    assert len(both.pcm) == 2 * len(speech.pcm)
    second = both.phonemes[len(speech.phonemes) :]
    for own, first in zip(second, speech.phonemes, strict=True):
        assert own.symbol == first.symbol
        assert own.start_s == pytest.approx(first.start_s + speech.seconds)


@pytest.mark.parametrize("voice", [*TRAINING_VOICES, HELD_OUT_VOICE], ids=lambda v: v.name)
def test_every_voice_of_the_corpus_speaks(voice: Voice) -> None:
    speech = synthesize("Five big maps.", voice)
    symbols = {p.symbol for p in speech.phonemes}
    assert {"f", "b", "m", "p"} <= symbols
    assert np.abs(speech.pcm).max() > 0.1 and np.abs(speech.pcm).max() <= 1.0


def test_a_language_chooses_a_voice_that_speaks_it() -> None:
    by_language = synthesize("Five big maps.", Voice("en-gb+f3"))
    by_name = synthesize("Five big maps.", Voice("en+f3"))
    np.testing.assert_array_equal(by_language.pcm, by_name.pcm)


def test_unknown_voice_and_empty_text_are_refused() -> None:
    with pytest.raises(InputError, match="xx-nobody"):
        synthesize("Hello.", Voice("xx-nobody"))
    with pytest.raises(InputError, match="empty"):
        synthesize("  ", VOICE)


def test_held_out_sentences_are_never_training_sentences() -> None:
    texts = sentences()
    assert len(texts) >= 150 and len(set(texts)) == len(texts)
    training = {line.text for line in lines(VOICE, held_out=False, seed=0)}
    held_out = {line.text for line in lines(VOICE, held_out=True, seed=0)}
    assert training | held_out == set(texts) and not training & held_out
    assert len(held_out) >= 0.1 * len(texts)
    assert HELD_OUT_VOICE.name not in {voice.name for voice in TRAINING_VOICES}
