"""How many sessions one avatar can speak in at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talksplat.audio import SAMPLE_RATE
from talksplat.avatar import Avatar
from talksplat.errors import BackendError, DeviceLostError
from talksplat.session import MODEL_FPS, Session

FloatArray = NDArray[np.float32]

SAMPLES_PER_FRAME = SAMPLE_RATE // MODEL_FPS
LIMIT_MS = 1e3 / MODEL_FPS
"""A frame that takes longer than it is shown is late."""


@dataclass(frozen=True)
class SessionLoad:
    """What sessions that speak at the same time wait for their frames.

    Attributes:
        sessions: how many, each in a thread of its own and all in step with the clock: a frame's
            audio is pushed when it would have been spoken.
        frames: made by all of them together.
        p50_ms, p95_ms, p99_ms, max_ms: from the moment a frame's audio was due to its picture.
    """

    sessions: int
    frames: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float

    @property
    def in_time(self) -> bool:
        """Whether 95 of 100 frames were there within the time of one frame."""
        return self.p95_ms <= LIMIT_MS


def find_most_sessions(
    avatar: Avatar,
    pcm: FloatArray,
    features: Path | FloatArray | None = None,
    *,
    seconds: float = 4.0,
    most: int = 256,
) -> Iterator[SessionLoad]:
    """Twice as many sessions each time until they are late, then halfway between.

    Yields every measurement; the largest number that was in time is the answer. So many sessions
    that they cannot be opened together, for want of memory on a GPU for instance, are too many.

    Args:
        avatar: on whatever backend it was loaded with.
        pcm: speech, repeated for as long as needed.
        features: as :meth:`talksplat.Avatar.session` takes them.
        seconds: of speech per measurement.
        most: sessions, not to be exceeded.

    Raises:
        BackendError: one session alone cannot be opened.
        DeviceLostError: the device was lost.
    """
    in_time, late = 0, most + 1
    count = 1
    while in_time < count < late:
        try:
            load = measure_sessions(avatar, pcm, features, count, seconds)
        except DeviceLostError:
            raise
        except BackendError:
            if count == 1:
                raise
            late = count
        else:
            yield load
            if load.in_time:
                in_time = count
            else:
                late = count
        count = min(2 * count, most) if late > most else (in_time + late) // 2


def measure_sessions(
    avatar: Avatar,
    pcm: FloatArray,
    features: Path | FloatArray | None,
    count: int,
    seconds: float,
) -> SessionLoad:
    """Let ``count`` sessions speak for ``seconds``, their frames due at evenly spread moments.

    Raises:
        TalksplatError: whatever a session raises; the others are closed.
    """
    frames = max(1, round(seconds * MODEL_FPS))
    with ExitStack() as opened:
        sessions = [opened.enter_context(avatar.session(features=features)) for _ in range(count)]
        speakers = [_Speaker(session, pcm, frames) for session in sessions]
        start = time.perf_counter() + 0.1
        for number, speaker in enumerate(speakers):
            speaker.begin(start + number / count / MODEL_FPS)
        waits = np.concatenate([speaker.finish() for speaker in speakers])
    p50, p95, p99 = (float(np.percentile(waits, percent)) for percent in (50, 95, 99))
    return SessionLoad(count, len(waits), p50, p95, p99, float(waits.max()))


class _Speaker:
    """One session that speaks in a thread of its own."""

    def __init__(self, session: Session, pcm: FloatArray, frames: int) -> None:
        self._session = session
        self._waits: list[float] = []
        self._error: BaseException | None = None
        # All that the first frame must hear but its last 40 ms, so that every push is one frame.
        self._before = max(0, session.first_frame_samples - SAMPLES_PER_FRAME)
        self._pcm = np.resize(pcm, self._before + frames * SAMPLES_PER_FRAME)

    def begin(self, start: float) -> None:
        """Speak from ``start`` on, as ``time.perf_counter`` counts."""
        self._thread = threading.Thread(target=self._speak, args=(start,), daemon=True)
        self._thread.start()

    def finish(self) -> NDArray[np.float64]:
        """Wait for the last frame; milliseconds that every frame took."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return np.array(self._waits)

    def _speak(self, start: float) -> None:
        try:
            self._session.push(self._pcm[: self._before])
            for number, first in enumerate(range(self._before, len(self._pcm), SAMPLES_PER_FRAME)):
                due = start + number / MODEL_FPS
                time.sleep(max(0.0, due - time.perf_counter()))
                self._session.push(self._pcm[first : first + SAMPLES_PER_FRAME])
                for _ in self._session.frames():
                    self._waits.append((time.perf_counter() - due) * 1e3)
        except BaseException as error:  # raised again by finish(), in the caller's thread
            self._error = error
