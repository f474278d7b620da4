"""What a session costs on a GPU, besides what :mod:`talksplat.benchmark` measures anywhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talksplat.avatar import Avatar, load
from talksplat.backends import FrameMemory, PassedOver, Precision, Progress
from talksplat.benchmark import Report, benchmark
from talksplat.cuda import open_device
from talksplat.cuda_version import cuda_version_text
from talksplat.errors import BackendError
from talksplat.session_load import SessionLoad, find_most_sessions

FloatArray = NDArray[np.float32]

CPU_BACKEND = "onnxruntime-cpu"

Step = Callable[[str], None]
"""Told what is measured next."""


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: of the speech, after one of warm-up.
        seconds: of speech for one number of sessions.
        sessions: at most; 0 leaves them out.
    """

    rounds: int = 3
    seconds: float = 4.0
    sessions: int = 256


@dataclass(frozen=True)
class GpuReport:
    """One avatar on one GPU. Times in milliseconds unless the name says otherwise.

    Memory is the device's own count of what is free, before and after: other programs that use the
    GPU meanwhile count too.

    Attributes:
        device: its name.
        compute_capability: ``"8.9"``.
        cuda: newest CUDA that the driver knows, ``"13.0"``.
        precision: of engines.
        load_seconds: from the bundle on disk to the loaded avatar, engines from the cache if there.
        first_session_seconds: from the loaded avatar to a session that is warm.
        first_frame_ms: of that session, once the speech it must hear was there.
        avatar_bytes: of the device's memory, for the loaded avatar.
        session_bytes: for its first session.
        stages_ms: mean time that each stage kept the device busy; ``frame`` is the rest of a frame:
            copies, launches, waiting. Measured in a run of their own, as events between the stages
            take time too.
        on_device: the same speech with frames left on the device.
        loads: what sessions at the same time waited for their frames.
        passed_over: better backends that cannot be used, and why.
    """

    device: str
    compute_capability: str
    cuda: str
    precision: Precision
    load_seconds: float
    first_session_seconds: float
    first_frame_ms: float
    avatar_bytes: int
    session_bytes: int
    stages_ms: dict[str, float]
    on_device: Report
    loads: list[SessionLoad] = field(default_factory=list)
    passed_over: tuple[PassedOver, ...] = ()

    @property
    def most_sessions(self) -> int:
        """The largest number that was in time; 0 if none was, or none was tried."""
        return max((load.sessions for load in self.loads if load.in_time), default=0)


def benchmark_gpu(
    path: Path,
    pcm: FloatArray,
    features: Path | FloatArray | None = None,
    *,
    backend: str = "auto",
    threads: int | None = None,
    precision: Precision = "fp32",
    plan: Plan | None = None,
    building: Progress | None = None,
    step: Step = lambda name: None,
) -> tuple[Report, GpuReport]:
    """Measure an avatar on a GPU.

    Args:
        path: the bundle.
        pcm: what it says.
        features: as :meth:`talksplat.Avatar.session` takes them.
        backend: one that uses a GPU, or ``"auto"``.
        threads, precision: see :func:`talksplat.load`.
        plan: how much is measured.
        building: told of engines being built.
        step: told what is measured next.

    Returns:
        The report of frames on the host, as without a GPU, and what the GPU adds.

    Raises:
        BackendError: no backend can use a GPU here; says why each cannot.
    """
    plan = plan or Plan()

    def open_avatar(*, stage_times: bool = False) -> Avatar:
        avatar = load(
            path,
            backend,
            threads,
            precision=precision,
            progress=building,
            stage_times=stage_times,
        )
        if avatar.backend == CPU_BACKEND:
            avatar.close()
            raise BackendError(f"No GPU to measure on: {avatar.backend_reason}")
        return avatar

    step("Loading")
    with open_avatar():  # engines and kernels are built here, if need be, and kept
        pass
    with open_device() as device:
        free = [device.free_memory()]
        begin = time.perf_counter()
        with open_avatar() as avatar:
            load_seconds = time.perf_counter() - begin
            passed_over = avatar.passed_over
            free.append(device.free_memory())
            begin = time.perf_counter()
            with avatar.session(features=features) as session:
                first_session_seconds = time.perf_counter() - begin
                session.push(pcm[: session.first_frame_samples])
                begin = time.perf_counter()
                next(session.frames(), None)
                first_frame_ms = (time.perf_counter() - begin) * 1e3
                free.append(device.free_memory())
            report = _speak(avatar, pcm, features, plan, step, "host")
            on_device = _speak(avatar, pcm, features, plan, step, "device")
            loads = list(_loads(avatar, pcm, features, plan, step))
        facts = (
            device.name,
            "{}.{}".format(*device.compute_capability),
            cuda_version_text(device.driver_version),
        )
    with open_avatar(stage_times=True) as avatar:
        stages = _speak(avatar, pcm, features, plan, step, "host", "stages").stages_ms
    return report, GpuReport(
        *facts,
        precision=precision,
        load_seconds=load_seconds,
        first_session_seconds=first_session_seconds,
        first_frame_ms=first_frame_ms,
        avatar_bytes=free[0] - free[1],
        session_bytes=free[1] - free[2],
        stages_ms=stages,
        on_device=on_device,
        loads=loads,
        passed_over=passed_over,
    )


def _speak(
    avatar: Avatar,
    pcm: FloatArray,
    features: Path | FloatArray | None,
    plan: Plan,
    step: Step,
    memory: FrameMemory,
    what: str = "",
) -> Report:
    """The last report of all rounds."""
    step(f"Frames, {what or memory}")
    (report,) = deque(benchmark(avatar, pcm, plan.rounds, features, memory), maxlen=1)
    return report


def _loads(
    avatar: Avatar,
    pcm: FloatArray,
    features: Path | FloatArray | None,
    plan: Plan,
    step: Step,
) -> Iterator[SessionLoad]:
    """Sessions at the same time, more and more of them."""
    if not plan.sessions:
        return
    step("Sessions at 25 frames per second")
    found = find_most_sessions(avatar, pcm, features, seconds=plan.seconds, most=plan.sessions)
    for measured in found:
        yield measured
        step(f"{measured.sessions} sessions: p95 {measured.p95_ms:.1f} ms")
