"""Sentences to speech with the time of every phoneme, by eSpeak NG.

The synthesiser runs in its retrieval mode: it hands over samples together with events, one per
phoneme, so the timings are the synthesiser's own and not an aligner's guess.
"""

from __future__ import annotations

import _ctypes
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from talksplat.errors import AudioError, BackendError, InputError

SAMPLE_RATE = 16000
"""Samples per second of everything this module returns."""

# From espeak-ng/speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2  # retrieval mode, without a thread of its own
_INITIALIZE_PHONEME_EVENTS = 0x0001
_INITIALIZE_PHONEME_IPA = 0x0002
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_POS_CHARACTER = 1
_PARAMETER_RATE = 1
_PARAMETER_PITCH = 3
_PARAMETER_RANGE = 4
_EVENT_LIST_TERMINATED = 0
_EVENT_PHONEME = 7

_PRIMARY_STRESS = "ˈ"
_SECONDARY_STRESS = "ˌ"
_STOPS = ("p", "b", "t", "d", "k", "ɡ", "g", "ɾ", "ʔ", "c", "ɟ", "q")
_HUSH = 0.07  # of the loudest 5 ms of a sound; what is left in a closure is a voice's echo


class _EventId(ctypes.Union):
    _fields_ = [
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    ]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


class _VoiceProperties(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class Phoneme:
    """One phoneme as it was spoken.

    ``symbol`` is IPA without stress marks, empty for a pause; diphthongs and syllabic groups
    ("aɪ", "əl", "ɔːɹ") stay one phoneme, as the synthesiser has them. ``stress`` is 0, 1
    (secondary) or 2 (primary). A stop owns the closure before its burst.
    """

    symbol: str
    start_s: float
    end_s: float
    stress: int = 0


@dataclass(frozen=True)
class Speech:
    """``pcm`` float32 [S] in -1..1 at 16 kHz mono, and phonemes that cover all of it in order."""

    text: str
    voice: str
    pcm: NDArray[np.float32]
    phonemes: tuple[Phoneme, ...]

    @property
    def seconds(self) -> float:
        return len(self.pcm) / SAMPLE_RATE


@dataclass(frozen=True)
class Voice:
    """How to speak: an eSpeak NG voice with an optional variant ("en-us+f3"), words per minute
    (80..450), pitch and pitch range (0..100, 50 is the voice's own)."""

    name: str
    rate: int = 165
    pitch: int = 50
    pitch_range: int = 50


def synthesize(text: str, voice: Voice, *, lead_s: float = 0.25, tail_s: float = 0.25) -> Speech:
    """Speaks ``text`` with ``lead_s`` and ``tail_s`` seconds of silence around it.

    The same arguments give the same samples: the library is loaded anew for every call, because
    it carries oscillator and noise state from one utterance to the next, and seeds its random
    numbers, which breathy voices draw on, with the time of day.

    Raises BackendError when eSpeak NG is not there, InputError for an unknown voice and
    AudioError when nothing audible came out.
    """
    if not text.strip():
        raise InputError("Expected a sentence to speak, found an empty text.")
    with _espeak() as (library, rate):
        pcm, events = _retrieve(library, text, voice)
    if len(pcm) == 0 or not np.any(pcm):
        raise AudioError(f"eSpeak NG returned no sound for {text!r} with voice {voice.name!r}.")
    phonemes = _phonemes(pcm, events, rate)
    resampled = _resample(pcm, rate)
    lead, tail = (np.zeros(round(s * SAMPLE_RATE), np.float32) for s in (lead_s, tail_s))
    padded = np.concatenate([lead, resampled, tail])
    return Speech(text, voice.name, padded, _pad(phonemes, lead_s, len(padded) / SAMPLE_RATE))


def join(parts: list[Speech]) -> Speech:
    """One speech out of several, each after the other."""
    if not parts:
        raise InputError("Expected at least one utterance to join, found none.")
    phonemes: list[Phoneme] = []
    offset = 0.0
    for part in parts:
        phonemes += [
            Phoneme(p.symbol, p.start_s + offset, p.end_s + offset, p.stress) for p in part.phonemes
        ]
        offset += part.seconds
    text = " ".join(part.text for part in parts)
    return Speech(text, parts[0].voice, np.concatenate([p.pcm for p in parts]), tuple(phonemes))


@contextmanager
def _espeak() -> Iterator[tuple[ctypes.CDLL, int]]:
    try:
        import espeakng_loader
    except ImportError as error:
        raise BackendError(
            "Speech synthesis needs the Python package 'espeakng-loader', which carries the eSpeak"
            " NG library and its data; it is not installed. Run: pip install espeakng-loader"
        ) from error
    library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
    try:
        options = _INITIALIZE_PHONEME_EVENTS | _INITIALIZE_PHONEME_IPA | _INITIALIZE_DONT_EXIT
        data = str(espeakng_loader.get_data_path()).encode()
        rate = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data, options)
        if rate <= 0:
            raise BackendError(
                f"eSpeak NG did not start with its data at {data.decode()} (status {rate})."
                " Reinstall the package 'espeakng-loader'."
            )
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        yield library, rate
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)


def _retrieve(
    library: ctypes.CDLL, text: str, voice: Voice
) -> tuple[NDArray[np.float32], list[tuple[int, str]]]:
    chunks: list[NDArray[np.int16]] = []
    events: list[tuple[int, str]] = []

    def collect(wav: Any, count: int, event: Any) -> int:
        if wav and count > 0:
            chunks.append(np.ctypeslib.as_array(wav, (count,)).copy())
        index = 0
        while event[index].type != _EVENT_LIST_TERMINATED:
            if event[index].type == _EVENT_PHONEME:
                # The field holds 8 bytes: a long name may be cut inside a character.
                name = event[index].id.string.decode("utf-8", errors="ignore")
                events.append((event[index].sample, name))
            index += 1
        return 0

    callback = _Callback(collect)
    library.espeak_SetSynthCallback(callback)
    if not _select_voice(library, voice.name):
        raise InputError(
            f"Expected an eSpeak NG voice such as 'en-us' or 'en-us+f3', found {voice.name!r}."
        )
    library.espeak_SetParameter(_PARAMETER_RATE, voice.rate, 0)
    library.espeak_SetParameter(_PARAMETER_PITCH, voice.pitch, 0)
    library.espeak_SetParameter(_PARAMETER_RANGE, voice.pitch_range, 0)
    encoded = text.encode()
    library.espeak_Synth(
        encoded, ctypes.c_size_t(len(encoded) + 1), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None
    )
    library.espeak_Synchronize()
    pcm = np.concatenate(chunks) if chunks else np.zeros(0, np.int16)
    return pcm.astype(np.float32) / np.float32(32768), events


def _select_voice(library: ctypes.CDLL, name: str) -> bool:
    """By the voice's name, or else by a language it speaks ("en-gb" is one that "en" speaks)."""
    if library.espeak_SetVoiceByName(name.encode()) == 0:
        return True
    language, plus, variant = name.partition("+")
    wanted = _VoiceProperties(languages=language.encode())
    if library.espeak_SetVoiceByProperties(ctypes.byref(wanted)) != 0:
        return False
    library.espeak_GetCurrentVoice.restype = ctypes.POINTER(_VoiceProperties)
    speaker = library.espeak_GetCurrentVoice().contents.identifier + (plus + variant).encode()
    return bool(library.espeak_SetVoiceByName(speaker) == 0)


def _phonemes(pcm: NDArray[np.float32], events: list[tuple[int, str]], rate: int) -> list[Phoneme]:
    """Events (start sample, name) to phonemes that follow each other without gaps."""
    starts = [min(start, len(pcm)) for start, _ in events]
    for index, (_, name) in enumerate(events[1:], 1):
        if name.strip(_PRIMARY_STRESS + _SECONDARY_STRESS).startswith(_STOPS):
            # The event of a stop marks its burst: the hush just before is its closure.
            segment = pcm[starts[index - 1] : starts[index]]
            starts[index] = starts[index - 1] + _sounding(segment, rate)
    ends = [*starts[1:], len(pcm)]
    phonemes = []
    for (_, name), start, end in zip(events, starts, ends, strict=True):
        if end > start:
            stress = 2 if _PRIMARY_STRESS in name else 1 if _SECONDARY_STRESS in name else 0
            symbol = name.replace(_PRIMARY_STRESS, "").replace(_SECONDARY_STRESS, "").strip()
            phonemes.append(Phoneme(symbol, start / rate, end / rate, stress))
    return phonemes


def _sounding(segment: NDArray[np.float32], rate: int) -> int:
    """Samples of ``segment`` before the hush at its end, if it ends in one."""
    step = rate // 200
    blocks = segment[: len(segment) // step * step].reshape(-1, step)
    levels = np.sqrt(np.mean(blocks**2, axis=1))
    audible = np.flatnonzero(levels > _HUSH * levels.max(initial=0.0))
    if len(audible) == 0 or audible[-1] == len(blocks) - 1:
        return len(segment)
    return int(audible[-1] + 1) * step


def _resample(pcm: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    frame = av.AudioFrame.from_ndarray(pcm[None], format="flt", layout="mono")
    frame.sample_rate = rate
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    pcm_16k = np.concatenate([part.to_ndarray()[0] for part in frames]).astype(np.float32)
    # Band limiting may overshoot full scale: turn the whole utterance down rather than clip it.
    return pcm_16k * np.float32(min(1.0, 0.99 / max(float(np.abs(pcm_16k).max()), 1e-6)))


def _pad(phonemes: list[Phoneme], lead_s: float, total_s: float) -> tuple[Phoneme, ...]:
    """Shifts phonemes behind the leading pause, joins neighbouring pauses, covers 0..total_s."""
    shifted = [Phoneme("", 0.0, lead_s)]
    for p in phonemes:
        shifted.append(Phoneme(p.symbol, p.start_s + lead_s, p.end_s + lead_s, p.stress))
    shifted.append(Phoneme("", shifted[-1].end_s, total_s))
    joined: list[Phoneme] = []
    for p in shifted:
        start, end = min(p.start_s, total_s), min(p.end_s, total_s)
        if joined and not p.symbol and not joined[-1].symbol:
            joined[-1] = Phoneme("", joined[-1].start_s, max(end, joined[-1].end_s))
        elif end > start:
            joined.append(Phoneme(p.symbol, start, end, p.stress))
    return tuple(joined)
