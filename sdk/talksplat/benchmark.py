"""Measuring a session: delay of the first frame, time per frame, memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talksplat.audio import SAMPLE_RATE
from talksplat.avatar import Avatar
from talksplat.backends import FrameMemory
from talksplat.installation import installed_size
from talksplat.session import Session

TIMER = (
    "from PCM, or features if given, in memory to RGB in memory, one frame of audio pushed at a "
    "time: every graph, PNCC, rasterizer and uint8; without reading the bundle, warm-up, and "
    "encoding a video"
)


@dataclass(frozen=True)
class Report:
    """What one benchmark found; times in milliseconds unless the name says otherwise.

    Attributes:
        timer: what the times cover.
        first_frame_audio_ms: speech that must be heard before the first frame can be made.
        first_frame_compute_ms: median time to make the first frame once it has been heard.
        first_frame_delay_ms: their sum.
        look_ahead_ms: most speech after a frame's own that any frame waits for.
        real_time_factors: of each round, compute divided by the duration of the speech.
        real_time_factor: their median; below 1 keeps up.
        frame_p50_ms, frame_p95_ms, frame_p99_ms, frame_max_ms: time per frame, all rounds.
        stages_ms: mean per frame and stage.
        python_ms: mean per frame outside any stage.
        processor_ms: mean processor time per frame, all threads added; hardly depends on what else
            the machine is doing.
        peak_memory_bytes: most memory of this process so far, interpreter included.
        installed_bytes: talksplat's package and its requirements, compiled extensions included.
    """

    avatar: str
    backend: str
    threads: int
    width: int
    height: int
    frames: int
    timer: str
    first_frame_audio_ms: float
    first_frame_compute_ms: float
    first_frame_delay_ms: float
    look_ahead_ms: float
    real_time_factors: list[float]
    real_time_factor: float
    frame_p50_ms: float
    frame_p95_ms: float
    frame_p99_ms: float
    frame_max_ms: float
    stages_ms: dict[str, float]
    python_ms: float
    processor_ms: float
    peak_memory_bytes: int
    bundle_bytes: int
    installed_bytes: int


@dataclass
class _Round:
    frame_ms: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    processor_ms: float = 0.0


def benchmark(
    avatar: Avatar,
    pcm: NDArray[np.float32],
    rounds: int,
    features: Path | NDArray[np.float32] | None = None,
    frames: FrameMemory = "host",
) -> Iterator[Report]:
    """Speak ``pcm`` ``rounds`` times after one round of warm-up; yields a report after each.

    The last report is the result, earlier ones are for watching. ``features`` and ``frames`` as
    :meth:`talksplat.Avatar.session` takes them.
    """
    results: list[_Round] = []
    for number in range(rounds + 1):
        with avatar.session(features=features, frames=frames) as session:
            result = _speak(session, pcm)
            if number:
                results.append(result)
                yield _report(avatar, session, pcm, results)


def _speak(session: Session, pcm: NDArray[np.float32]) -> _Round:
    """Feed the speech in frames of 40 ms, as a microphone would, as fast as they are taken."""
    result = _Round()
    processor_start = time.process_time()
    step = SAMPLE_RATE // session.fps
    pending = 0.0
    for start in range(0, len(pcm) + step, step):
        begin = time.perf_counter()
        if start < len(pcm):
            session.push(pcm[start : start + step])
        else:
            session.end()
        pending += time.perf_counter() - begin
        frames = session.frames()
        while True:
            begin = time.perf_counter()
            frame = next(frames, None)
            pending += time.perf_counter() - begin
            if frame is None:
                break
            result.frame_ms.append(pending * 1e3)
            result.stages.append(frame.timings)
            pending = 0.0
    result.processor_ms = (time.process_time() - processor_start) * 1e3
    return result


def _report(
    avatar: Avatar,
    session: Session,
    pcm: NDArray[np.float32],
    results: list[_Round],
) -> Report:
    duration_ms = len(pcm) / SAMPLE_RATE * 1e3
    frame_ms = np.array([time for result in results for time in result.frame_ms])
    stages = [frame for result in results for frame in result.stages]
    names = list(dict.fromkeys(name for frame in stages for name in frame))
    stages_ms = {name: float(np.mean([frame.get(name, 0.0) for frame in stages])) for name in names}
    factors = [sum(result.frame_ms) / duration_ms for result in results]
    compute = float(np.median([result.frame_ms[0] for result in results]))
    audio = session.first_frame_samples / SAMPLE_RATE * 1e3
    video = avatar.manifest.video
    return Report(
        avatar=avatar.manifest.name,
        backend=avatar.backend,
        threads=avatar.threads,
        width=video.width,
        height=video.height,
        frames=len(frame_ms),
        timer=TIMER,
        first_frame_audio_ms=audio,
        first_frame_compute_ms=compute,
        first_frame_delay_ms=audio + compute,
        look_ahead_ms=session.look_ahead_samples / SAMPLE_RATE * 1e3,
        real_time_factors=factors,
        real_time_factor=float(np.median(factors)),
        frame_p50_ms=float(np.percentile(frame_ms, 50)),
        frame_p95_ms=float(np.percentile(frame_ms, 95)),
        frame_p99_ms=float(np.percentile(frame_ms, 99)),
        frame_max_ms=float(frame_ms.max()),
        stages_ms=stages_ms,
        python_ms=float(frame_ms.mean()) - sum(stages_ms.values()),
        processor_ms=sum(result.processor_ms for result in results) / len(frame_ms),
        peak_memory_bytes=peak_memory(),
        bundle_bytes=sum(spec.bytes for spec in avatar.manifest.files.values()),
        installed_bytes=installed_size(),
    )


def peak_memory() -> int:
    """Most memory that this process has had resident, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
